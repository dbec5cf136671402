//! The encoder's forward pass on the host, for vectors without gradients.

use rayon::prelude::*;

use super::load::Affine;
use super::{Bert, Pooling};
use crate::ModelError;
use crate::host::{Heads, KeyValues, Matrix, Projection, activate, add, layer_norm};
use crate::plan::EncoderPlan;
use crate::weights::Weights;

/// Tokens that a task takes at least: fewer would read the weights too often.
const TASK_TOKENS: usize = 96;

/// A copy of an encoder's current parameters.
#[derive(Debug)]
pub(super) struct HostEncoder {
    plan: EncoderPlan,
    pooling: Pooling,
    words: Vec<f32>,
    /// A position's embedding and the segment's.
    places: Vec<f32>,
    norm: Norm,
    layers: Vec<HostLayer>,
}

#[derive(Debug)]
struct Norm {
    weight: Vec<f32>,
    bias: Vec<f32>,
}

#[derive(Debug)]
struct HostLayer {
    query: Projection,
    key: Projection,
    value: Projection,
    output: Projection,
    attention_norm: Norm,
    up: Projection,
    down: Projection,
    mlp_norm: Norm,
}

impl HostEncoder {
    pub(super) fn new(bert: &Bert) -> Result<Self, ModelError> {
        let (weights, parameters) = (bert.weights(), &bert.parameters);
        let mut places = weights.to_vec(parameters.positions)?;
        let segments = weights.to_vec(parameters.segments)?;
        let segment = &segments[..bert.plan.hidden];
        places
            .chunks_exact_mut(segment.len())
            .for_each(|place| add(place, segment));
        let layers = parameters.layers.iter().map(|layer| {
            Ok::<_, ModelError>(HostLayer {
                query: projection(weights, layer.query)?,
                key: projection(weights, layer.key)?,
                value: projection(weights, layer.value)?,
                output: projection(weights, layer.output)?,
                attention_norm: Norm::new(weights, layer.attention_norm)?,
                up: projection(weights, layer.up)?,
                down: projection(weights, layer.down)?,
                mlp_norm: Norm::new(weights, layer.mlp_norm)?,
            })
        });
        Ok(Self {
            words: weights.to_vec(parameters.words)?,
            places,
            norm: Norm::new(weights, parameters.norm)?,
            layers: layers.collect::<Result<_, _>>()?,
            plan: bert.plan.clone(),
            pooling: bert.pooling,
        })
    }

    /// Embeds texts, `[texts, hidden]`. A text's vector does not depend on the others.
    pub(super) fn embed(&self, texts: &[&[u32]]) -> Vec<f32> {
        let width = self.plan.hidden;
        let tasks = tasks(texts);
        let pooled: Vec<Vec<f32>> = tasks
            .par_iter()
            .map(|task| {
                let chosen: Vec<&[u32]> = task.iter().map(|&index| texts[index]).collect();
                self.pool(&self.run(&chosen), &chosen)
            })
            .collect();
        let mut vectors = vec![0.0; texts.len() * width];
        for (task, pooled) in tasks.iter().zip(&pooled) {
            for (&index, vector) in task.iter().zip(pooled.chunks_exact(width)) {
                vectors[index * width..(index + 1) * width].copy_from_slice(vector);
            }
        }
        vectors
    }

    /// Last hidden states of texts that stand end to end, `[tokens, hidden]`.
    fn run(&self, texts: &[&[u32]]) -> Vec<f32> {
        let width = self.plan.hidden;
        let heads = Heads {
            query: self.plan.heads,
            key: self.plan.heads,
            dim: self.plan.head_dim(),
        };
        let mut hidden = Vec::with_capacity(texts.iter().map(|text| text.len()).sum::<usize>() * width);
        for text in texts {
            for (&token, place) in text.iter().zip(self.places.chunks_exact(width)) {
                let word = &self.words[token as usize * width..(token as usize + 1) * width];
                hidden.extend(word.iter().zip(place).map(|(word, place)| word + place));
            }
        }
        self.normalise(&mut hidden, &self.norm);
        let [mut q, mut k, mut v, mut delta, mut inner] = [const { Vec::new() }; 5];
        let mut mixed = vec![0.0; hidden.len()];
        for layer in &self.layers {
            layer.query.apply(&hidden, &mut q);
            layer.key.apply(&hidden, &mut k);
            layer.value.apply(&hidden, &mut v);
            let mut start = 0;
            for text in texts {
                let own = start..start + text.len() * width;
                KeyValues::of(heads, &k[own.clone()], &v[own.clone()]).attend(
                    false,
                    &q[own.clone()],
                    &mut mixed[own.clone()],
                );
                start = own.end;
            }
            layer.output.apply(&mixed, &mut delta);
            add(&mut hidden, &delta);
            self.normalise(&mut hidden, &layer.attention_norm);
            layer.up.apply(&hidden, &mut inner);
            activate(self.plan.activation, &mut inner);
            layer.down.apply(&inner, &mut delta);
            add(&mut hidden, &delta);
            self.normalise(&mut hidden, &layer.mlp_norm);
        }
        hidden
    }

    fn normalise(&self, x: &mut [f32], norm: &Norm) {
        layer_norm(x, &norm.weight, &norm.bias, self.plan.norm_eps as f32);
    }

    /// One vector a text, `[texts, hidden]`.
    fn pool(&self, hidden: &[f32], texts: &[&[u32]]) -> Vec<f32> {
        let width = self.plan.hidden;
        let mut pooled = Vec::with_capacity(texts.len() * width);
        let mut rest = hidden;
        for text in texts {
            let (own, after) = rest.split_at(text.len() * width);
            rest = after;
            match self.pooling {
                Pooling::Cls => pooled.extend_from_slice(&own[..width]),
                Pooling::Mean => {
                    let mut mean = vec![0.0; width];
                    own.chunks_exact(width).for_each(|row| add(&mut mean, row));
                    pooled.extend(mean.iter().map(|sum| sum / text.len() as f32));
                }
            }
        }
        pooled
    }
}

impl Norm {
    fn new(weights: &Weights, affine: Affine) -> Result<Self, ModelError> {
        Ok(Self {
            weight: weights.to_vec(affine.weight)?,
            bias: weights.to_vec(affine.bias)?,
        })
    }
}

fn projection(weights: &Weights, affine: Affine) -> Result<Projection, ModelError> {
    let shape = &weights.spec(affine.weight).shape;
    Ok(Projection {
        weight: Matrix::new(&weights.to_vec(affine.weight)?, shape[0], shape[1]),
        bias: Some(weights.to_vec(affine.bias)?),
    })
}

/// Indices of texts in tasks: long ones first and alone, short ones together.
fn tasks(texts: &[&[u32]]) -> Vec<Vec<usize>> {
    let mut tasks: Vec<Vec<usize>> = Vec::new();
    let mut tokens = TASK_TOKENS;
    for index in super::forward::by_length(texts).into_iter().rev() {
        if tokens >= TASK_TOKENS {
            tasks.push(Vec::new());
            tokens = 0;
        }
        tokens += texts[index].len();
        if let Some(task) = tasks.last_mut() {
            task.push(index);
        }
    }
    tasks
}
