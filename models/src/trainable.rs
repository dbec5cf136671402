//! What training needs of a model's parameters, on the host: where the model keeps them is its own affair.

use std::any::Any;
use std::ops::Range;

use crate::files::{CheckpointReader, NamedTensor};
use crate::optimizer::{AdamConfig, Moments};
use crate::weights::ParameterSpec;
use crate::{Kept, ModelError};

/// A forward pass whose gradients can still be asked for, until a parameter changes.
#[derive(Debug)]
pub struct Pass(pub Kept);

/// A sum of gradients of one parameter, row-major, kept in two floats: the order of its terms, and which process summed which
/// of them, hardly ever shows in the rounded result. An optimizer that divides by a gradient's size would make much of the
/// difference.
#[derive(Debug, Clone, PartialEq)]
pub struct Gradient {
    /// The sum, rounded.
    pub value: Vec<f32>,
    /// What rounding left, at most half a unit in the last place of `value`; `None` for nothing.
    pub rest: Option<Vec<f32>>,
}

/// A model with parameters that training may change, sums of their gradients and the state of their optimizer. Parameters
/// are counted through in the order of [`Trainable::trained`]; all values are row-major.
pub trait Trainable {
    /// The parameters that training changes, in a fixed order.
    fn trained(&self) -> &[ParameterSpec];
    /// Number of scalars in all parameters, trained or not.
    fn scalars(&self) -> usize;
    /// A parameter's value.
    fn values(&self, index: usize) -> Result<Vec<f32>, ModelError>;
    /// Replaces a parameter's value.
    fn set_values(&mut self, index: usize, values: Vec<f32>) -> Result<(), ModelError>;
    /// The sum of a parameter's gradients since the last step; `None` where none arrived.
    fn gradient(&self, index: usize) -> Result<Option<Gradient>, ModelError>;
    /// Puts a sum in place of the one that is kept.
    fn set_gradient(&mut self, index: usize, gradient: Option<Gradient>) -> Result<(), ModelError>;
    /// Moves the parameters along the summed gradients times `scale`, by AdamW or Adam, and clears the sums. A parameter without
    /// a gradient stays as it is, like PyTorch's with `grad` None.
    fn step(&mut self, config: &AdamConfig, scale: f64) -> Result<(), ModelError>;
    /// A parameter's moments, of the part that is kept; `None` where it has never been moved.
    fn moments(&self, index: usize) -> Result<Option<Moments>, ModelError>;
    /// Replaces a parameter's moments, of the part that is kept.
    fn set_moments(&mut self, index: usize, moments: Option<Moments>) -> Result<(), ModelError>;

    /// From now on the values of trained parameters are bf16 numbers. What there is, and what [`Trainable::set_values`] puts, is rounded
    /// to nearest; what a step makes of a value is rounded at random to one of its neighbours in bf16, so that its mean is what the
    /// step made in f32. The random bits depend on `seed`, the parameter's number, its step and the value's place alone. Gradients
    /// and moments stay f32. On an NVIDIA GPU the values then have no memory beside what the model computes with.
    ///
    /// # Errors
    /// When a value cannot be read back from its device, or put there.
    fn keep_bf16(&mut self, seed: u64) -> Result<(), ModelError>;

    /// Forgets the summed gradients.
    fn clear_gradients(&mut self) -> Result<(), ModelError> {
        (0..self.trained().len()).try_for_each(|index| self.set_gradient(index, None))
    }

    /// Whether a gradient has arrived at a parameter since the last step.
    fn has_gradient(&self, index: usize) -> Result<bool, ModelError> {
        Ok(self.gradient(index)?.is_some())
    }

    /// The part of a parameter's values whose moments are kept here: all of them, unless [`Trainable::keep_parts`] said less.
    fn part(&self, index: usize) -> Range<usize> {
        0..self.trained()[index].scalars()
    }

    /// From now on moments are kept of `parts` alone, one of every parameter, and [`Trainable::step_part`] moves them: other
    /// processes see to the rest (ZeRO-2; Rajbhandari et al., 2020, arXiv 1910.02054). Moments that are there already are cut to
    /// them. False where this model can not, and keeps everything as before.
    ///
    /// # Errors
    /// When a value cannot be read back from its device, or a part lies outside its parameter.
    fn keep_parts(&mut self, parts: &[Range<usize>]) -> Result<bool, ModelError> {
        let _ = parts;
        Ok(false)
    }

    /// Moves the part of one parameter that is kept along `gradient` times `scale`, as [`Trainable::step`] does, and clears the
    /// parameter's sum. The other values stay as they are.
    ///
    /// # Errors
    /// When the gradient has not the part's length.
    fn step_part(
        &mut self,
        index: usize,
        gradient: Vec<f32>,
        config: &AdamConfig,
        scale: f64,
    ) -> Result<(), ModelError> {
        let _ = (gradient, config, scale);
        let name = &self.trained()[index].name;
        let message = format!("{name}: this model moves no parts of parameters");
        Err(ModelError::Input(message))
    }

    /// Bytes of its device's memory that are taken, by this model and by all else; `None` where the device is the processor.
    ///
    /// # Errors
    /// When the device does not tell.
    fn device_memory(&self) -> Result<Option<u64>, ModelError> {
        Ok(None)
    }

    /// Whether [`Trainable::step_over`] works: gradients and parameters can go from device to device.
    fn steps_over_devices(&self) -> bool {
        false
    }

    /// Sums gradients over all processes and moves the parameters along them times `scale`, over `link`, collectives of the
    /// device's own kind. `reached` says of each parameter whether a gradient has arrived at it in any process.
    ///
    /// # Errors
    /// When a collective fails, or `link` is of another kind.
    fn step_over(
        &mut self,
        link: &mut dyn Any,
        reached: &[bool],
        config: &AdamConfig,
        scale: f64,
    ) -> Result<(), ModelError> {
        let _ = (link, reached, config, scale);
        let message = "this model has no collectives of its own";
        Err(ModelError::Input(message.to_owned()))
    }
}

/// Of the moments of `from` those of `part`, which lies in it.
fn cut_moments(name: &str, moments: Moments, from: &Range<usize>, part: &Range<usize>) -> Result<Moments, ModelError> {
    let within = |values: Vec<f32>| {
        let range = part.start.wrapping_sub(from.start)..part.end.wrapping_sub(from.start);
        let inside = values.get(range).map(<[f32]>::to_vec);
        inside.ok_or_else(|| {
            let message = format!("{name}: moments are kept of {from:?}, those of {part:?} are not there");
            ModelError::Input(message)
        })
    };
    Ok(Moments {
        first: within(moments.first)?,
        second: within(moments.second)?,
        steps: moments.steps,
    })
}

/// What [`Trainable::keep_parts`] does, `set` being how a model takes up the parts: moments are cut before anything is changed.
pub(crate) fn cut_to_parts<M: Trainable>(
    model: &mut M,
    parts: &[Range<usize>],
    set: impl FnOnce(&mut M, &[Range<usize>]),
) -> Result<(), ModelError> {
    let specs = model.trained();
    if parts.len() != specs.len() {
        let message = format!("parts: expected {} of them, found {}", specs.len(), parts.len());
        return Err(ModelError::Input(message));
    }
    let mut moments = Vec::with_capacity(parts.len());
    for (index, (spec, part)) in specs.iter().zip(parts).enumerate() {
        if part.start > part.end || part.end > spec.scalars() {
            let message = format!("{}: has {} values, not {part:?}", spec.name, spec.scalars());
            return Err(ModelError::Input(message));
        }
        let own = model.moments(index)?;
        let own = own.map(|own| cut_moments(&spec.name, own, &model.part(index), part));
        moments.push(own.transpose()?);
    }
    set(model, parts);
    for (index, moments) in moments.into_iter().enumerate() {
        // A part of nothing has no moments.
        model.set_moments(index, moments.filter(|_| !parts[index].is_empty()))?;
    }
    Ok(())
}

/// The gradients summed so far as tensors under their parameters' names, to be written beside a checkpoint.
///
/// # Errors
/// When a value cannot be read back from its device.
pub fn gradient_state(model: &dyn Trainable) -> Result<Vec<NamedTensor>, ModelError> {
    let mut state = Vec::new();
    for (index, spec) in model.trained().iter().enumerate() {
        let Some(Gradient { value, rest }) = model.gradient(index)? else {
            continue;
        };
        state.push(spec.named(&spec.name, value));
        state.extend(rest.map(|rest| spec.named(&rest_name(&spec.name), rest)));
    }
    Ok(state)
}

fn rest_name(name: &str) -> String {
    format!("{name}.rest")
}

/// Takes up the sums that [`gradient_state`] gave.
///
/// # Errors
/// When a tensor has not the shape of its parameter.
pub fn restore_gradients(model: &mut dyn Trainable, state: &CheckpointReader) -> Result<(), ModelError> {
    for (index, spec) in model.trained().to_vec().iter().enumerate() {
        let read = |name: &str| -> Result<Option<Vec<f32>>, ModelError> {
            let read = || Ok(state.read(name, &spec.dims())?.0);
            state.contains(name).then(read).transpose()
        };
        let rest = read(&rest_name(&spec.name))?;
        let gradient = read(&spec.name)?.map(|value| Gradient { value, rest });
        model.set_gradient(index, gradient)?;
    }
    Ok(())
}

/// The optimizer's state as tensors, to be written beside a checkpoint: `NAME.first`, `NAME.second` and `NAME.steps` for every
/// parameter that has been moved. It takes a model that keeps the moments of whole parameters.
///
/// # Errors
/// When a value cannot be read back from its device.
pub fn optimizer_state(model: &dyn Trainable) -> Result<Vec<NamedTensor>, ModelError> {
    let mut state = Vec::new();
    for (index, spec) in model.trained().iter().enumerate() {
        if let Some(moments) = model.moments(index)? {
            state.extend(moment_tensors(spec, moments));
        }
    }
    Ok(state)
}

/// One parameter's tensors of [`optimizer_state`].
pub fn moment_tensors(spec: &ParameterSpec, moments: Moments) -> [NamedTensor; 3] {
    let name = &spec.name;
    [
        spec.named(&format!("{name}.first"), moments.first),
        spec.named(&format!("{name}.second"), moments.second),
        NamedTensor {
            name: format!("{name}.steps"),
            shape: vec![1],
            // Exact up to 2²⁴ steps.
            data: vec![moments.steps as f32],
        },
    ]
}

/// Takes up the state that [`optimizer_state`] gave.
///
/// # Errors
/// When a tensor has not the shape of its parameter.
pub fn restore_optimizer(model: &mut dyn Trainable, state: &CheckpointReader) -> Result<(), ModelError> {
    for (index, spec) in model.trained().to_vec().iter().enumerate() {
        let name = &spec.name;
        let read = |part: &str, shape: &[usize]| Ok::<_, ModelError>(state.read(&format!("{name}.{part}"), shape)?.0);
        let moments = if state.contains(&format!("{name}.steps")) {
            Some(Moments {
                first: read("first", &spec.dims())?,
                second: read("second", &spec.dims())?,
                steps: read("steps", &[1])?[0] as u32,
            })
        } else {
            None
        };
        model.set_moments(index, moments)?;
    }
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
    for (index, spec) in model.trained().to_vec().iter().enumerate() {
        let (values, _) = checkpoint.read(&format!("{prefix}{}", spec.name), &spec.shape)?;
        model.set_values(index, values)?;
    }
    Ok(())
}
