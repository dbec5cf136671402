//! The parameters that training changes, and their optimizer.

use super::CudaDecoder;
use crate::cuda::gpu::{Argument, Buffer, Element};
use crate::cuda::kernels::ADAM;
use crate::cuda::layers::{Values, blocks, put};
use crate::weights::ParameterSpec;
use crate::{AdamConfig, ModelError};

impl CudaDecoder {
    /// The parameters that training changes, in the order of the burn module.
    pub fn trained(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// A trained parameter's values, row by row.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn values(&self, index: usize) -> Result<Vec<f32>, ModelError> {
        let trained = &self.trained[index];
        trained.values.read(0, trained.spec.shape.iter().product())
    }

    /// Replaces them.
    ///
    /// # Errors
    /// Values of another number.
    pub fn set_values(&mut self, index: usize, values: &[f32]) -> Result<(), ModelError> {
        let trained = &self.trained[index];
        let count = trained.spec.shape.iter().product::<usize>();
        if values.len() != count {
            let message = format!("{}: {} values for {count}", trained.spec.name, values.len());
            return Err(ModelError::Input(message));
        }
        trained.values.write(0, values)?;
        if let Some(copy) = trained.copy {
            let element = trained.element(self.element);
            put(&self.gpu, copy, element, &Values::Card(&trained.values))?;
        }
        self.version += 1;
        Ok(())
    }

    /// Gives back the memory that sampling holds.
    ///
    /// # Errors
    /// What went wrong on the card before.
    pub fn forget_sampler(&mut self) -> Result<(), ModelError> {
        self.gpu.wait()?;
        self.sampler = None;
        Ok(())
    }

    /// Its summed gradient; `None` where none arrived.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn gradient(&self, index: usize) -> Result<Option<Vec<f32>>, ModelError> {
        let trained = &self.trained[index];
        let count = trained.spec.shape.iter().product();
        trained.reached.then(|| trained.gradient.read(0, count)).transpose()
    }

    /// Moves the parameters along the summed gradients times `factor`, and clears the sums.
    ///
    /// # Errors
    /// Too little memory for the moments.
    pub fn step(&mut self, config: &AdamConfig, factor: f64) -> Result<(), ModelError> {
        let gpu = self.gpu.clone();
        for trained in self.trained.iter_mut().filter(|trained| trained.reached) {
            let (rows, columns) = trained.shape();
            let [first, second] = match trained.moments.take() {
                Some(moments) => moments,
                None => [
                    gpu.zeros(rows * columns, Element::F32)?,
                    gpu.zeros(rows * columns, Element::F32)?,
                ],
            };
            trained.steps += 1;
            trained.reached = false;
            let correction = |beta: f64| 1.0 - beta.powi(trained.steps as i32);
            let (beta1, beta2) = config.betas;
            let (shrink, decay) = match config.decoupled {
                true => (1.0 - config.lr * config.weight_decay, 0.0),
                false => (1.0, config.weight_decay),
            };
            // A norm's copy is f32, a matrix' is what the model computes in.
            let element = trained.element(self.element);
            let (copy, stride) = match trained.copy {
                Some(copy) => (copy.into(), copy.stride.into()),
                None => (Argument::Address(0), Argument::Int(0)),
            };
            let mut row = 0;
            while row < rows {
                let part = (rows - row).min(32_768);
                let at = |buffer: &Buffer| Argument::Address(buffer.pointer() + 4 * (row * columns) as u64);
                let copy = match (copy, trained.copy) {
                    (_, Some(view)) => Argument::from(view.rows(row, part, element)),
                    (none, None) => none,
                };
                // SAFETY: all have the parameter's shape.
                unsafe {
                    let arguments = [
                        at(&trained.values),
                        at(&first),
                        at(&second),
                        at(&trained.gradient),
                        copy,
                        stride,
                        columns.into(),
                        (factor as f32).into(),
                        ((config.lr / correction(beta1)) as f32).into(),
                        (beta1 as f32).into(),
                        (beta2 as f32).into(),
                        (config.eps as f32).into(),
                        (shrink as f32).into(),
                        (decay as f32).into(),
                        (correction(beta2).sqrt() as f32).into(),
                    ];
                    gpu.launch(ADAM, element, [blocks(columns), part as u32, 1], 256, 0, &arguments)?;
                }
                row += part;
            }
            trained.moments = Some([first, second]);
        }
        self.changed();
        Ok(())
    }

    pub(in crate::cuda) fn changed(&mut self) {
        self.version += 1;
    }
}
