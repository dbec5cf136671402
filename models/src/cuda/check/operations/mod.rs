//! Every operation of the engine by itself, beside sums in f64 on fresh random numbers.

mod attention;
pub(super) mod contrast;
mod masters;
mod optimizer;
mod products;
mod rows;
mod texts;

use half::bf16;

use super::Check;
use crate::ModelError;
use crate::cuda::gpu::{Buffer, Element, Gpu};
use crate::cuda::kernels::Kernel;
use crate::cuda::launch::Argument;
use crate::random::uniform_values;
use crate::rounding::to_nearest;

/// Compares all of them.
pub(super) fn check(gpu: &Gpu, seed: u64, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    for element in [Element::F32, Element::Bf16] {
        let mut bench = Bench {
            gpu,
            element,
            seed,
            stream: 1000,
            report,
        };
        products::check(&mut bench)?;
        rows::check(&mut bench)?;
        optimizer::check(&mut bench)?;
        masters::check(&mut bench)?;
        texts::check(&mut bench)?;
        contrast::check(&mut bench)?;
        attention::check(&mut bench)?;
    }
    Ok(())
}

/// Where operations are tried, in one type.
struct Bench<'a> {
    gpu: &'a Gpu,
    element: Element,
    seed: u64,
    /// Of the random numbers that come next.
    stream: u32,
    report: &'a mut dyn FnMut(Check),
}

/// Numbers on the host, and the same on the card.
struct Given {
    values: Vec<f32>,
    card: Buffer,
}

impl Given {
    fn wide(&self) -> Vec<f64> {
        self.values.iter().map(|&value| f64::from(value)).collect()
    }
}

impl From<&Given> for Argument {
    fn from(given: &Given) -> Self {
        (&given.card).into()
    }
}

impl Bench<'_> {
    /// Numbers within ±`bound`, of the type that is tried.
    fn given(&mut self, count: usize, bound: f32) -> Result<Given, ModelError> {
        self.given_as(count, bound, self.element)
    }

    fn given_as(&mut self, count: usize, bound: f32, element: Element) -> Result<Given, ModelError> {
        self.stream += 1;
        let mut values = uniform_values(self.seed, self.stream, count, bound);
        if element == Element::Bf16 {
            to_nearest(&mut values);
        }
        let card = self.upload(&values, element)?;
        Ok(Given { values, card })
    }

    fn upload(&self, values: &[f32], element: Element) -> Result<Buffer, ModelError> {
        match element {
            Element::F32 => self.gpu.upload(values),
            _ => {
                let narrow: Vec<bf16> = values.iter().map(|&value| bf16::from_f32(value)).collect();
                self.gpu.upload(&narrow)
            }
        }
    }

    /// Room for what comes out, full of what must be overwritten.
    fn room(&self, count: usize, element: Element) -> Result<Buffer, ModelError> {
        self.gpu.upload(&vec![0xff_u8; count * element.bytes()])
    }

    fn read(&self, buffer: &Buffer, count: usize, element: Element) -> Result<Vec<f32>, ModelError> {
        match element {
            Element::F32 => buffer.read(0, count),
            _ => Ok(buffer
                .read::<bf16>(0, count)?
                .iter()
                .map(|value| value.to_f32())
                .collect()),
        }
    }

    /// # Safety
    /// As [`Gpu::launch`].
    unsafe fn launch(
        &self,
        kernel: Kernel,
        grid: [usize; 3],
        threads: u32,
        arguments: &[Argument],
    ) -> Result<(), ModelError> {
        // SAFETY: the caller's promise.
        unsafe {
            let grid = grid.map(|size| size as u32);
            self.gpu.launch(kernel, self.element, grid, threads, 0, arguments)
        }
    }

    /// Compares what came out, of the type that is tried.
    fn compare(&mut self, name: &str, found: &Buffer, expected: &[f64]) -> Result<(), ModelError> {
        self.compare_as(name, found, expected, self.element)
    }

    /// Compares what came out in f32 of operands of the type that is tried.
    fn compare_f32(&mut self, name: &str, found: &Buffer, expected: &[f64]) -> Result<(), ModelError> {
        self.compare_as(name, found, expected, Element::F32)
    }

    fn compare_as(&mut self, name: &str, found: &Buffer, expected: &[f64], element: Element) -> Result<(), ModelError> {
        let found = self.read(found, expected.len(), element)?;
        self.compare_values(name, &found, expected);
        Ok(())
    }

    /// Compares what has been read already.
    fn compare_values(&mut self, name: &str, found: &[f32], expected: &[f64]) {
        let expected: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
        let bound = match self.element {
            Element::F32 => 2e-5,
            // Half a step of what is written, and that of what was rounded on the way.
            _ => 1e-2,
        };
        (self.report)(Check::new(
            format!("{name}, {:?}", self.element),
            found,
            &expected,
            bound,
        ));
    }
}

/// The MLP's non-linearity of this kind, and its slope.
fn activation(x: f64, kind: i32) -> (f64, f64) {
    match kind {
        0 => {
            let s = 1.0 / (1.0 + (-x).exp());
            (x * s, s * (1.0 + x * (1.0 - s)))
        }
        1 => {
            let normal = (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt();
            let below = normal_below(x);
            (x * below, below + x * normal)
        }
        _ => {
            let k = (2.0 / std::f64::consts::PI).sqrt();
            let t = (k * (x + 0.044715 * x.powi(3))).tanh();
            let slope = 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * k * (1.0 + 3.0 * 0.044715 * x * x);
            (0.5 * x * (1.0 + t), slope)
        }
    }
}

/// The share of a normal distribution below x, by its series: Φ(x) = ½ + φ(x) · Σ x^(2k+1) / (1·3·…·(2k+1)).
fn normal_below(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..200 {
        term *= x * x / f64::from(2 * k + 1);
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn non_linearities_and_their_slopes_agree_with_differences() {
        for kind in 0..3 {
            for x in [-3.0, -0.7, 0.0, 0.4, 2.9] {
                let step = 1e-5;
                let difference = (activation(x + step, kind).0 - activation(x - step, kind).0) / (2.0 * step);
                assert!((difference - activation(x, kind).1).abs() < 1e-8, "kind {kind} at {x}");
            }
        }
        // Φ(1.96), of a table.
        assert!((normal_below(1.96) - 0.975_002_1).abs() < 1e-7);
        assert!((normal_below(-1.96) - 0.024_997_9).abs() < 1e-7);
    }
}
