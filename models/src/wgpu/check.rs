//! What an adapter computes beside the processor in f64, on fresh random models of odd shapes: the very same modules run on both.

mod decoder;
mod encoder;
mod operations;

use std::path::Path;

use burn::tensor::Device;

use crate::{AdamConfig, ModelError, Trainable};

/// One comparison.
#[derive(Debug, Clone)]
pub struct Comparison {
    /// What was compared.
    pub name: String,
    /// The largest difference, as a share of the largest value.
    pub error: f64,
    /// What it may be.
    pub bound: f64,
}

impl Comparison {
    fn new(name: String, found: &[f32], expected: &[f32], bound: f64) -> Self {
        let most = expected.iter().fold(1e-30, |most: f64, x| most.max(f64::from(x.abs())));
        let differences = found.iter().zip(expected).map(|(x, y)| f64::from(*x) - f64::from(*y));
        // A value that is no number is as wrong as can be.
        let worst = |worst: f64, difference: f64| match difference.is_nan() {
            true => f64::INFINITY,
            false => worst.max(difference.abs() / most),
        };
        let error = match found.len() == expected.len() {
            true => differences.fold(0.0, worst),
            false => f64::INFINITY,
        };
        Self { name, error, bound }
    }

    /// Whether the difference is as small as it must be.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// What comparisons are told to.
type Report<'a> = &'a mut dyn FnMut(Comparison);

/// A step that is large enough to see.
const ADAM: AdamConfig = AdamConfig {
    lr: 3e-3,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.01,
    decoupled: true,
};

/// Rounding of sums of some hundred terms in another order, through some layers.
const VALUES: f64 = 1e-5;
const GRADIENTS: f64 = 1e-5;
/// Where a gradient is nearly zero rounding turns its sign, and Adam's step with it.
const STEPS: f64 = 2e-2;

/// Runs all comparisons of `device` with the processor in f64; `seed` makes models and inputs.
///
/// # Errors
/// When something cannot be run at all.
pub fn check(device: &Device, seed: u64, report: Report<'_>) -> Result<(), ModelError> {
    let folder = std::env::temp_dir().join(format!("langptune-check-{}-{seed}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|source| ModelError::io(&folder, source))?;
    let outcome = check_in(device, seed, &folder, report);
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

fn check_in(device: &Device, seed: u64, folder: &Path, report: Report<'_>) -> Result<(), ModelError> {
    operations::check(device, report)?;
    decoder::check(device, seed, folder, report)?;
    encoder::check(device, seed, folder, report)
}

fn write_config(folder: &Path, config: &str) -> Result<(), ModelError> {
    let path = folder.join("config.json");
    std::fs::write(&path, config).map_err(|source| ModelError::io(&path, source))
}

/// Compares all summed gradients. Returns the parameters whose gradient is nothing but rounding: those of keys' biases, which shift
/// all of a query's scores alike, and those of A where B is zero.
fn gradients(
    expected: &mut dyn Trainable,
    found: &mut dyn Trainable,
    name: String,
    report: Report<'_>,
) -> Result<Vec<usize>, ModelError> {
    const ROUNDING: f32 = 1e-5;
    let read = |of: &dyn Trainable, index| -> Result<Vec<f32>, ModelError> {
        Ok(of.gradient(index)?.map(|gradient| gradient.value).unwrap_or_default())
    };
    let largest = |values: &[f32]| values.iter().fold(0.0, |most: f32, x| most.max(x.abs()));
    let (mut all, mut own, mut each) = (Vec::new(), Vec::new(), Vec::new());
    for index in 0..found.trained().len() {
        let gradient = read(expected, index)?;
        each.push(largest(&gradient));
        all.extend(gradient);
        own.extend(read(found, index)?);
    }
    let least = ROUNDING * largest(&all);
    report(Comparison::new(name, &own, &all, GRADIENTS));
    Ok((0..each.len()).filter(|&index| each[index] < least).collect())
}

/// Compares all parameters after a step, but for those in `left_out`: the root of the mean square of differences, as a share of
/// the rate.
fn steps(
    expected: &mut dyn Trainable,
    found: &mut dyn Trainable,
    (name, left_out): (String, &[usize]),
    report: Report<'_>,
) -> Result<(), ModelError> {
    expected.step(&ADAM, 0.5)?;
    found.step(&ADAM, 0.5)?;
    let (mut squares, mut count) = (0.0, 0_usize);
    for index in (0..found.trained().len()).filter(|index| !left_out.contains(index)) {
        let (values, own) = (expected.values(index)?, found.values(index)?);
        count += values.len();
        let differences = values.iter().zip(&own).map(|(x, y)| f64::from(*x) - f64::from(*y));
        squares += differences.map(|difference| difference.powi(2)).sum::<f64>();
    }
    let error = (squares / count.max(1) as f64).sqrt() / ADAM.lr;
    report(Comparison {
        name,
        error: if error.is_nan() { f64::INFINITY } else { error },
        bound: STEPS,
    });
    // What follows compares at the very same parameters, those that f32 has.
    for index in 0..found.trained().len() {
        let values = expected.values(index)?;
        found.set_values(index, values.clone())?;
        expected.set_values(index, values)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_comparison_fails_on_what_differs_is_no_number_or_is_missing() {
        let holds = |found: &[f32]| Comparison::new(String::new(), found, &[1.0, -2.0], 1e-3).holds();
        assert!(holds(&[1.001, -2.0]));
        assert!(!holds(&[1.01, -2.0]) && !holds(&[f32::NAN, -2.0]) && !holds(&[1.0]));
    }
}
