//! The decoder's forward pass on the host, token by token, following the same plan as the burn module.

use std::sync::Arc;

use rayon::prelude::*;

use crate::decoder::{Decoder, Layer, Linear};
use crate::host::{Heads, KeyValues, Matrix, Projection, add, attend_token, gated, rms_norm};
use crate::language_model::Policy;
use crate::plan::DecoderPlan;
use crate::weights::{ParameterId, tensor_to_vec};
use crate::{ModelError, decoder::View};

/// A copy of a decoder's current parameters, adapters merged in `f32`.
#[derive(Debug)]
pub(crate) struct Engine {
    plan: DecoderPlan,
    heads: Heads,
    embedding: Matrix,
    /// `None`: the embedding.
    head: Option<Matrix>,
    layers: Vec<EngineLayer>,
    norm: Vec<f32>,
    frequencies: Vec<f32>,
}

#[derive(Debug)]
struct EngineLayer {
    input_norm: Vec<f32>,
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    mlp_norm: Vec<f32>,
    gate: Projection,
    up: Projection,
    down: Projection,
}

/// What a prompt leaves behind: keys and values of every layer, and the logits after its last token.
#[derive(Debug)]
pub(super) struct PromptCache {
    layers: Vec<KeyValues>,
    len: usize,
    pub(super) logits: Vec<f32>,
}

/// A response under way.
#[derive(Debug)]
pub(super) struct Sequence {
    prompt: Arc<PromptCache>,
    layers: Vec<KeyValues>,
    /// Tokens in its own cache.
    len: usize,
    /// The token to be read next.
    pub(super) next: u32,
}

impl Sequence {
    pub(super) fn new(engine: &Engine, prompt: Arc<PromptCache>, first: u32, limit: usize) -> Self {
        let layers = (0..engine.layers.len())
            .map(|_| KeyValues::new(engine.heads, limit))
            .collect();
        Self {
            prompt,
            layers,
            len: 0,
            next: first,
        }
    }
}

impl Engine {
    /// Copies the current parameters of `decoder`.
    pub(crate) fn new(decoder: &Decoder) -> Result<Self, ModelError> {
        let (plan, parameters) = (decoder.plan.clone(), &decoder.parameters);
        let view = decoder.view(Policy::Current);
        let head = if plan.tied && parameters.head.adapter.is_none() {
            None
        } else {
            Some(merged(view, &parameters.head)?)
        };
        let layers = parameters
            .layers
            .iter()
            .map(|layer| EngineLayer::new(view, &plan, layer))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            heads: Heads {
                query: plan.heads,
                key: plan.kv_heads,
                dim: plan.head_dim,
            },
            embedding: to_matrix(view, parameters.embedding)?,
            head,
            layers,
            norm: norm_weight(view, &plan, parameters.norm)?,
            frequencies: plan
                .rope
                .inverse_frequencies(plan.head_dim)
                .into_iter()
                .map(|f| f as f32)
                .collect(),
            plan,
        })
    }

    /// Reads a prompt.
    pub(super) fn prefill(&self, tokens: &[u32]) -> PromptCache {
        let turns = self.turns(0..tokens.len());
        let mut hidden = self.embed(tokens);
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            self.block(layer, &turns, &mut hidden, |q, k, v, out| {
                let cache = KeyValues::of(self.heads, k, v);
                cache.attend_in_parallel(true, q, out);
                layers.push(cache);
            });
        }
        let last = hidden.len() - self.plan.hidden;
        let logits = self.logits(&hidden[last..]);
        PromptCache {
            layers,
            len: tokens.len(),
            logits,
        }
    }

    /// Reads one token of each sequence; logits after it, `[sequences, vocabulary]`.
    pub(super) fn step(&self, sequences: &mut [&mut Sequence]) -> Vec<f32> {
        let tokens: Vec<u32> = sequences.iter().map(|sequence| sequence.next).collect();
        let turns = self.turns(sequences.iter().map(|sequence| sequence.prompt.len + sequence.len));
        let mut hidden = self.embed(&tokens);
        for (index, layer) in self.layers.iter().enumerate() {
            self.block(layer, &turns, &mut hidden, |q, k, v, out| {
                let (width, key_width) = (self.heads.query * self.heads.dim, self.heads.key * self.heads.dim);
                sequences
                    .par_iter_mut()
                    .zip(q.par_chunks_exact(width))
                    .zip(k.par_chunks_exact(key_width).zip(v.par_chunks_exact(key_width)))
                    .zip(out.par_chunks_exact_mut(width))
                    .for_each_init(Vec::new, |scratch, (((sequence, q), (k, v)), out)| {
                        let place = sequence.len;
                        sequence.layers[index].put(place, k, v);
                        let prompt = (&sequence.prompt.layers[index], sequence.prompt.len);
                        let own = (&sequence.layers[index], place + 1);
                        attend_token([prompt, own], q, scratch, out);
                    });
            });
        }
        for sequence in sequences.iter_mut() {
            sequence.len += 1;
        }
        self.logits(&hidden)
    }

    fn embed(&self, tokens: &[u32]) -> Vec<f32> {
        let mut hidden = vec![0.0; tokens.len() * self.plan.hidden];
        for (row, &token) in hidden.chunks_exact_mut(self.plan.hidden).zip(tokens) {
            self.embedding.row(token as usize, row);
            if let Some(scale) = self.plan.embedding_scale {
                row.iter_mut().for_each(|value| *value *= scale);
            }
        }
        hidden
    }

    fn logits(&self, hidden: &[f32]) -> Vec<f32> {
        let mut normal = Vec::new();
        rms_norm(hidden, &self.norm, self.plan.norm_eps as f32, &mut normal);
        let mut logits = Vec::new();
        self.head
            .as_ref()
            .unwrap_or(&self.embedding)
            .apply(&normal, &mut logits);
        logits
    }

    /// One block on `[tokens, hidden]`; `attend(q, k, v, out)` mixes the tokens.
    fn block(
        &self,
        layer: &EngineLayer,
        turns: &[(f32, f32)],
        hidden: &mut [f32],
        attend: impl FnOnce(&[f32], &[f32], &[f32], &mut [f32]),
    ) {
        let eps = self.plan.norm_eps as f32;
        let mut normal = Vec::new();
        rms_norm(hidden, &layer.input_norm, eps, &mut normal);
        let [mut q, mut k, mut v] = [Vec::new(), Vec::new(), Vec::new()];
        layer.query.apply(&normal, &mut q);
        layer.key.apply(&normal, &mut k);
        layer.value.apply(&normal, &mut v);
        self.rotate(&mut q, turns);
        self.rotate(&mut k, turns);
        let mut mixed = vec![0.0; q.len()];
        attend(&q, &k, &v, &mut mixed);
        let mut delta = q;
        layer.output.apply(&mixed, &mut delta);
        add(hidden, &delta);

        rms_norm(hidden, &layer.mlp_norm, eps, &mut normal);
        let [mut gate, mut up] = [k, v];
        layer.gate.apply(&normal, &mut gate);
        layer.up.apply(&normal, &mut up);
        gated(self.plan.activation, &mut gate, &up);
        layer.down.apply(&gate, &mut delta);
        add(hidden, &delta);
    }

    /// Sine and cosine of each position's angles, `[positions, dim / 2]`.
    fn turns(&self, positions: impl IntoIterator<Item = usize>) -> Vec<(f32, f32)> {
        let turn = |position: usize| self.frequencies.iter().map(move |f| (position as f32 * f).sin_cos());
        positions.into_iter().flat_map(turn).collect()
    }

    /// Rotates every head of every token, `[tokens, heads · dim]`.
    fn rotate(&self, x: &mut [f32], turns: &[(f32, f32)]) {
        let half = self.heads.dim / 2;
        let width = x.len() / (turns.len() / half);
        for (row, turns) in x.chunks_exact_mut(width).zip(turns.chunks_exact(half)) {
            for head in row.chunks_exact_mut(self.heads.dim) {
                let (first, second) = head.split_at_mut(half);
                for ((a, b), &(sin, cos)) in first.iter_mut().zip(second).zip(turns) {
                    (*a, *b) = (*a * cos - *b * sin, *b * cos + *a * sin);
                }
            }
        }
    }
}

impl EngineLayer {
    fn new(view: View<'_>, plan: &DecoderPlan, layer: &Layer) -> Result<Self, ModelError> {
        let project = |linear: &Linear| {
            let bias = linear.bias.map(|id| tensor_to_vec(view.tensor(id))).transpose()?;
            Ok::<_, ModelError>(Projection {
                weight: merged(view, linear)?,
                bias,
            })
        };
        Ok(Self {
            input_norm: norm_weight(view, plan, layer.input_norm)?,
            query: project(&layer.query)?,
            key: project(&layer.key)?,
            value: project(&layer.value)?,
            output: project(&layer.output)?,
            mlp_norm: norm_weight(view, plan, layer.mlp_norm)?,
            gate: project(&layer.gate)?,
            up: project(&layer.up)?,
            down: project(&layer.down)?,
        })
    }
}

/// W + s · B · A in `f32`.
fn merged(view: View<'_>, linear: &Linear) -> Result<Matrix, ModelError> {
    let mut weight = view.tensor(linear.weight);
    let [rows, columns] = weight.dims();
    if let Some(adapter) = linear.adapter {
        let update = view
            .tensor(adapter.b)
            .matmul(view.tensor(adapter.a))
            .mul_scalar(adapter.scale);
        weight = weight + update;
    }
    Ok(Matrix::new(&tensor_to_vec(weight)?, rows, columns))
}

fn to_matrix(view: View<'_>, id: ParameterId) -> Result<Matrix, ModelError> {
    let tensor = view.tensor(id);
    let [rows, columns] = tensor.dims();
    Ok(Matrix::new(&tensor_to_vec(tensor)?, rows, columns))
}

fn norm_weight(view: View<'_>, plan: &DecoderPlan, id: ParameterId) -> Result<Vec<f32>, ModelError> {
    let mut weight = tensor_to_vec(view.tensor(id))?;
    if plan.norm_adds_one {
        weight.iter_mut().for_each(|value| *value += 1.0);
    }
    Ok(weight)
}
