//! The decoder's forward pass on the host, token by token, following the same plan as the burn module.

use std::sync::Arc;

use rayon::prelude::*;

use super::attention::{Heads, LayerCache, attend_prompt, attend_token};
use super::kernels::{Matrix, exp, sum, vectorised};
use crate::decoder::{Decoder, Layer, Linear};
use crate::language_model::Policy;
use crate::plan::{Activation, DecoderPlan};
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

#[derive(Debug)]
struct Projection {
    weight: Matrix,
    bias: Option<Vec<f32>>,
}

/// What a prompt leaves behind: keys and values of every layer, and the logits after its last token.
#[derive(Debug)]
pub(super) struct PromptCache {
    layers: Vec<LayerCache>,
    len: usize,
    pub(super) logits: Vec<f32>,
}

/// A response under way.
#[derive(Debug)]
pub(super) struct Sequence {
    prompt: Arc<PromptCache>,
    layers: Vec<LayerCache>,
    /// Tokens in its own cache.
    len: usize,
    /// The token to be read next.
    pub(super) next: u32,
}

impl Sequence {
    pub(super) fn new(engine: &Engine, prompt: Arc<PromptCache>, first: u32, limit: usize) -> Self {
        let layers = (0..engine.layers.len())
            .map(|_| LayerCache::new(engine.heads, limit))
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
        let positions: Vec<u32> = (0..tokens.len() as u32).collect();
        let mut hidden = self.embed(tokens);
        let mut layers = Vec::with_capacity(self.layers.len());
        for layer in &self.layers {
            let mut cache = LayerCache::new(self.heads, tokens.len());
            self.block(layer, &positions, &mut hidden, |q, k, v, out| {
                let width = self.heads.key * self.heads.dim;
                for (place, (k, v)) in k.chunks_exact(width).zip(v.chunks_exact(width)).enumerate() {
                    cache.put(self.heads, place, k, v);
                }
                attend_prompt(self.heads, &cache, q, tokens.len(), out);
            });
            layers.push(cache);
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
        let positions: Vec<u32> = sequences
            .iter()
            .map(|sequence| (sequence.prompt.len + sequence.len) as u32)
            .collect();
        let mut hidden = self.embed(&tokens);
        for (index, layer) in self.layers.iter().enumerate() {
            self.block(layer, &positions, &mut hidden, |q, k, v, out| {
                let (width, key_width) = (self.heads.query * self.heads.dim, self.heads.key * self.heads.dim);
                sequences
                    .par_iter_mut()
                    .zip(q.par_chunks_exact(width))
                    .zip(k.par_chunks_exact(key_width).zip(v.par_chunks_exact(key_width)))
                    .zip(out.par_chunks_exact_mut(width))
                    .for_each_init(Vec::new, |scratch, (((sequence, q), (k, v)), out)| {
                        let place = sequence.len;
                        sequence.layers[index].put(self.heads, place, k, v);
                        let prompt = (&sequence.prompt.layers[index], sequence.prompt.len);
                        let own = (&sequence.layers[index], place + 1);
                        attend_token(self.heads, [prompt, own], q, scratch, out);
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
        positions: &[u32],
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
        self.rotate(&mut q, positions);
        self.rotate(&mut k, positions);
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

    /// Rotates every head of every token, `[tokens, heads · dim]`.
    fn rotate(&self, x: &mut [f32], positions: &[u32]) {
        let (dim, half) = (self.heads.dim, self.heads.dim / 2);
        let width = x.len() / positions.len();
        for (row, &position) in x.chunks_exact_mut(width).zip(positions) {
            let turns: Vec<(f32, f32)> = self
                .frequencies
                .iter()
                .map(|f| (position as f32 * f).sin_cos())
                .collect();
            for head in row.chunks_exact_mut(dim) {
                let (first, second) = head.split_at_mut(half);
                for ((a, b), &(sin, cos)) in first.iter_mut().zip(second).zip(&turns) {
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

impl Projection {
    fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        self.weight.apply(x, out);
        if let Some(bias) = &self.bias {
            out.chunks_exact_mut(bias.len()).for_each(|row| add(row, bias));
        }
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
    Ok(Matrix::new(tensor_to_vec(weight)?, rows, columns))
}

fn to_matrix(view: View<'_>, id: ParameterId) -> Result<Matrix, ModelError> {
    let tensor = view.tensor(id);
    let [rows, columns] = tensor.dims();
    Ok(Matrix::new(tensor_to_vec(tensor)?, rows, columns))
}

fn norm_weight(view: View<'_>, plan: &DecoderPlan, id: ParameterId) -> Result<Vec<f32>, ModelError> {
    let mut weight = tensor_to_vec(view.tensor(id))?;
    if plan.norm_adds_one {
        weight.iter_mut().for_each(|value| *value += 1.0);
    }
    Ok(weight)
}

fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut Vec<f32>) {
    out.clear();
    out.resize(x.len(), 0.0);
    vectorised(|| {
        let mut squares = vec![0.0; weight.len()];
        for (row, out) in x.chunks_exact(weight.len()).zip(out.chunks_exact_mut(weight.len())) {
            for (square, value) in squares.iter_mut().zip(row) {
                *square = value * value;
            }
            let factor = 1.0 / (sum(&squares) / weight.len() as f32 + eps).sqrt();
            for ((out, value), weight) in out.iter_mut().zip(row).zip(weight) {
                *out = value * factor * weight;
            }
        }
    });
}

fn add(x: &mut [f32], delta: &[f32]) {
    vectorised(|| {
        for (x, delta) in x.iter_mut().zip(delta) {
            *x += delta;
        }
    });
}

/// `gate = activation(gate) · up`.
fn gated(activation: Activation, gate: &mut [f32], up: &[f32]) {
    const TASK: usize = 1 << 14;
    gate.par_chunks_mut(TASK)
        .zip(up.par_chunks(TASK))
        .for_each(|(gate, up)| {
            vectorised(|| match activation {
                Activation::Silu => {
                    for (gate, up) in gate.iter_mut().zip(up) {
                        *gate = *gate / (1.0 + exp(-*gate)) * up;
                    }
                }
                Activation::GeluTanh => {
                    for (gate, up) in gate.iter_mut().zip(up) {
                        *gate = gelu_tanh(*gate) * up;
                    }
                }
                Activation::Gelu => {
                    for (gate, up) in gate.iter_mut().zip(up) {
                        let x = f64::from(*gate);
                        *gate = (0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))) as f32 * up;
                    }
                }
            });
        });
}

/// The tanh form of GELU (Hendrycks & Gimpel, 2016).
#[inline(always)]
fn gelu_tanh(x: f32) -> f32 {
    let inner = 0.797_884_6 * (x + 0.044_715 * x * x * x);
    // tanh(y) = 1 − 2 / (e²ʸ + 1)
    0.5 * x * (2.0 - 2.0 / (exp(2.0 * inner) + 1.0))
}

/// The error function to 1.2e-7 (Abramowitz & Stegun 7.1.26 is coarser: this is Numerical Recipes' erfc by Chebyshev fit).
fn erf(x: f64) -> f64 {
    let t = 1.0 / (1.0 + 0.5 * x.abs());
    let coefficients = [
        0.170_872_77,
        -0.822_152_23,
        1.488_515_87,
        -1.135_203_98,
        0.278_868_07,
        -0.186_288_06,
        0.096_784_18,
        0.374_091_96,
        1.000_023_68,
        -1.265_512_23,
    ];
    let series = coefficients.iter().fold(0.0, |sum, c| sum * t + c);
    let complement = t * (-x * x + series).exp();
    if x >= 0.0 { 1.0 - complement } else { complement - 1.0 }
}
