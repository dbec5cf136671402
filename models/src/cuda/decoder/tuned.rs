//! The parameters that training changes, and their optimizer.

use super::CudaDecoder;
use crate::cuda::layers::{Values, put};
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
        if self.trained.iter().any(|trained| trained.kept.is_some()) {
            let message = "moments are kept of parts of the parameters: they move by parts";
            return Err(ModelError::Input(message.to_owned()));
        }
        let gpu = self.gpu.clone();
        for trained in self.trained.iter_mut().filter(|trained| trained.reached) {
            let gradient = trained.gradient.pointer();
            trained.adam(&gpu, self.element, config, factor, gradient)?;
        }
        self.changed();
        Ok(())
    }

    pub(in crate::cuda) fn changed(&mut self) {
        self.version += 1;
    }
}
