//! The contrastive loss and its slopes, on the host: a model's gradients are found from them.

use rayon::prelude::*;

use crate::host::products;

/// The contrastive loss of a batch and what it was made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrastive {
    /// Mean over rows.
    pub loss: f64,
    /// Cosines `[profiles, targets]`.
    pub similarities: Vec<f32>,
    /// The loss' slope in each component of the vectors, `[2 · batch, width]`.
    pub slopes: Vec<f32>,
}

/// Cross-entropy of each row of S/τ with its own target as label, S being the cosines of profiles and targets: the other targets of
/// the batch are the negatives (van den Oord et al., 2018). `vectors`, `[2 · batch, width]`, are the profiles and then their targets.
pub fn contrastive_loss(vectors: &[f32], width: usize, temperature: f64) -> Contrastive {
    let (rows, lengths) = normalise(vectors, width);
    let (profiles, targets) = rows.split_at(rows.len() / 2);
    let batch = lengths.len() / 2;
    let similarities = products(profiles, targets, width);
    let mut slopes = vec![0.0; similarities.len()];
    let losses: Vec<f64> = similarities
        .par_chunks(batch.max(1))
        .zip(slopes.par_chunks_mut(batch.max(1)))
        .enumerate()
        .map(|(own, (cosines, slopes))| cross_entropy(cosines, own, temperature, slopes))
        .collect();
    // In rows of length 1: slopes · targets, and slopesᵀ · profiles.
    let mut in_rows = products(&slopes, &transposed(targets, width), batch);
    in_rows.extend(products(
        &transposed(&slopes, batch),
        &transposed(profiles, width),
        batch,
    ));
    through_lengths(&rows, &lengths, width, &mut in_rows);
    Contrastive {
        loss: losses.iter().sum::<f64>() / batch as f64,
        similarities,
        slopes: in_rows,
    }
}

/// The loss of one row, whose own target stands at `own`; `slopes` gets those of the mean over as many rows as the row is long.
fn cross_entropy(cosines: &[f32], own: usize, temperature: f64, slopes: &mut [f32]) -> f64 {
    let logits: Vec<f64> = cosines.iter().map(|&cosine| f64::from(cosine) / temperature).collect();
    let most = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let total = most + logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln();
    let share = 1.0 / (temperature * cosines.len() as f64);
    for (place, (slope, logit)) in slopes.iter_mut().zip(&logits).enumerate() {
        let wanted = f64::from(u8::from(place == own));
        *slope = (((logit - total).exp() - wanted) * share) as f32;
    }
    total - logits[own]
}

/// Shorter vectors are treated as this long, as `torch.nn.functional.normalize` does.
const LEAST_LENGTH: f64 = 1e-12;

/// Rows at length 1, and the lengths they had.
fn normalise(vectors: &[f32], width: usize) -> (Vec<f32>, Vec<f64>) {
    let mut rows = vectors.to_vec();
    let at_length_1 = |row: &mut [f32]| {
        let square = row.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
        // A length that is not a number must stay one.
        let length = square.sqrt();
        let divisor = if length < LEAST_LENGTH { LEAST_LENGTH } else { length };
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / divisor) as f32);
        length
    };
    let lengths = rows.chunks_exact_mut(width).map(at_length_1).collect();
    (rows, lengths)
}

/// From slopes in rows of length 1 to slopes in the vectors that they were made of.
fn through_lengths(rows: &[f32], lengths: &[f64], width: usize, slopes: &mut [f32]) {
    let pairs = slopes.chunks_exact_mut(width).zip(rows.chunks_exact(width));
    for ((slopes, row), &length) in pairs.zip(lengths) {
        if length < LEAST_LENGTH {
            slopes
                .iter_mut()
                .for_each(|slope| *slope = (f64::from(*slope) / LEAST_LENGTH) as f32);
            continue;
        }
        // What would only change the length changes nothing.
        let along = slopes
            .iter()
            .zip(row)
            .map(|(&slope, &x)| f64::from(slope) * f64::from(x))
            .sum::<f64>();
        for (slope, &x) in slopes.iter_mut().zip(row) {
            *slope = ((f64::from(*slope) - along * f64::from(x)) / length) as f32;
        }
    }
}

/// `[rows, columns]` as `[columns, rows]`.
fn transposed(data: &[f32], columns: usize) -> Vec<f32> {
    let column = |index: usize| data[index..].iter().step_by(columns).copied();
    (0..columns.min(data.len())).flat_map(column).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two profiles, two targets, all at length 1 or in one direction: cosines 1 and 0.
    #[test]
    fn the_contrastive_loss_of_orthogonal_pairs_is_that_of_a_hand_calculation() {
        let vectors = [2.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0, 4.0];
        let found = contrastive_loss(&vectors, 2, 0.5);
        assert_eq!(found.similarities, [1.0, 0.0, 0.0, 1.0]);
        // ln(1 + e^(−1/τ)); the slope in a cosine beside the label is p/(τ·batch), p = 1/(1 + e^(1/τ)).
        assert!((found.loss - (-2f64).exp().ln_1p()).abs() < 1e-12);
        let p = (1.0 / (1.0 + 2f64.exp())) as f32;
        let wanted = [0.0, p / 2.0, p, 0.0, 0.0, p, p / 4.0, 0.0];
        let close = |found: &[f32], wanted: &[f32]| found.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-7);
        assert!(close(&found.slopes, &wanted), "{:?} {wanted:?}", found.slopes);
    }

    #[test]
    fn slopes_of_the_contrastive_loss_are_its_finite_differences() {
        let (batch, width, temperature, step) = (5, 7, 0.5, 1.0 / 128.0);
        let value = |index: usize| ((index * 37 % 101) as f32 / 25.0).sin() + 0.1;
        let vectors: Vec<f32> = (0..2 * batch * width).map(value).collect();
        let found = contrastive_loss(&vectors, width, temperature).slopes;
        for (index, &slope) in found.iter().enumerate() {
            let at = |change: f32| {
                let mut moved = vectors.clone();
                moved[index] += change;
                contrastive_loss(&moved, width, temperature).loss
            };
            let difference = (at(step) - at(-step)) / (2.0 * f64::from(step));
            assert!(
                (f64::from(slope) - difference).abs() < 1e-4,
                "{index}: {slope} {difference}"
            );
        }
    }

    #[test]
    fn a_vector_of_zeros_has_finite_slopes_and_one_that_is_not_finite_makes_the_loss_so() {
        let mut vectors = [0.0, 0.0, 1.0, 2.0, 0.5, 1.0, -1.0, 2.0];
        let found = contrastive_loss(&vectors, 2, 0.1);
        assert!(found.loss.is_finite() && found.slopes.iter().all(|slope| slope.is_finite()));
        vectors[3] = f32::NAN;
        assert!(contrastive_loss(&vectors, 2, 0.1).loss.is_nan());
    }
}
