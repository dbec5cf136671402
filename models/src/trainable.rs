//! What an optimizer needs of a model.

use burn::tensor::{Gradients as Backward, Tensor};

use crate::ModelError;
use crate::files::{CheckpointReader, NamedTensor};
use crate::weights::{ParameterId, Weights, matrix, tensor_to_vec};

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
    fn take_gradients(&mut self) -> Vec<Option<GradientSum>>;
    /// Puts sums in the order of [`Trainable::trained`] in place of those that are kept.
    fn put_gradients(&mut self, sums: Vec<Option<GradientSum>>);
}

/// A sum of gradients, kept in two floats: the order of its terms, and which process summed which of them, hardly ever shows
/// in the rounded result. An optimizer that divides by a gradient's size would make much of the difference.
#[derive(Debug, Clone)]
pub struct GradientSum {
    /// The sum, rounded.
    pub value: Tensor<2>,
    /// What rounding left, at most half a unit in the last place of `value`; `None` for nothing.
    pub rest: Option<Tensor<2>>,
}

impl From<Tensor<2>> for GradientSum {
    fn from(value: Tensor<2>) -> Self {
        Self { value, rest: None }
    }
}

impl GradientSum {
    /// Adds a term: what rounding takes from the sum is found exactly (Knuth, TAOCP 2, 4.2.2) and kept.
    fn add(self, term: Tensor<2>) -> Self {
        let total = self.value.clone() + term.clone();
        let arrived = total.clone() - self.value.clone();
        let lost = (self.value - (total.clone() - arrived.clone())) + (term - arrived);
        let rest = match self.rest {
            Some(rest) => rest + lost,
            None => lost,
        };
        let value = total.clone() + rest.clone();
        let rest = rest - (value.clone() - total);
        Self {
            value,
            rest: Some(rest),
        }
    }
}

/// The gradients summed so far as tensors under their parameters' names, to be written beside a checkpoint.
///
/// # Errors
/// When a tensor cannot be read back from its device.
pub fn gradient_state(model: &mut dyn Trainable) -> Result<Vec<NamedTensor>, ModelError> {
    let sums = model.take_gradients();
    let mut state = Vec::new();
    for (sum, &id) in sums.iter().zip(model.trained()) {
        let Some(sum) = sum else { continue };
        let name = &model.parameters().spec(id).name;
        state.push(named(name.clone(), sum.value.clone()));
        if let Some(rest) = &sum.rest {
            state.push(named(rest_name(name), rest.clone()));
        }
    }
    model.put_gradients(sums);
    state.into_iter().collect()
}

fn rest_name(name: &str) -> String {
    format!("{name}.rest")
}

/// Takes up the sums that [`gradient_state`] gave.
///
/// # Errors
/// When a tensor has not the shape of its parameter.
pub fn restore_gradients(model: &mut dyn Trainable, state: &CheckpointReader) -> Result<(), ModelError> {
    let sums = model
        .trained()
        .iter()
        .map(|&id| {
            let name = &model.parameters().spec(id).name;
            let shape = model.parameters().get(id).dims();
            let read = |name: &str| -> Result<Option<Tensor<2>>, ModelError> {
                let read = || read_matrix(state, name, shape, &shape, model.parameters(), id);
                state.contains(name).then(read).transpose()
            };
            let rest = read(&rest_name(name))?;
            Ok(read(name)?.map(|value| GradientSum { value, rest }))
        })
        .collect::<Result<_, ModelError>>()?;
    model.put_gradients(sums);
    Ok(())
}

/// Replaces every trained parameter by the one of that name, after `prefix`, in a checkpoint of the same model.
///
/// # Errors
/// When one is missing or has another shape.
pub fn restore_parameters(
    model: &mut dyn Trainable,
    checkpoint: &CheckpointReader,
    prefix: &str,
) -> Result<(), ModelError> {
    for id in model.trained().to_vec() {
        let spec = model.parameters().spec(id);
        let name = format!("{prefix}{}", spec.name);
        let shape = model.parameters().get(id).dims();
        let value = read_matrix(checkpoint, &name, shape, &spec.shape, model.parameters(), id)?;
        model.set_parameter(id, value);
    }
    Ok(())
}

fn read_matrix(
    reader: &CheckpointReader,
    name: &str,
    [rows, columns]: [usize; 2],
    file_shape: &[usize],
    weights: &Weights,
    id: ParameterId,
) -> Result<Tensor<2>, ModelError> {
    let (data, _) = reader.read(name, file_shape)?;
    Ok(matrix(data, rows, columns, &weights.get(id).device()))
}

/// A tensor to be written.
pub(crate) fn named(name: String, tensor: Tensor<2>) -> Result<NamedTensor, ModelError> {
    Ok(NamedTensor {
        name,
        shape: tensor.dims().to_vec(),
        data: tensor_to_vec(tensor)?,
    })
}

/// Sums of gradients between two optimizer steps.
#[derive(Debug, Default)]
pub(crate) struct Gradients {
    sums: Vec<Option<GradientSum>>,
}

impl Gradients {
    pub(crate) fn accumulate(&mut self, tracked: &Weights, trained: &[ParameterId], backward: &mut Backward) {
        self.sums.resize(trained.len(), None);
        for (sum, &id) in self.sums.iter_mut().zip(trained) {
            if let Some(gradient) = tracked.get(id).grad_remove(backward) {
                *sum = Some(match sum.take() {
                    Some(before) => before.add(gradient),
                    None => gradient.into(),
                });
            }
        }
    }

    pub(crate) fn put(&mut self, sums: Vec<Option<GradientSum>>) {
        self.sums = sums;
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Option<GradientSum>> {
        let mut sums = std::mem::take(&mut self.sums);
        sums.resize(count, None);
        sums
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use burn::tensor::Device;

    #[test]
    fn a_sum_of_gradients_does_not_depend_on_the_order_of_its_terms() {
        let term = |value: f32| matrix(vec![value], 1, 1, &Device::flex());
        let sum_of = |values: &[f32]| {
            let start = GradientSum::from(term(values[0]));
            let sum = values[1..].iter().fold(start, |sum, &value| sum.add(term(value)));
            tensor_to_vec(sum.value).unwrap()[0]
        };
        // In plain f32 the second gives 0.
        assert_eq!(sum_of(&[1e7, -1e7, 0.125, 0.25]), 0.375);
        assert_eq!(sum_of(&[0.25, 1e7, 0.125, -1e7]), 0.375);
        let thirds: Vec<f32> = (1..200).map(|n| 1.0 / n as f32).collect();
        let exact = thirds.iter().map(|&value| f64::from(value)).sum::<f64>() as f32;
        assert_eq!(sum_of(&thirds), exact);
        assert_eq!(sum_of(&thirds.iter().rev().copied().collect::<Vec<_>>()), exact);
    }
}
