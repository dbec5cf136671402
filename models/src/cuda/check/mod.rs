//! A card's results beside the processor's in f64, on fresh random numbers and models of odd shapes: every operation by itself, and whole
//! updates of whole models. Where the processor works in f32, what is compared says so.

mod catalogue;
mod decoder;
mod encoder;
mod operations;
mod shared;

use std::path::Path;

pub use shared::check_shared;

use super::gpu::Gpu;
use crate::{ModelError, Trainable};

/// One comparison.
#[derive(Debug, Clone)]
pub struct Check {
    /// What was compared.
    pub name: String,
    /// The largest difference, as a share of the largest value.
    pub error: f64,
    /// What it may be.
    pub bound: f64,
}

impl Check {
    fn new(name: String, found: &[f32], expected: &[f32], bound: f64) -> Self {
        Self::scaled(name, found, expected, bound, 1e-30)
    }

    /// The same, as a share of the largest value or of `least`.
    fn scaled(name: String, found: &[f32], expected: &[f32], bound: f64, least: f64) -> Self {
        let most = largest(expected).max(least);
        let error = match found.len() == expected.len() {
            true => found
                .iter()
                .zip(expected)
                .map(|(x, y)| (f64::from(*x) - f64::from(*y)).abs() / most)
                .fold(
                    0.0,
                    |most: f64, error| if error.is_nan() { f64::INFINITY } else { most.max(error) },
                ),
            false => f64::INFINITY,
        };
        Self { name, error, bound }
    }

    /// Whether the difference is as small as it must be.
    pub fn holds(&self) -> bool {
        self.error <= self.bound
    }
}

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// Every operation by itself.
    Operations,
    /// Whole language models.
    LanguageModels,
    /// Whole embedders.
    Embedders,
    /// Ranks in a catalogue.
    Ranking,
}

impl Part {
    /// All of them, in the order in which they are compared.
    pub const ALL: [Self; 4] = [Self::Operations, Self::LanguageModels, Self::Embedders, Self::Ranking];
}

/// Runs the comparisons of these parts; `seed` makes the inputs.
///
/// # Errors
/// When something cannot be run at all.
pub fn check(gpu: &Gpu, seed: u64, parts: &[Part], report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    let folder = std::env::temp_dir().join(format!("langptune-check-{}", std::process::id()));
    std::fs::create_dir_all(&folder).map_err(|source| ModelError::io(&folder, source))?;
    let mut each = parts.iter();
    let outcome = each.try_for_each(|part| check_part(gpu, seed, *part, &folder, report));
    let _ = std::fs::remove_dir_all(&folder);
    outcome
}

fn check_part(
    gpu: &Gpu,
    seed: u64,
    part: Part,
    folder: &Path,
    report: &mut dyn FnMut(Check),
) -> Result<(), ModelError> {
    match part {
        Part::Operations => operations::check(gpu, seed, report),
        Part::LanguageModels => decoder::check(gpu, seed, folder, report),
        Part::Embedders => encoder::check(gpu, seed, folder, report),
        Part::Ranking => catalogue::check(gpu, seed, report),
    }
}

/// Gives both the very same parameters, those of `expected` as f32 has them, so that what follows starts from there.
fn align(expected: &mut dyn Trainable, found: &mut dyn Trainable) -> Result<(), ModelError> {
    for index in 0..expected.trained().len() {
        let values = expected.values(index)?;
        found.set_values(index, values.clone())?;
        expected.set_values(index, values)?;
    }
    Ok(())
}

fn largest(values: &[f32]) -> f64 {
    values.iter().map(|x| f64::from(x.abs())).fold(0.0, f64::max)
}

/// Compares all summed gradients: the worst of a parameter, and all together. Returns which parameters' gradients are nothing but
/// rounding: those of keys' biases, which shift all of a query's scores alike, and those of A where B is zero.
fn gradients(
    expected: &mut dyn Trainable,
    found: &mut dyn Trainable,
    name: impl Fn(&str) -> String,
    [worst_bound, bound]: [f64; 2],
    report: &mut dyn FnMut(Check),
) -> Result<Vec<usize>, ModelError> {
    /// Smaller than this share of the largest gradient of all, one is rounding.
    const ROUNDING: f64 = 1e-5;
    if expected.trained() != found.trained() {
        let message = format!(
            "{}: parameters are in another order than the processor's",
            name("gradients")
        );
        return Err(ModelError::Input(message));
    }
    let read = |of: &mut dyn Trainable, index: usize| -> Result<Vec<f32>, ModelError> {
        Ok(of.gradient(index)?.map(|gradient| gradient.value).unwrap_or_default())
    };
    let mut gradients = Vec::new();
    for index in 0..found.trained().len() {
        gradients.push((read(expected, index)?, read(found, index)?));
    }
    let most = gradients
        .iter()
        .map(|(gradient, _)| largest(gradient))
        .fold(0.0, f64::max);
    let mut worst: Option<Check> = None;
    let mut rounding = Vec::new();
    for (index, (spec, (gradient, own))) in found.trained().iter().zip(&gradients).enumerate() {
        if largest(gradient) < ROUNDING * most {
            rounding.push(index);
        }
        let of = name(&format!("gradients, worst is {}", spec.name));
        let check = Check::scaled(of, own, gradient, worst_bound, most / 30.0);
        if worst.as_ref().is_none_or(|worst| worst.error < check.error) {
            worst = Some(check);
        }
    }
    if let Some(worst) = worst {
        report(worst);
    }
    let (all, own_all): (Vec<_>, Vec<_>) = gradients.into_iter().unzip();
    report(Check::new(
        name("all gradients"),
        &own_all.concat(),
        &all.concat(),
        bound,
    ));
    Ok(rounding)
}

/// Compares the values of all parameters after a step of Adam: the root of the mean square of differences, as a share of the rate. Where
/// a gradient is nearly zero rounding turns its sign, and the value goes the other way; parameters of nothing else are left out.
fn values(
    expected: &mut dyn Trainable,
    found: &mut dyn Trainable,
    name: String,
    (rate, left_out): (f64, &[usize]),
    bound: f64,
    report: &mut dyn FnMut(Check),
) -> Result<(), ModelError> {
    let (mut squares, mut count) = (0.0, 0_usize);
    for index in (0..found.trained().len()).filter(|index| !left_out.contains(index)) {
        let (values, own) = (expected.values(index)?, found.values(index)?);
        count += values.len();
        let differences = values.iter().zip(&own).map(|(x, y)| f64::from(*x) - f64::from(*y));
        squares += differences.map(|difference| difference.powi(2)).sum::<f64>();
    }
    let error = (squares / count.max(1) as f64).sqrt() / rate;
    let error = if error.is_nan() { f64::INFINITY } else { error };
    report(Check { name, error, bound });
    Ok(())
}
