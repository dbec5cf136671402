//! The named parameters of a model, apart from what is computed with them.

use burn::tensor::{DType, Device, Tensor, TensorData};

use crate::ModelError;
use crate::files::NamedTensor;

/// A parameter's place in its model's [`Weights`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParameterId(pub usize);

/// Name and shape of a parameter as files know it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterSpec {
    /// The Hugging Face name.
    pub name: String,
    /// The shape in files, `[n]` or `[rows, columns]`.
    pub shape: Vec<usize>,
}

impl ParameterSpec {
    /// The shape as `[rows, columns]`; a vector `[n]` is `[1, n]`.
    pub fn dims(&self) -> [usize; 2] {
        match self.shape[..] {
            [rows, columns] => [rows, columns],
            _ => [1, self.scalars()],
        }
    }

    /// Number of scalars.
    pub fn scalars(&self) -> usize {
        self.shape.iter().product()
    }

    /// Values of this parameter's size as a matrix to be written under `name`.
    pub(crate) fn named(&self, name: &str, data: Vec<f32>) -> NamedTensor {
        NamedTensor {
            name: name.to_owned(),
            shape: self.dims().to_vec(),
            data,
        }
    }
}

/// Parameters and their values. A vector `[n]` is held as `[1, n]`, which broadcasts over rows of activations.
#[derive(Debug, Clone, Default)]
pub struct Weights {
    specs: Vec<ParameterSpec>,
    tensors: Vec<Tensor<2>>,
}

impl Weights {
    /// Adds a parameter; its id is its order of arrival.
    pub(crate) fn push(&mut self, spec: ParameterSpec, tensor: Tensor<2>) -> ParameterId {
        self.specs.push(spec);
        self.tensors.push(tensor);
        ParameterId(self.tensors.len() - 1)
    }

    /// The value, as `[rows, columns]`.
    pub fn get(&self, id: ParameterId) -> Tensor<2> {
        self.tensors[id.0].clone()
    }

    /// Replaces the value.
    ///
    /// # Panics
    /// If the shape changes.
    pub(crate) fn set(&mut self, id: ParameterId, tensor: Tensor<2>) {
        assert_eq!(
            tensor.dims(),
            self.tensors[id.0].dims(),
            "the shape of {} is fixed",
            self.specs[id.0].name
        );
        self.tensors[id.0] = tensor;
    }

    /// The same in f64.
    #[cfg(any(test, feature = "engine", feature = "wgpu"))]
    pub(crate) fn into_f64(mut self) -> Self {
        for tensor in &mut self.tensors {
            *tensor = tensor.clone().cast(DType::F64);
        }
        self
    }

    /// Whether values are f64.
    pub(crate) fn is_f64(&self) -> bool {
        self.tensors.iter().any(|tensor| tensor.dtype() == DType::F64)
    }

    /// Name and file shape.
    pub fn spec(&self, id: ParameterId) -> &ParameterSpec {
        &self.specs[id.0]
    }

    /// All ids, in order.
    pub fn ids(&self) -> impl Iterator<Item = ParameterId> + use<> {
        (0..self.tensors.len()).map(ParameterId)
    }

    /// The parameter of that name.
    pub fn find(&self, name: &str) -> Option<ParameterId> {
        self.specs.iter().position(|spec| spec.name == name).map(ParameterId)
    }

    /// Number of scalars in `ids`.
    pub fn count(&self, ids: &[ParameterId]) -> usize {
        ids.iter().map(|&id| self.spec(id).scalars()).sum()
    }

    /// The same parameters on the autodiff device, `leaves` as fresh leaves that keep their gradient.
    pub(crate) fn tracked(&self, leaves: &[ParameterId]) -> Self {
        let mut tracked = self.clone();
        for &id in leaves {
            tracked.tensors[id.0] = self.get(id).autodiff().require_grad();
        }
        tracked
    }

    /// The value as a row-major vector of `f32`.
    pub fn to_vec(&self, id: ParameterId) -> Result<Vec<f32>, ModelError> {
        tensor_to_vec(self.get(id))
    }
}

/// A tensor's elements in row-major order, as `f32`.
pub fn tensor_to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor
        .inner()
        .try_into_vec_as::<f32>()
        .map_err(|error| unreadable(&format!("{error:?}")))
}

/// What went wrong on a device is known once its results are read: most often it had no room for one of them.
fn unreadable(said: &str) -> ModelError {
    const NO_ROOM: &str = "can't allocate buffer of size: ";
    let digits = |rest: &str| rest.chars().take_while(char::is_ascii_digit).collect::<String>();
    let bytes = said.split_once(NO_ROOM).map(|(_, rest)| digits(rest));
    ModelError::Input(match bytes.filter(|bytes| !bytes.is_empty()) {
        Some(bytes) => format!(
            "the GPU's driver gives no {bytes} bytes in one piece: send fewer texts or users through the model together, or shorter ones"
        ),
        None => format!("a tensor could not be read back: {said}"),
    })
}

/// Refuses a parameter that `device` does not hold in one piece.
pub(crate) fn check_size(spec: &ParameterSpec, device: &Device) -> Result<(), ModelError> {
    #[cfg(feature = "wgpu")]
    {
        let bytes = spec.scalars() as u64 * 4;
        if let Some(most) = crate::wgpu::largest_buffer(device).filter(|&most| bytes > most) {
            return Err(ModelError::Input(format!(
                "parameter `{}` has {bytes} bytes in f32, the GPU's driver takes at most {most} in one piece: choose a smaller model, \
                 or another device",
                spec.name
            )));
        }
    }
    let _ = (spec, device);
    Ok(())
}

/// `[rows, columns]` from row-major data.
pub(crate) fn matrix(data: Vec<f32>, rows: usize, columns: usize, device: &Device) -> Tensor<2> {
    Tensor::from_data(TensorData::new(data, [rows, columns]), device)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_without_room_is_told_from_other_trouble() {
        let said = "Execution(An error happened\nCaused by:\n  can't allocate buffer of size: 167760000\nNo backtrace)";
        assert!(unreadable(said).to_string().contains("gives no 167760000 bytes"));
        assert!(
            unreadable("Execution(lost)")
                .to_string()
                .contains("read back: Execution(lost)")
        );
    }
}
