//! Rotary positions (Su et al., 2021), halves apart as Hugging Face stores them.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::plan::Rope;

/// Cosines and sines for each token of a batch.
#[derive(Debug, Clone)]
pub(crate) struct RotaryTable {
    /// `[tokens, 1, head_dim]`, each half the same.
    cosines: Tensor<3>,
    sines: Tensor<3>,
}

impl RotaryTable {
    /// The table for tokens at `positions`, to rotate what is of type `dtype`.
    pub(crate) fn new(rope: &Rope, head_dim: usize, positions: &[u32], (device, dtype): (&Device, DType)) -> Self {
        let frequencies = rope.inverse_frequencies(head_dim);
        let angles = || {
            positions.iter().flat_map(|&position| {
                let twice = frequencies.iter().chain(&frequencies);
                twice.map(move |frequency| angle(position, *frequency))
            })
        };
        let shape = [positions.len(), 1, head_dim];
        let table = |of: fn(f32) -> f32, wide: fn(f64) -> f64| {
            let data = match dtype {
                DType::F64 => TensorData::new(angles().map(|angle| wide(angle.into())).collect(), shape),
                _ => TensorData::new(angles().map(of).collect(), shape),
            };
            Tensor::from_data(data, (device, dtype))
        };
        Self {
            cosines: table(f32::cos, f64::cos),
            sines: table(f32::sin, f64::sin),
        }
    }

    /// Rotates `x`, `[tokens, heads, head_dim]`.
    pub(crate) fn rotate(&self, x: Tensor<3>) -> Tensor<3> {
        let [_, _, dim] = x.dims();
        let first = x.clone().narrow(2, 0, dim / 2);
        let second = x.clone().narrow(2, dim / 2, dim / 2);
        let turned = Tensor::cat(vec![second.neg(), first], 2);
        x * self.cosines.clone() + turned * self.sines.clone()
    }
}

/// The product in `f32` of an `f32` frequency, as the published models compute it.
fn angle(position: u32, frequency: f64) -> f32 {
    position as f32 * frequency as f32
}
