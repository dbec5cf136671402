//! The forward pass over packed tokens.

use std::ops::Range;

use burn::tensor::{Device, Int, Tensor, TensorData};

use super::{Decoder, Layer, View};
use crate::ops::{AttentionLayout, RotaryTable, activate, rms_norm};
use crate::packed::PackedBatch;

impl Decoder {
    /// Embeds tokens, `[tokens, hidden]`.
    pub(crate) fn embed(&self, view: View<'_>, tokens: &[u32]) -> Tensor<2> {
        let rows = select_rows(view.tensor(self.parameters.embedding), tokens, &self.device);
        match self.plan.embedding_scale {
            Some(scale) => rows.mul_scalar(scale),
            None => rows,
        }
    }

    /// Runs the blocks of `range` on `[tokens, hidden]`.
    pub(super) fn blocks(
        &self,
        view: View<'_>,
        hidden: Tensor<2>,
        batch: &PackedBatch,
        range: Range<usize>,
    ) -> Tensor<2> {
        if range.is_empty() || batch.is_empty() {
            return hidden;
        }
        let place = (&self.device, hidden.dtype());
        let rotary = RotaryTable::new(&self.plan.rope, self.plan.head_dim, &batch.positions, place);
        let attention = AttentionLayout::new(&batch.rows, place);
        let scale = self.attention_scale();
        self.parameters.layers[range].iter().fold(hidden, |hidden, layer| {
            self.block(view, layer, hidden, &rotary, |q, k, v| {
                attention.attend(&q, &k, &v, scale)
            })
        })
    }

    /// What products of queries and keys are multiplied with.
    pub(crate) fn attention_scale(&self) -> f64 {
        (self.plan.head_dim as f64).powf(-0.5)
    }

    /// One block on `[tokens, hidden]`; `attend(q, k, v)` mixes the tokens: from `[tokens, heads, head_dim]`, keys and values with
    /// heads of their own, to `[tokens, heads · head_dim]`.
    pub(crate) fn block(
        &self,
        view: View<'_>,
        layer: &Layer,
        hidden: Tensor<2>,
        rotary: &RotaryTable,
        attend: impl FnOnce(Tensor<3>, Tensor<3>, Tensor<3>) -> Tensor<2>,
    ) -> Tensor<2> {
        let plan = &self.plan;
        let norm = |x: Tensor<2>, id| rms_norm(x, view.tensor(id), plan.norm_eps, plan.norm_adds_one);
        let tokens = hidden.dims()[0];
        let split = |x: Tensor<2>, heads: usize| x.reshape([tokens, heads, plan.head_dim]);

        let x = norm(hidden.clone(), layer.input_norm);
        let q = rotary.rotate(split(view.linear(x.clone(), &layer.query), plan.heads));
        let k = rotary.rotate(split(view.linear(x.clone(), &layer.key), plan.kv_heads));
        let v = split(view.linear(x, &layer.value), plan.kv_heads);
        let mixed = attend(q, k, v);
        let hidden = hidden + view.linear(mixed, &layer.output);

        let x = norm(hidden.clone(), layer.mlp_norm);
        let gate = activate(plan.activation, view.linear(x.clone(), &layer.gate));
        let gated = gate * view.linear(x, &layer.up);
        hidden + view.linear(gated, &layer.down)
    }

    pub(crate) fn final_norm(&self, view: View<'_>, hidden: Tensor<2>) -> Tensor<2> {
        rms_norm(
            hidden,
            view.tensor(self.parameters.norm),
            self.plan.norm_eps,
            self.plan.norm_adds_one,
        )
    }

    /// Logits, `[rows, vocabulary]`.
    pub(crate) fn head(&self, view: View<'_>, hidden: Tensor<2>) -> Tensor<2> {
        view.linear(hidden, &self.parameters.head)
    }
}

/// Rows of `x` at `indices`, in that order.
pub(crate) fn select_rows(x: Tensor<2>, indices: &[u32], device: &Device) -> Tensor<2> {
    let indices: Vec<i64> = indices.iter().map(|&index| i64::from(index)).collect();
    let len = indices.len();
    x.select(0, Tensor::<1, Int>::from_data(TensorData::new(indices, [len]), device))
}
