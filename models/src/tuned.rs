//! A model's parameters as burn tensors, and all that training does to them.

use std::ops::Range;

use burn::tensor::{Tensor, TensorData};

use crate::optimizer::{AdamConfig, Moments, TensorMoments, update};
use crate::rounding::{Rounding, to_nearest};
use crate::trainable::{Gradient, Pass, Trainable, cut_to_parts};
use crate::weights::{ParameterId, ParameterSpec, Weights, tensor_to_vec};
use crate::{Kept, ModelError};

/// Parameters of which training changes some.
#[derive(Debug, Default)]
pub(crate) struct Tuned {
    weights: Weights,
    /// Those that training changes.
    ids: Vec<ParameterId>,
    specs: Vec<ParameterSpec>,
    /// The parameters with the trained ones as leaves on the autodiff device, until one changes.
    leaves: Option<Weights>,
    sums: Vec<Option<TensorSum>>,
    moments: Vec<Option<TensorMoments>>,
    /// Where moments are kept of parts alone: the part of each parameter.
    parts: Option<Vec<Range<usize>>>,
    /// Where the trained parameters are bf16 numbers: the seed of their rounding.
    rounding: Option<u64>,
    /// Counts changes to the parameters, so that what was made from them knows when it is stale.
    version: u64,
}

/// A forward pass over the leaves of one version.
struct Forward<const D: usize> {
    outputs: Tensor<D>,
    version: u64,
}

impl Tuned {
    /// Parameters of which training changes those in `ids`.
    pub(crate) fn new(weights: Weights, ids: Vec<ParameterId>) -> Self {
        let mut tuned = Self {
            weights,
            ..Self::default()
        };
        tuned.train(ids);
        tuned
    }

    /// Says what training changes from now on, in f32.
    pub(crate) fn train(&mut self, ids: Vec<ParameterId>) {
        self.specs = ids.iter().map(|&id| self.weights.spec(id).clone()).collect();
        self.sums = vec![None; ids.len()];
        self.moments = vec![None; ids.len()];
        self.parts = None;
        self.rounding = None;
        self.ids = ids;
        self.changed();
    }

    /// The same parameters in f64, in which gradients, moments and steps are from then on; those so far are forgotten.
    #[cfg(any(test, feature = "engine", feature = "wgpu"))]
    pub(crate) fn into_f64(self) -> Self {
        Self::new(self.weights.into_f64(), self.ids)
    }

    pub(crate) fn weights(&self) -> &Weights {
        &self.weights
    }

    /// To add parameters; those that are there do not change through it.
    pub(crate) fn weights_mut(&mut self) -> &mut Weights {
        &mut self.weights
    }

    pub(crate) fn ids(&self) -> &[ParameterId] {
        &self.ids
    }

    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// The parameters to run a forward pass with whose gradients are wanted.
    pub(crate) fn leaves(&mut self) -> Weights {
        let leaves = &mut self.leaves;
        leaves.get_or_insert_with(|| self.weights.tracked(&self.ids)).clone()
    }

    /// Keeps a forward pass over [`Tuned::leaves`] by its outputs.
    pub(crate) fn pass<const D: usize>(&self, outputs: Tensor<D>) -> Pass {
        let version = self.version;
        Pass(Kept::new(Forward { outputs, version }))
    }

    /// Adds the gradients of Σ slope · output over the pass' outputs, row-major, to the sums.
    pub(crate) fn backward<const D: usize>(&mut self, pass: Pass, slopes: &[f32]) -> Result<(), ModelError> {
        let Forward { outputs, version } = pass.0.take::<Forward<D>>()?;
        if version != self.version {
            let message = "gradients were asked for after a parameter had changed; run the forward pass again";
            return Err(ModelError::Input(message.to_owned()));
        }
        let shape = outputs.dims();
        check_length("slopes", slopes.len(), shape.iter().product())?;
        let Some(leaves) = &self.leaves else { return Ok(()) };
        if self.ids.is_empty() {
            return Ok(());
        }
        let place = (&outputs.device().inner(), outputs.dtype());
        let slopes = Tensor::from_data(TensorData::new(slopes.to_vec(), shape), place);
        // The gradient of this sum in an output is the output's slope; in the parameters, by the chain rule, what is wanted.
        let mut gradients = (outputs * slopes).sum().backward();
        for (sum, &id) in self.sums.iter_mut().zip(&self.ids) {
            if let Some(gradient) = leaves.get(id).grad_remove(&mut gradients) {
                *sum = Some(match sum.take() {
                    Some(before) => before.add(gradient),
                    None => gradient.into(),
                });
            }
        }
        Ok(())
    }

    /// Replaces the value of a trained parameter.
    pub(crate) fn put(&mut self, index: usize, value: Tensor<2>) {
        self.weights.set(self.ids[index], value);
        self.changed();
    }

    fn changed(&mut self) {
        self.leaves = None;
        self.version += 1;
    }

    /// A trained parameter's values as a tensor.
    fn tensor(&self, index: usize, values: Vec<f32>) -> Result<Tensor<2>, ModelError> {
        let spec = &self.specs[index];
        check_length(&spec.name, values.len(), spec.scalars())?;
        Ok(self.beside(index, values, spec.dims()))
    }

    /// Moments of the part that is kept as tensors: of the parameter's shape where that is all of it, else one row.
    fn moments_tensor(&self, index: usize, values: Vec<f32>) -> Result<Tensor<2>, ModelError> {
        if self.parts.is_none() {
            return self.tensor(index, values);
        }
        let length = self.part(index).len();
        check_length(&self.specs[index].name, values.len(), length)?;
        Ok(self.beside(index, values, [1, length]))
    }

    /// `[rows, columns]` from row-major data, on the device of a trained parameter and of its type.
    fn beside(&self, index: usize, data: Vec<f32>, shape: [usize; 2]) -> Tensor<2> {
        let parameter = self.weights.get(self.ids[index]);
        Tensor::from_data(TensorData::new(data, shape), (&parameter.device(), parameter.dtype()))
    }

    /// What the parameter's last step made of its values from number `start` on, as it is kept.
    fn rounded(&self, index: usize, start: usize, value: Tensor<2>) -> Result<Tensor<2>, ModelError> {
        let (Some(seed), Some(moments)) = (self.rounding, &self.moments[index]) else {
            return Ok(value);
        };
        let [rows, columns] = value.dims();
        let parameter = index as u32;
        let mut values = tensor_to_vec(value)?;
        Rounding { seed, parameter }.round(moments.steps, start, &mut values);
        Ok(self.beside(index, values, [rows, columns]))
    }
}

fn check_length(name: &str, found: usize, expected: usize) -> Result<(), ModelError> {
    if found == expected {
        return Ok(());
    }
    Err(ModelError::Input(format!(
        "{name}: expected {expected} values, found {found}"
    )))
}

impl Trainable for Tuned {
    fn trained(&self) -> &[ParameterSpec] {
        &self.specs
    }

    fn scalars(&self) -> usize {
        let all: Vec<ParameterId> = self.weights.ids().collect();
        self.weights.count(&all)
    }

    fn values(&self, index: usize) -> Result<Vec<f32>, ModelError> {
        self.weights.to_vec(self.ids[index])
    }

    fn set_values(&mut self, index: usize, mut values: Vec<f32>) -> Result<(), ModelError> {
        if self.rounding.is_some() {
            to_nearest(&mut values);
        }
        let values = self.tensor(index, values)?;
        self.put(index, values);
        Ok(())
    }

    fn gradient(&self, index: usize) -> Result<Option<Gradient>, ModelError> {
        let Some(sum) = self.sums[index].clone() else {
            return Ok(None);
        };
        Ok(Some(Gradient {
            value: tensor_to_vec(sum.value)?,
            rest: sum.rest.map(tensor_to_vec).transpose()?,
        }))
    }

    fn set_gradient(&mut self, index: usize, gradient: Option<Gradient>) -> Result<(), ModelError> {
        let sum = |gradient: Gradient| {
            Ok::<_, ModelError>(TensorSum {
                value: self.tensor(index, gradient.value)?,
                rest: gradient.rest.map(|rest| self.tensor(index, rest)).transpose()?,
            })
        };
        self.sums[index] = gradient.map(sum).transpose()?;
        Ok(())
    }

    fn step(&mut self, config: &AdamConfig, scale: f64) -> Result<(), ModelError> {
        if self.parts.is_some() {
            let message = "moments are kept of parts of the parameters: they move by parts";
            return Err(ModelError::Input(message.to_owned()));
        }
        self.changed();
        for index in 0..self.ids.len() {
            let Some(TensorSum { value: gradient, .. }) = self.sums[index].take() else {
                continue;
            };
            let gradient = if scale == 1.0 {
                gradient
            } else {
                gradient.mul_scalar(scale)
            };
            let id = self.ids[index];
            let value = update(*config, self.weights.get(id), gradient, &mut self.moments[index]);
            let value = self.rounded(index, 0, value)?;
            self.weights.set(id, value);
        }
        Ok(())
    }

    fn moments(&self, index: usize) -> Result<Option<Moments>, ModelError> {
        let Some(moments) = self.moments[index].clone() else {
            return Ok(None);
        };
        Ok(Some(Moments {
            first: tensor_to_vec(moments.first)?,
            second: tensor_to_vec(moments.second)?,
            steps: moments.steps,
        }))
    }

    fn set_moments(&mut self, index: usize, moments: Option<Moments>) -> Result<(), ModelError> {
        let tensors = |moments: Moments| {
            Ok::<_, ModelError>(TensorMoments {
                first: self.moments_tensor(index, moments.first)?,
                second: self.moments_tensor(index, moments.second)?,
                steps: moments.steps,
            })
        };
        self.moments[index] = moments.map(tensors).transpose()?;
        Ok(())
    }

    fn keep_bf16(&mut self, seed: u64) -> Result<(), ModelError> {
        self.rounding = Some(seed);
        for index in 0..self.ids.len() {
            let values = self.values(index)?;
            self.set_values(index, values)?;
        }
        Ok(())
    }

    fn has_gradient(&self, index: usize) -> Result<bool, ModelError> {
        Ok(self.sums[index].is_some())
    }

    fn part(&self, index: usize) -> Range<usize> {
        match &self.parts {
            Some(parts) => parts[index].clone(),
            None => 0..self.specs[index].scalars(),
        }
    }

    fn keep_parts(&mut self, parts: &[Range<usize>]) -> Result<bool, ModelError> {
        cut_to_parts(self, parts, |tuned, parts| tuned.parts = Some(parts.to_vec()))?;
        Ok(true)
    }

    fn step_part(
        &mut self,
        index: usize,
        gradient: Vec<f32>,
        config: &AdamConfig,
        scale: f64,
    ) -> Result<(), ModelError> {
        let part = self.part(index);
        check_length(&self.specs[index].name, gradient.len(), part.len())?;
        self.sums[index] = None;
        if part.is_empty() {
            return Ok(());
        }
        self.changed();
        let [rows, columns] = self.specs[index].dims();
        let gradient = self.beside(index, gradient, [1, part.len()]);
        let gradient = if scale == 1.0 {
            gradient
        } else {
            gradient.mul_scalar(scale)
        };
        let id = self.ids[index];
        let whole = self.weights.get(id).reshape([1, rows * columns]);
        let start = part.start;
        let place = [0..1, part];
        let value = update(
            *config,
            whole.clone().slice(place.clone()),
            gradient,
            &mut self.moments[index],
        );
        let value = self.rounded(index, start, value)?;
        self.weights
            .set(id, whole.slice_assign(place, value).reshape([rows, columns]));
        Ok(())
    }
}

/// [`Gradient`] as tensors.
#[derive(Debug, Clone)]
struct TensorSum {
    value: Tensor<2>,
    rest: Option<Tensor<2>>,
}

impl From<Tensor<2>> for TensorSum {
    fn from(value: Tensor<2>) -> Self {
        Self { value, rest: None }
    }
}

impl TensorSum {
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

/// What a pass over a model of this kind gave.
#[cfg(test)]
pub(crate) fn outputs<const D: usize>(pass: &Pass) -> Tensor<D> {
    let forward = pass.0.get::<Forward<D>>();
    forward.map_or_else(|error| panic!("{error}"), |forward| forward.outputs.clone())
}

#[cfg(test)]
impl Tuned {
    /// The sum of a parameter's gradients.
    pub(crate) fn sum(&self, index: usize) -> Option<Tensor<2>> {
        self.sums[index].as_ref().map(|sum| sum.value.clone())
    }

    /// Every tensor that there is: parameters, leaves, gradients and moments.
    pub(crate) fn tensors(&self) -> Vec<Tensor<2>> {
        let all = |weights: &Weights| weights.ids().map(|id| weights.get(id)).collect::<Vec<_>>();
        let sums = self.sums.iter().flatten();
        let moments = self.moments.iter().flatten();
        let sums = sums
            .flat_map(|sum| [Some(sum.value.clone()), sum.rest.clone()])
            .flatten();
        let moments = moments.flat_map(|moments| [moments.first.clone(), moments.second.clone()]);
        let weights = all(&self.weights).into_iter().chain(self.leaves.iter().flat_map(all));
        weights.chain(sums).chain(moments).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::Device;
    use crate::weights::matrix;

    #[test]
    fn a_sum_of_gradients_does_not_depend_on_the_order_of_its_terms() {
        let term = |value: f32| matrix(vec![value], 1, 1, &Device::flex());
        let sum_of = |values: &[f32]| {
            let start = TensorSum::from(term(values[0]));
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

    /// One parameter `w` = (1, 2), of which outputs 3·w are made.
    fn tuned() -> Tuned {
        let mut weights = Weights::default();
        let spec = ParameterSpec {
            name: "w".to_owned(),
            shape: vec![2],
        };
        let id = weights.push(spec, matrix(vec![1.0, 2.0], 1, 2, &Device::flex()));
        Tuned::new(weights, vec![id])
    }

    fn forward(tuned: &mut Tuned) -> Pass {
        let outputs = tuned.leaves().get(ParameterId(0)).mul_scalar(3.0);
        tuned.pass(outputs)
    }

    #[test]
    fn slopes_of_several_passes_are_summed_until_they_are_cleared() {
        let mut tuned = tuned();
        let passes = [forward(&mut tuned), forward(&mut tuned)];
        for (pass, slopes) in passes.into_iter().zip([[1.0, 0.0], [0.5, -1.0]]) {
            tuned.backward::<2>(pass, &slopes).unwrap();
        }
        assert_eq!(tuned.gradient(0).unwrap().unwrap().value, [4.5, -3.0]);
        tuned.clear_gradients().unwrap();
        assert_eq!(tuned.gradient(0).unwrap(), None);
    }

    const ADAM: AdamConfig = AdamConfig {
        lr: 0.1,
        betas: (0.9, 0.999),
        eps: 1e-6,
        weight_decay: 0.01,
        decoupled: true,
    };

    /// A parameter `w` of three rows of four.
    fn table() -> Tuned {
        let mut weights = Weights::default();
        let spec = ParameterSpec {
            name: "w".to_owned(),
            shape: vec![3, 4],
        };
        let values = (0..12).map(|at| 0.3 * at as f32 - 1.7).collect();
        let id = weights.push(spec, matrix(values, 3, 4, &Device::flex()));
        Tuned::new(weights, vec![id])
    }

    fn keep(tuned: &mut Tuned, part: Range<usize>) -> Result<bool, ModelError> {
        tuned.keep_parts(std::slice::from_ref(&part))
    }

    #[test]
    fn parts_that_move_by_themselves_move_as_the_whole() {
        let gradients = [1, 2, 3].map(|step| {
            (0..12)
                .map(|at| (at as f32 * 0.7 + step as f32).sin())
                .collect::<Vec<_>>()
        });
        let mut whole = table();
        // The first step is the whole's in all, so that there are moments to cut.
        let mut sharers = [0..5, 5..5, 5..12].map(|part| (part, table()));
        for (step, gradient) in gradients.iter().enumerate() {
            let sum = |values: &[f32]| {
                let value = values.to_vec();
                Some(Gradient { value, rest: None })
            };
            whole.set_gradient(0, sum(gradient)).unwrap();
            whole.step(&ADAM, 0.5).unwrap();
            for (part, tuned) in &mut sharers {
                if step == 0 {
                    tuned.set_gradient(0, sum(gradient)).unwrap();
                    tuned.step(&ADAM, 0.5).unwrap();
                    assert!(keep(tuned, part.clone()).unwrap());
                } else {
                    tuned.set_gradient(0, sum(gradient)).unwrap();
                    tuned.step_part(0, gradient[part.clone()].to_vec(), &ADAM, 0.5).unwrap();
                    assert!(!tuned.has_gradient(0).unwrap());
                }
            }
        }
        let expected = whole.values(0).unwrap();
        let moments = whole.moments(0).unwrap().unwrap();
        for (part, tuned) in &sharers {
            assert_eq!(tuned.values(0).unwrap()[part.clone()], expected[part.clone()]);
            let own = tuned.moments(0).unwrap();
            if part.is_empty() {
                assert_eq!(own, None);
                continue;
            }
            let own = own.unwrap();
            assert_eq!(own.first, moments.first[part.clone()]);
            assert_eq!(own.second, moments.second[part.clone()]);
            assert_eq!(own.steps, 3);
        }
    }

    #[test]
    fn a_part_that_is_none_and_a_gradient_of_another_length_are_refused() {
        let mut tuned = table();
        let error = keep(&mut tuned, 3..13).unwrap_err().to_string();
        assert!(error.contains("w: has 12 values, not 3..13"), "{error}");
        assert!(keep(&mut tuned, 3..7).unwrap());
        assert!(
            tuned
                .step(&ADAM, 1.0)
                .unwrap_err()
                .to_string()
                .contains("they move by parts")
        );
        let error = tuned.step_part(0, vec![0.0; 12], &ADAM, 1.0).unwrap_err().to_string();
        assert!(error.contains("w: expected 4 values, found 12"), "{error}");
        let moments = |length| Moments {
            first: vec![0.0; length],
            second: vec![0.0; length],
            steps: 1,
        };
        tuned.set_moments(0, Some(moments(4))).unwrap();
        let error = tuned.set_moments(0, Some(moments(12))).unwrap_err().to_string();
        assert!(error.contains("w: expected 4 values, found 12"), "{error}");
        // What is not kept cannot be asked back.
        let error = keep(&mut tuned, 2..7).unwrap_err().to_string();
        assert!(
            error.contains("moments are kept of 3..7, those of 2..7 are not there"),
            "{error}"
        );
    }

    #[test]
    fn gradients_at_parameters_that_have_changed_are_refused() {
        let mut tuned = tuned();
        let pass = forward(&mut tuned);
        tuned.set_values(0, vec![5.0, 6.0]).unwrap();
        assert_eq!(tuned.values(0).unwrap(), [5.0, 6.0]);
        let error = tuned.backward::<2>(pass, &[1.0, 1.0]).unwrap_err().to_string();
        assert!(error.contains("run the forward pass again"), "{error}");
        let pass = forward(&mut tuned);
        let error = tuned.backward::<2>(pass, &[1.0]).unwrap_err().to_string();
        assert!(error.contains("expected 2 values, found 1"), "{error}");
        let error = tuned.set_values(0, vec![1.0]).unwrap_err().to_string();
        assert!(error.contains("w: expected 2 values, found 1"), "{error}");
    }
}
