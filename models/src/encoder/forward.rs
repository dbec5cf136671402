//! The forward pass over packed texts.

use burn::tensor::{Int, Tensor, TensorData};

use super::load::{Affine, EncoderLayer};
use super::{Bert, Pooling};
use crate::ops::{AttentionLayout, RowShape, activate, layer_norm};
use crate::weights::Weights;

pub(super) use crate::decoder::select_rows;

impl Bert {
    /// Last hidden states of `texts`, which stand end to end: `[tokens, hidden]`.
    pub(super) fn run(&self, weights: &Weights, texts: &[&[u32]]) -> Tensor<2> {
        let parameters = &self.parameters;
        let tokens: Vec<u32> = texts.iter().flat_map(|text| text.iter().copied()).collect();
        let positions: Vec<u32> = texts.iter().flat_map(|text| 0..text.len() as u32).collect();
        let words = select_rows(weights.get(parameters.words), &tokens, &self.device);
        let places = select_rows(weights.get(parameters.positions), &positions, &self.device);
        let segment = weights.get(parameters.segments).narrow(0, 0, 1);
        let rows: Vec<RowShape> = texts.iter().map(|text| RowShape::Full(text.len())).collect();
        let attention = AttentionLayout::new(&rows, (&self.device, words.dtype()));
        let hidden = self.norm(weights, words + segment + places, parameters.norm);
        parameters
            .layers
            .iter()
            .fold(hidden, |hidden, layer| self.block(weights, layer, hidden, &attention))
    }

    fn block(
        &self,
        weights: &Weights,
        layer: &EncoderLayer,
        hidden: Tensor<2>,
        attention: &AttentionLayout,
    ) -> Tensor<2> {
        let (tokens, heads, dim) = (hidden.dims()[0], self.plan.heads, self.plan.head_dim());
        let project = |affine| linear(weights, hidden.clone(), affine).reshape([tokens, heads, dim]);
        let (q, k, v) = (project(layer.query), project(layer.key), project(layer.value));
        let mixed = attention.attend(&q, &k, &v, (dim as f64).powf(-0.5));
        let hidden = self.norm(
            weights,
            linear(weights, mixed, layer.output) + hidden,
            layer.attention_norm,
        );
        let inner = activate(self.plan.activation, linear(weights, hidden.clone(), layer.up));
        self.norm(weights, linear(weights, inner, layer.down) + hidden, layer.mlp_norm)
    }

    fn norm(&self, weights: &Weights, x: Tensor<2>, norm: Affine) -> Tensor<2> {
        layer_norm(x, weights.get(norm.weight), weights.get(norm.bias), self.plan.norm_eps)
    }

    /// One vector a text, `[texts, hidden]`.
    pub(super) fn pool(&self, hidden: Tensor<2>, texts: &[&[u32]]) -> Tensor<2> {
        let starts = texts.iter().scan(0, |start, text| {
            let own = *start;
            *start += text.len();
            Some(own)
        });
        match self.pooling {
            Pooling::Cls => {
                let starts: Vec<i64> = starts.map(|start| start as i64).collect();
                let data = TensorData::new(starts, [texts.len()]);
                hidden.select(0, Tensor::<1, Int>::from_data(data, &self.device))
            }
            Pooling::Mean => {
                let tokens = hidden.dims()[0];
                let mut shares = vec![0.0; texts.len() * tokens];
                for (row, (start, text)) in starts.zip(texts).enumerate() {
                    let first = row * tokens + start;
                    shares[first..first + text.len()].fill(1.0 / text.len() as f64);
                }
                let data = TensorData::new(shares, [texts.len(), tokens]);
                Tensor::<2>::from_data(data, (&self.device, hidden.dtype())).matmul(hidden)
            }
        }
    }
}

fn linear(weights: &Weights, x: Tensor<2>, affine: Affine) -> Tensor<2> {
    x.matmul(weights.get(affine.weight).transpose()) + weights.get(affine.bias)
}

/// Indices by length, ties in order.
pub(super) fn by_length(texts: &[&[u32]]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&index| texts[index].len());
    order
}

/// Indices in batches of similar length, each small enough for its activations to stay in cache.
pub(super) fn batches(texts: &[&[u32]]) -> Vec<Vec<usize>> {
    const MOST_TOKENS: usize = 4096;
    let mut batches: Vec<Vec<usize>> = Vec::new();
    let mut tokens = usize::MAX;
    for index in by_length(texts) {
        let len = texts[index].len();
        match batches.last_mut() {
            Some(batch) if tokens + len <= MOST_TOKENS => {
                batch.push(index);
                tokens += len;
            }
            _ => {
                batches.push(vec![index]);
                tokens = len;
            }
        }
    }
    batches
}
