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

use std::f64::consts::FRAC_1_SQRT_2;

use burn::tensor::{Device, Tensor, activation};

use crate::plan::Activation;

/// The non-linearity, elementwise.
pub(crate) fn activate(kind: Activation, x: Tensor<2>) -> Tensor<2> {
    match kind {
        Activation::Silu => activation::silu(x),
        Activation::Gelu if x.device().inner() == Device::flex() => activation::gelu(x),
        // Away from flex burn takes the derivative of the form with tanh, which is another function's.
        Activation::Gelu => {
            let phi = x
                .clone()
                .mul_scalar(FRAC_1_SQRT_2)
                .erf()
                .add_scalar(1.0)
                .mul_scalar(0.5);
            x * phi
        }
        Activation::GeluTanh => activation::gelu_approximate(x),
    }
}
