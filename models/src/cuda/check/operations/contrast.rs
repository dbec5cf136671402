//! The contrastive loss.

use super::Bench;
use crate::ModelError;
use crate::cuda::encoder::Loss;
use crate::cuda::gpu::Element;

/// What the loss of profiles and their targets is in f64, and its slopes.
pub(in crate::cuda::check) struct Exact {
    pub(in crate::cuda::check) loss: f64,
    cosines: Vec<f64>,
    pub(in crate::cuda::check) slopes: Vec<f64>,
}

/// As it stands in van den Oord et al., 2018: every logarithm, quotient and derivative by itself.
pub(in crate::cuda::check) fn exactly(vectors: &[f64], width: usize, temperature: f64) -> Exact {
    let rows: Vec<&[f64]> = vectors.chunks(width).collect();
    let pairs = rows.len() / 2;
    let length = |row: &[f64]| row.iter().map(|x| x * x).sum::<f64>().sqrt();
    let cosine = |one: &[f64], other: &[f64]| {
        let sum: f64 = one.iter().zip(other).map(|(x, y)| x * y).sum();
        sum / (length(one) * length(other))
    };
    let mut exact = Exact {
        loss: 0.0,
        cosines: Vec::new(),
        slopes: vec![0.0; vectors.len()],
    };
    for profile in 0..pairs {
        let cosines: Vec<f64> = (0..pairs)
            .map(|target| cosine(rows[profile], rows[pairs + target]))
            .collect();
        let shares: Vec<f64> = cosines.iter().map(|cosine| (cosine / temperature).exp()).collect();
        let all: f64 = shares.iter().sum();
        exact.loss -= (shares[profile] / all).ln() / pairs as f64;
        for target in 0..pairs {
            let wanted = if target == profile { 1.0 } else { 0.0 };
            let slope = (shares[target] / all - wanted) / (temperature * pairs as f64);
            let (one, other) = (rows[profile], rows[pairs + target]);
            // d cos(x, y) / dx = y / (|x| |y|) − cos · x / |x|².
            for (place, own, with) in [(profile, one, other), (pairs + target, other, one)] {
                let (first, second) = (length(own), length(with));
                let to = &mut exact.slopes[place * width..(place + 1) * width];
                for ((to, x), y) in to.iter_mut().zip(own).zip(with) {
                    *to += slope * (y / (first * second) - cosines[target] * x / (first * first));
                }
            }
        }
        exact.cosines.extend(cosines);
    }
    exact
}

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    // It is of f32, whatever the model computes in.
    if bench.element != Element::F32 {
        return Ok(());
    }
    for (pairs, width, temperature, parts) in [(1, 5, 0.5, 1), (3, 51, 0.1, 2), (32, 1024, 0.05, 1), (261, 264, 1.0, 3)]
    {
        let vectors = bench.given(2 * pairs * width, 1.0)?;
        let found = Loss::new(bench.gpu, &vectors.card, width, temperature, parts)?;
        let exact = exactly(&vectors.wide(), width, temperature);
        let name = |what: &str| format!("contrastive loss, {pairs} pairs of {width}: {what}");
        let slopes: Vec<f64> = exact.slopes.iter().map(|slope| slope / parts as f64).collect();
        bench.compare(&name("slopes"), found.slopes(), &slopes)?;
        let found = found.read()?;
        bench.compare_values(&name("cosines"), &found.similarities, &exact.cosines);
        bench.compare_values(&name("the loss"), &[found.loss as f32], &[exact.loss]);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_slopes_of_the_contrastive_loss_are_its_differences() {
        let (width, temperature, step) = (3, 0.3, 1e-6);
        let vectors: Vec<f64> = (0..6 * width).map(|at| (at as f64 * 1.7).sin() + 0.2).collect();
        let exact = exactly(&vectors, width, temperature);
        for (at, slope) in exact.slopes.iter().enumerate() {
            let moved = |by: f64| {
                let mut moved = vectors.clone();
                moved[at] += by;
                exactly(&moved, width, temperature).loss
            };
            let difference = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((difference - slope).abs() < 1e-8, "{at}: {difference} {slope}");
        }
    }
}
