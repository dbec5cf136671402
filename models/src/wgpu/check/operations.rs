//! The operations whose bodies differ from device to device.

use burn::tensor::{DType, Device};

use super::{Comparison, Report};
use crate::ModelError;
use crate::ops::activate;
use crate::plan::Activation;
use crate::weights::{matrix, tensor_to_vec};

/// Approximations of exp, tanh and the error function; the slope of another form of GELU is a hundred times as far off.
const BOUND: f64 = 1e-5;

/// Compares non-linearities and their slopes with f64.
pub(super) fn check(device: &Device, report: Report<'_>) -> Result<(), ModelError> {
    for kind in [Activation::Silu, Activation::Gelu, Activation::GeluTanh] {
        let [values, slopes] = curve(kind, &Device::flex(), DType::F64)?;
        let [own_values, own_slopes] = curve(kind, device, DType::F32)?;
        report(Comparison::new(format!("{kind:?}"), &own_values, &values, BOUND));
        report(Comparison::new(
            format!("{kind:?}, slopes"),
            &own_slopes,
            &slopes,
            BOUND,
        ));
    }
    Ok(())
}

/// Values and slopes between −9 and 9, computed in `dtype`.
fn curve(kind: Activation, device: &Device, dtype: DType) -> Result<[Vec<f32>; 2], ModelError> {
    const STEPS: usize = 1801;
    let places: Vec<f32> = (0..STEPS).map(|step| step as f32 * 0.01 - 9.0).collect();
    let x = matrix(places, 1, STEPS, device).cast(dtype).autodiff().require_grad();
    let y = activate(kind, x.clone());
    let gradients = y.clone().sum().backward();
    let slopes = x.grad(&gradients).map(tensor_to_vec).transpose()?;
    Ok([tensor_to_vec(y)?, slopes.unwrap_or_default()])
}
