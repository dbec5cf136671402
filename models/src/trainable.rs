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
    fn take_gradients(&mut self) -> Vec<Option<Tensor<2>>>;
    /// Puts sums in the order of [`Trainable::trained`] in place of those that are kept.
    fn put_gradients(&mut self, sums: Vec<Option<Tensor<2>>>);
}

/// The gradients summed so far as tensors under their parameters' names, to be written beside a checkpoint.
///
/// # Errors
/// When a tensor cannot be read back from its device.
pub fn gradient_state(model: &mut dyn Trainable) -> Result<Vec<NamedTensor>, ModelError> {
    let sums = model.take_gradients();
    let state = sums
        .iter()
        .zip(model.trained())
        .filter_map(|(sum, &id)| Some((sum.clone()?, model.parameters().spec(id).name.clone())))
        .map(|(sum, name)| named(name, sum))
        .collect();
    model.put_gradients(sums);
    state
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
            let read = || read_matrix(state, name, shape, &shape, model.parameters(), id);
            state.contains(name).then(read).transpose()
        })
        .collect::<Result<_, _>>()?;
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

    pub(crate) fn put(&mut self, sums: Vec<Option<Tensor<2>>>) {
        self.sums = sums;
    }

    pub(crate) fn take(&mut self, count: usize) -> Vec<Option<Tensor<2>>> {
        let mut sums = std::mem::take(&mut self.sums);
        sums.resize(count, None);
        sums
    }
}
