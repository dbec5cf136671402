//! The operations that models are written in. Bodies here are burn primitives and run on every device; they are the
//! reference for faster ones.

mod attention;
mod logprob;
mod norm;
mod rope;

pub(crate) use attention::{AttentionLayout, RowShape};
pub(crate) use logprob::{TokenScores, token_scores};
pub(crate) use norm::{layer_norm, rms_norm};
pub(crate) use rope::RotaryTable;

use burn::tensor::{Tensor, activation};

use crate::plan::Activation;

/// The non-linearity, elementwise.
pub(crate) fn activate(kind: Activation, x: Tensor<2>) -> Tensor<2> {
    match kind {
        Activation::Silu => activation::silu(x),
        Activation::Gelu => activation::gelu(x),
        Activation::GeluTanh => activation::gelu_approximate(x),
    }
}
