//! Where each of a decoder's parameters stands.

use crate::plan::DecoderPlan;
use crate::weights::{ParameterId, ParameterSpec};

/// A linear layer: weight `[out, in]`, perhaps a bias, perhaps an adapter beside it.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    /// The layer's name without `.weight`.
    pub(crate) name: String,
    pub(crate) weight: ParameterId,
    pub(crate) bias: Option<ParameterId>,
    pub(crate) adapter: Option<Adapter>,
}

/// A low-rank update of a linear layer: A `[rank, in]`, B `[out, rank]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Adapter {
    pub(crate) a: ParameterId,
    pub(crate) b: ParameterId,
    pub(crate) scale: f32,
}

/// One block.
#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) input_norm: ParameterId,
    pub(crate) query: Linear,
    pub(crate) key: Linear,
    pub(crate) value: Linear,
    pub(crate) output: Linear,
    pub(crate) mlp_norm: ParameterId,
    pub(crate) gate: Linear,
    pub(crate) up: Linear,
    pub(crate) down: Linear,
}

impl Layer {
    pub(crate) fn linears_mut(&mut self) -> [&mut Linear; 7] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.output,
            &mut self.gate,
            &mut self.up,
            &mut self.down,
        ]
    }

    pub(crate) fn linears(&self) -> [&Linear; 7] {
        [
            &self.query,
            &self.key,
            &self.value,
            &self.output,
            &self.gate,
            &self.up,
            &self.down,
        ]
    }
}

/// All of a decoder's parameters.
#[derive(Debug, Clone)]
pub(crate) struct DecoderParameters {
    pub(crate) embedding: ParameterId,
    pub(crate) layers: Vec<Layer>,
    pub(crate) norm: ParameterId,
    /// A tied head's weight is the embedding.
    pub(crate) head: Linear,
}

impl DecoderParameters {
    /// Lays out the parameters of `plan`; `add` receives each with its file name and shape and answers its id.
    pub(crate) fn lay_out<E>(
        plan: &DecoderPlan,
        add: &mut impl FnMut(ParameterSpec) -> Result<ParameterId, E>,
    ) -> Result<Self, E> {
        let hidden = plan.hidden;
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let embedding = add(spec("model.embed_tokens.weight", &[plan.vocabulary, hidden]))?;
        let mut layers = Vec::with_capacity(plan.layers);
        for index in 0..plan.layers {
            let prefix = format!("model.layers.{index}");
            let mut linear = |name: &str, outputs: usize, inputs: usize, biased: bool| {
                let name = format!("{prefix}.{name}");
                let weight = add(spec(&format!("{name}.weight"), &[outputs, inputs]))?;
                let bias = if biased {
                    Some(add(spec(&format!("{name}.bias"), &[outputs]))?)
                } else {
                    None
                };
                Ok(Linear {
                    name,
                    weight,
                    bias,
                    adapter: None,
                })
            };
            let query = linear("self_attn.q_proj", queries, hidden, plan.attention_bias)?;
            let key = linear("self_attn.k_proj", keys, hidden, plan.attention_bias)?;
            let value = linear("self_attn.v_proj", keys, hidden, plan.attention_bias)?;
            let output = linear("self_attn.o_proj", hidden, queries, plan.attention_bias)?;
            let gate = linear("mlp.gate_proj", plan.intermediate, hidden, plan.mlp_bias)?;
            let up = linear("mlp.up_proj", plan.intermediate, hidden, plan.mlp_bias)?;
            let down = linear("mlp.down_proj", hidden, plan.intermediate, plan.mlp_bias)?;
            let input_norm = add(spec(&format!("{prefix}.input_layernorm.weight"), &[hidden]))?;
            let mlp_norm = add(spec(&format!("{prefix}.post_attention_layernorm.weight"), &[hidden]))?;
            layers.push(Layer {
                input_norm,
                query,
                key,
                value,
                output,
                mlp_norm,
                gate,
                up,
                down,
            });
        }
        let norm = add(spec("model.norm.weight", &[hidden]))?;
        let weight = if plan.tied {
            embedding
        } else {
            add(spec("lm_head.weight", &[plan.vocabulary, hidden]))?
        };
        let head = Linear {
            name: "lm_head".to_owned(),
            weight,
            bias: None,
            adapter: None,
        };
        Ok(Self {
            embedding,
            layers,
            norm,
            head,
        })
    }
}

fn spec(name: &str, shape: &[usize]) -> ParameterSpec {
    ParameterSpec {
        name: name.to_owned(),
        shape: shape.to_vec(),
    }
}
