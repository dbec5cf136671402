//! What an optimizer needs of a model.

use burn::tensor::{Gradients as Backward, Tensor};

use crate::weights::{ParameterId, Weights};

/// A model with parameters that training may change.
pub trait Trainable {
    /// The parameters that training changes, in a fixed order.
    fn trained(&self) -> &[ParameterId];
    /// All parameters.
    fn parameters(&self) -> &Weights;
    /// Replaces a parameter's value.
    fn set_parameter(&mut self, id: ParameterId, value: Tensor<2>);
    /// Adds the gradients of a loss over this model's tracked outputs to the sum that is kept.
    fn accumulate(&mut self, gradients: &mut Backward);
    /// The summed gradients in the order of [`Trainable::trained`], and a fresh start; `None` where none arrived.
    fn take_gradients(&mut self) -> Vec<Option<Tensor<2>>>;
}

/// Sums of gradients between two optimizer steps.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    sums: Vec<Option<Tensor<2>>>,
}

impl Gradients {
    pub(crate) fn accumulate(&mut self, tracked: &Weights, trained: &[ParameterId], backward: &mut Backward) {
        self.sums.resize(trained.len(), None);
        for (sum, &id) in self.sums.iter_mut().zip(trained) {
            if let Some(gradient) = tracked.get(id).grad_remove(backward) {
                *sum = Some(match sum.take() {
                    Some(before) => before + gradient,
                    None => gradient,
                });
            }
        }
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Option<Tensor<2>>> {
        let mut sums = std::mem::take(&mut self.sums);
        sums.resize(count, None);
        sums
    }
}
