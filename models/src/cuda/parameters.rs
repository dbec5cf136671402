//! The parameters that training changes, on the card.

use std::any::Any;
use std::ops::Range;
use std::sync::Arc;

use super::gemm::Scale;
use super::gpu::{Buffer, Element, Gpu, View};
use super::layers::{Values, put, read};
use super::nccl::Nccl;
use super::optimize::{step, step_over, step_part};
use crate::rounding::{Rounding, to_nearest};
use crate::trainable::cut_to_parts;
use crate::weights::ParameterSpec;
use crate::{AdamConfig, Gradient, ModelError, Moments, Trainable};

/// Where a trained parameter's values are.
#[derive(Debug)]
pub(super) enum Master {
    /// In f32 of their own.
    Own(Buffer),
    /// In the copy that the model computes with alone, as bf16 numbers.
    Copy(Rounding),
}

/// A parameter that training changes: its values, their gradient and moments, and where its rounded copy stands.
#[derive(Debug)]
pub(super) struct Trained {
    pub(super) spec: ParameterSpec,
    pub(super) master: Master,
    pub(super) gradient: Share,
    /// Whether anything was added to the gradient since it was last cleared.
    pub(super) reached: bool,
    /// Of the part that is kept.
    pub(super) moments: Option<[Buffer; 2]>,
    /// Where that is less than all of it: the values whose moments are kept here.
    pub(super) kept: Option<Range<usize>>,
    pub(super) steps: u32,
    /// What the model computes with, and its type.
    pub(super) copy: (View, Element),
}

impl Trained {
    pub(super) fn shape(&self) -> (usize, usize) {
        match self.spec.shape[..] {
            [rows, columns] => (rows, columns),
            _ => (1, self.spec.scalars()),
        }
    }
}

/// The f32 values of one parameter in a buffer that may have others' before and after them.
#[derive(Debug)]
pub(super) struct Share {
    buffer: Arc<Buffer>,
    first: usize,
    count: usize,
}

impl Share {
    /// All of a new buffer.
    fn whole(gpu: &Gpu, count: usize) -> Result<Self, ModelError> {
        let buffer = Arc::new(gpu.elements(count, Element::F32)?);
        Ok(Self {
            buffer,
            first: 0,
            count,
        })
    }

    pub(super) fn pointer(&self) -> u64 {
        self.buffer.pointer() + 4 * self.first as u64
    }

    pub(super) fn clear(&self) -> Result<(), ModelError> {
        self.buffer.clear_bytes(4 * self.first..4 * (self.first + self.count))
    }

    fn read(&self) -> Result<Vec<f32>, ModelError> {
        self.buffer.read(4 * self.first, self.count)
    }

    /// Writes values, of which there are as many.
    fn write(&self, values: &[f32]) -> Result<(), ModelError> {
        self.buffer.write(4 * self.first, values)
    }

    /// Whether `next` begins where this ends.
    fn is_before(&self, next: &Self) -> bool {
        Arc::ptr_eq(&self.buffer, &next.buffer) && next.first == self.first + self.count
    }
}

/// Parameters that training changes, in the order of the burn module.
#[derive(Debug)]
pub(super) struct Parameters {
    gpu: Gpu,
    list: Vec<Trained>,
    specs: Vec<ParameterSpec>,
    /// Counts changes to them.
    version: u64,
    /// Scalars in those that are not trained.
    frozen: usize,
}

impl Parameters {
    /// None yet.
    pub(super) fn new(gpu: &Gpu) -> Self {
        Self {
            gpu: gpu.clone(),
            list: Vec::new(),
            specs: Vec::new(),
            version: 0,
            frozen: 0,
        }
    }

    /// Adds one with these values, f32, and the place of its copy. Returns its number.
    pub(super) fn add(
        &mut self,
        name: String,
        shape: &[usize],
        values: Buffer,
        copy: (View, Element),
    ) -> Result<usize, ModelError> {
        let spec = ParameterSpec {
            name,
            shape: shape.to_vec(),
        };
        let gradient = Share::whole(&self.gpu, spec.scalars())?;
        self.specs.push(spec.clone());
        self.list.push(Trained {
            spec,
            master: Master::Own(values),
            gradient,
            reached: false,
            moments: None,
            kept: None,
            steps: 0,
            copy,
        });
        Ok(self.list.len() - 1)
    }

    /// Says how many scalars the model has that are not among these.
    pub(super) fn set_frozen(&mut self, scalars: usize) {
        self.frozen = scalars;
    }

    /// Bytes of moments that the first step is still to make.
    pub(super) fn missing_moments(&self) -> usize {
        let missing = self.list.iter().filter(|trained| trained.moments.is_none());
        missing.map(|trained| 8 * trained.part().len()).sum()
    }

    pub(super) fn version(&self) -> u64 {
        self.version
    }

    /// Counts a change.
    pub(super) fn changed(&mut self) {
        self.version += 1;
    }

    /// Refuses gradients of a pass with parameters of another version.
    pub(super) fn check_version(&self, version: u64) -> Result<(), ModelError> {
        match version == self.version {
            true => Ok(()),
            false => Err(ModelError::Input(
                "a parameter has changed since the pass whose gradients are asked for".to_owned(),
            )),
        }
    }

    /// Where a parameter's gradient is summed, as a matrix, and how: written first, added to then.
    pub(super) fn slope(&mut self, index: usize) -> (View, Scale) {
        let trained = &mut self.list[index];
        let scale = if trained.reached { Scale::ADD } else { Scale::ONE };
        trained.reached = true;
        let (rows, columns) = trained.shape();
        (matrix(trained.gradient.pointer(), rows, columns), scale)
    }

    /// The first row of a gradient, for a kernel that can write as well as add, and whether it is to be written. What other rows there are
    /// is zeroed.
    pub(super) fn first_row(&mut self, index: usize) -> Result<(View, bool), ModelError> {
        let fresh = !self.list[index].reached;
        match self.list[index].shape().0 {
            1 => Ok((self.slope(index).0, fresh)),
            _ => Ok((self.zeroed_slope(index)?, false)),
        }
    }

    /// Puts the gradients of these side by side, in this order, so that one product can make them all. None must have any yet.
    pub(super) fn join_gradients(&mut self, indices: &[usize]) -> Result<(), ModelError> {
        let counts = indices.iter().map(|&index| self.specs[index].scalars());
        let buffer = Arc::new(self.gpu.elements(counts.clone().sum(), Element::F32)?);
        let mut first = 0;
        for (&index, count) in indices.iter().zip(counts) {
            self.list[index].gradient = Share {
                buffer: buffer.clone(),
                first,
                count,
            };
            first += count;
        }
        Ok(())
    }

    /// As [`Parameters::slope`], of these as one matrix, the rows of one after those of another; nothing where they are not side by side,
    /// or some are to be written and others to be added to.
    pub(super) fn joint_slope(&mut self, indices: &[usize]) -> Option<(View, Scale)> {
        let first = &self.list[*indices.first()?];
        let ((_, columns), reached) = (first.shape(), first.reached);
        let joint = indices.windows(2).all(|pair| {
            let [one, next] = [pair[0], pair[1]].map(|index| &self.list[index]);
            one.gradient.is_before(&next.gradient) && next.shape().1 == columns && next.reached == reached
        });
        if !joint {
            return None;
        }
        let rows = indices.iter().map(|&index| self.list[index].shape().0).sum();
        let view = matrix(first.gradient.pointer(), rows, columns);
        for &index in indices {
            self.list[index].reached = true;
        }
        Some((view, if reached { Scale::ADD } else { Scale::ONE }))
    }

    /// The same for a kernel that adds: a gradient that is not there yet is zeroed.
    pub(super) fn zeroed_slope(&mut self, index: usize) -> Result<View, ModelError> {
        let fresh = !self.list[index].reached;
        let (view, _) = self.slope(index);
        if fresh {
            self.list[index].gradient.clear()?;
        }
        Ok(view)
    }
}

fn matrix(pointer: u64, rows: usize, columns: usize) -> View {
    View {
        pointer,
        rows,
        columns,
        stride: columns,
    }
}

impl Trainable for Parameters {
    fn trained(&self) -> &[ParameterSpec] {
        &self.specs
    }

    fn scalars(&self) -> usize {
        self.frozen + self.specs.iter().map(ParameterSpec::scalars).sum::<usize>()
    }

    fn values(&self, index: usize) -> Result<Vec<f32>, ModelError> {
        let trained = &self.list[index];
        let (copy, element) = trained.copy;
        match &trained.master {
            Master::Own(values) => values.read(0, trained.spec.scalars()),
            Master::Copy(_) => read(&self.gpu, copy, element),
        }
    }

    fn set_values(&mut self, index: usize, mut values: Vec<f32>) -> Result<(), ModelError> {
        let trained = &self.list[index];
        let count = trained.spec.scalars();
        if values.len() != count {
            let message = format!("{}: {} values for {count}", trained.spec.name, values.len());
            return Err(ModelError::Input(message));
        }
        let (copy, element) = trained.copy;
        match &trained.master {
            Master::Own(own) => {
                own.write(0, &values)?;
                put(&self.gpu, copy, element, &Values::Card(own))?;
            }
            Master::Copy(_) => {
                to_nearest(&mut values);
                put(&self.gpu, copy, element, &Values::Host(&values))?;
            }
        }
        self.changed();
        Ok(())
    }

    fn gradient(&self, index: usize) -> Result<Option<Gradient>, ModelError> {
        let trained = &self.list[index];
        let read = || trained.gradient.read();
        let value = trained.reached.then(read).transpose()?;
        Ok(value.map(|value| Gradient { value, rest: None }))
    }

    fn set_gradient(&mut self, index: usize, gradient: Option<Gradient>) -> Result<(), ModelError> {
        let trained = &mut self.list[index];
        let count = trained.spec.scalars();
        if let Some(given) = gradient
            .as_ref()
            .map(|gradient| gradient.value.len())
            .filter(|&given| given != count)
        {
            let message = format!("{}: a gradient of {given} values for {count}", trained.spec.name);
            return Err(ModelError::Input(message));
        }
        trained.reached = gradient.is_some();
        if let Some(Gradient { mut value, rest }) = gradient {
            if let Some(rest) = rest {
                value.iter_mut().zip(rest).for_each(|(value, rest)| *value += rest);
            }
            trained.gradient.write(&value)?;
        }
        Ok(())
    }

    fn step(&mut self, config: &AdamConfig, scale: f64) -> Result<(), ModelError> {
        if self.list.iter().any(|trained| trained.kept.is_some()) {
            let message = "moments are kept of parts of the parameters: they move by parts";
            return Err(ModelError::Input(message.to_owned()));
        }
        let reached = self.list.iter_mut().filter(|trained| trained.reached);
        step(&self.gpu, reached, config, scale)?;
        self.changed();
        Ok(())
    }

    fn moments(&self, index: usize) -> Result<Option<Moments>, ModelError> {
        let trained = &self.list[index];
        let Some([first, second]) = &trained.moments else {
            return Ok(None);
        };
        let count = trained.part().len();
        Ok(Some(Moments {
            first: first.read(0, count)?,
            second: second.read(0, count)?,
            steps: trained.steps,
        }))
    }

    fn set_moments(&mut self, index: usize, moments: Option<Moments>) -> Result<(), ModelError> {
        let trained = &mut self.list[index];
        let Some(Moments { first, second, steps }) = moments else {
            trained.moments = None;
            trained.steps = 0;
            return Ok(());
        };
        let count = trained.part().len();
        if first.len() != count || second.len() != count {
            let message = format!("{}: moments of {} values for {count}", trained.spec.name, first.len());
            return Err(ModelError::Input(message));
        }
        trained.moments = Some([self.gpu.upload(&first)?, self.gpu.upload(&second)?]);
        trained.steps = steps;
        Ok(())
    }

    fn keep_bf16(&mut self, seed: u64) -> Result<(), ModelError> {
        for (trained, parameter) in self.list.iter_mut().zip(0..) {
            let (copy, element) = trained.copy;
            // A copy in bf16 was rounded to nearest when it was made.
            if let (Master::Own(own), Element::F32) = (&trained.master, element) {
                let mut values: Vec<f32> = own.read(0, trained.spec.scalars())?;
                to_nearest(&mut values);
                put(&self.gpu, copy, element, &Values::Host(&values))?;
            }
            trained.master = Master::Copy(Rounding { seed, parameter });
        }
        self.changed();
        Ok(())
    }

    fn has_gradient(&self, index: usize) -> Result<bool, ModelError> {
        Ok(self.list[index].reached)
    }

    fn part(&self, index: usize) -> Range<usize> {
        self.list[index].part()
    }

    fn keep_parts(&mut self, parts: &[Range<usize>]) -> Result<bool, ModelError> {
        cut_to_parts(self, parts, |parameters, parts| {
            let trained = parameters.list.iter_mut().zip(parts);
            trained.for_each(|(trained, part)| trained.kept = Some(part.clone()));
        })?;
        Ok(true)
    }

    fn step_part(
        &mut self,
        index: usize,
        gradient: Vec<f32>,
        config: &AdamConfig,
        scale: f64,
    ) -> Result<(), ModelError> {
        step_part(&self.gpu, &mut self.list[index], &gradient, config, scale)?;
        self.changed();
        Ok(())
    }

    fn device_memory(&self) -> Result<Option<u64>, ModelError> {
        let (free, all) = self.gpu.memory()?;
        Ok(Some((all - free) as u64))
    }

    fn steps_over_devices(&self) -> bool {
        true
    }

    fn step_over(
        &mut self,
        link: &mut dyn Any,
        reached: &[bool],
        config: &AdamConfig,
        scale: f64,
    ) -> Result<(), ModelError> {
        let nccl = link
            .downcast_mut::<Nccl>()
            .ok_or_else(|| ModelError::Input("a GPU's collectives are NCCL's".to_owned()))?;
        step_over(&self.gpu, &mut self.list, nccl, reached, config, scale)?;
        self.changed();
        Ok(())
    }
}
