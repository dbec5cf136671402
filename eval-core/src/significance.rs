//! How sure a mean or a difference is: bootstrap intervals and the paired randomisation test.
//!
//! Both draw from a counter-based generator (SplitMix64), so a seed gives the same result on every platform and for every
//! number of threads.

use crate::random::Stream;
use crate::{Error, ErrorKind, parallel};

/// The mean, 0 of nothing. Summed in order.
pub fn mean(values: &[f64]) -> f64 {
    match values.len() {
        0 => 0.0,
        n => values.iter().sum::<f64>() / n as f64,
    }
}

/// Percentile bootstrap intervals of means over users (Efron & Tibshirani, 1993, chapter 13).
///
/// ```
/// use eval_core::significance::Bootstrap;
/// let [low, high] = Bootstrap::default().interval(&[0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
/// assert!(0.0 < low && low < 0.625 && 0.625 < high && high <= 1.0);
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bootstrap {
    /// Number of resamples; 0 makes every interval its mean.
    pub resamples: usize,
    /// Seed of the draws.
    pub seed: u64,
    /// Share of the resampled means that the interval holds, in `0.0..=1.0`.
    pub confidence: f64,
}

impl Default for Bootstrap {
    /// 2,000 resamples, 95 %.
    fn default() -> Self {
        Self {
            resamples: 2000,
            seed: 0,
            confidence: 0.95,
        }
    }
}

impl Bootstrap {
    /// `[low, high]` for the mean of one value a user; `[0, 0]` without users.
    pub fn interval(&self, values: &[f64]) -> [f64; 2] {
        self.intervals(&[values])[0]
    }

    /// `[low, high]` for each column of the same users: they share their resamples. Shorter columns are resampled by
    /// their own length.
    pub fn intervals(&self, columns: &[&[f64]]) -> Vec<[f64; 2]> {
        let resampled = parallel::map(self.resamples, |resample| self.resampled_means(columns, resample));
        (0..columns.len())
            .map(|column| {
                let mut means: Vec<f64> = resampled.iter().map(|means| means[column]).collect();
                means.sort_unstable_by(f64::total_cmp);
                let tail = (1.0 - self.confidence) / 2.0;
                match means.is_empty() {
                    true => [mean(columns[column]); 2],
                    false => [quantile(&means, tail), quantile(&means, 1.0 - tail)],
                }
            })
            .collect()
    }

    fn resampled_means(&self, columns: &[&[f64]], resample: usize) -> Vec<f64> {
        let stream = Stream::new(self.seed, resample as u64);
        let users = columns.iter().map(|column| column.len()).max().unwrap_or(0);
        if columns.iter().any(|column| column.len() != users) {
            return columns
                .iter()
                .flat_map(|column| self.resampled_means(&[column], resample))
                .collect();
        }
        let mut sums = vec![0.0; columns.len()];
        for draw in 0..users {
            let user = stream.below(draw as u64, users);
            sums.iter_mut()
                .zip(columns)
                .for_each(|(sum, column)| *sum += column[user]);
        }
        sums.iter()
            .map(|sum| if users == 0 { 0.0 } else { sum / users as f64 })
            .collect()
    }
}

/// The quantile of sorted values, linear between neighbours (type 7 of Hyndman & Fan, 1996; NumPy's default).
fn quantile(sorted: &[f64], share: f64) -> f64 {
    let place = share.clamp(0.0, 1.0) * (sorted.len() - 1) as f64;
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - below as f64)
}

/// What [`paired_randomisation`] found.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct PairedTest {
    /// Mean of first − second.
    pub mean_difference: f64,
    /// Two-sided p-value.
    pub p_value: f64,
    /// Number of pairs.
    pub n: usize,
    /// Whether all sign patterns were enumerated rather than drawn.
    pub exact: bool,
}

/// Up to so many pairs that differ, all sign patterns are enumerated.
const EXACT_PAIRS: usize = 18;

/// The paired randomisation (sign-flip) test of equal means, two-sided (Fisher; Smucker, Allan & Carterette, 2007).
///
/// Under the null hypothesis each difference is as likely to have the other sign. With up to 18 pairs that differ all
/// patterns are counted and p is exact; with more, `permutations` of them are drawn and p = (1 + count)/(1 + permutations).
/// Sums that rounding alone sets apart count as equal.
///
/// ```
/// use eval_core::significance::paired_randomisation;
/// let test = paired_randomisation(&[0.5, 0.7, 0.9], &[0.1, 0.2, 0.3], 10_000, 0)?;
/// assert_eq!(test.p_value, 2.0 / 8.0); // only +++ and --- are as far out
/// assert!(test.exact);
/// # Ok::<(), eval_core::Error>(())
/// ```
///
/// # Errors
/// [`ErrorKind::LengthsDiffer`] unless both hold the same users.
pub fn paired_randomisation(
    first: &[f64],
    second: &[f64],
    permutations: usize,
    seed: u64,
) -> Result<PairedTest, Error> {
    if first.len() != second.len() {
        let (expected, found) = (first.len(), second.len());
        return Err(ErrorKind::LengthsDiffer {
            what: "values to pair",
            expected,
            found,
        }
        .into());
    }
    let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| a - b).collect();
    // A pair without a difference has the same sum under either sign.
    let changed: Vec<f64> = differences
        .iter()
        .copied()
        .filter(|difference| *difference != 0.0)
        .collect();
    let size: f64 = changed.iter().map(|difference| difference.abs()).sum();
    let observed = changed.iter().sum::<f64>().abs() - 1e-12 * size;
    let exact = changed.len() <= EXACT_PAIRS;
    let p_value = match exact {
        true => patterns_as_far(&changed, 0.0, observed) as f64 / (1u64 << changed.len()) as f64,
        false => {
            let far = parallel::map(permutations, |flip| {
                flipped_sum(&changed, Stream::new(seed, flip as u64)) >= observed
            });
            (1 + far.into_iter().filter(|&far| far).count()) as f64 / (1 + permutations) as f64
        }
    };
    Ok(PairedTest {
        mean_difference: mean(&differences),
        p_value,
        n: differences.len(),
        exact,
    })
}

/// How many sign patterns of `rest` bring `sum` at least `observed` away from 0.
fn patterns_as_far(rest: &[f64], sum: f64, observed: f64) -> u64 {
    match rest.split_first() {
        None => u64::from(sum.abs() >= observed),
        Some((next, rest)) => patterns_as_far(rest, sum + next, observed) + patterns_as_far(rest, sum - next, observed),
    }
}

fn flipped_sum(differences: &[f64], stream: Stream) -> f64 {
    let mut sum = 0.0;
    for (word, chunk) in (0..).zip(differences.chunks(64)) {
        let signs = stream.bits(word);
        for (bit, difference) in chunk.iter().enumerate() {
            sum += if signs >> bit & 1 == 0 {
                *difference
            } else {
                -difference
            };
        }
    }
    sum.abs()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn equal_values_have_an_interval_of_no_width_and_differ_by_chance() {
        assert_eq!(Bootstrap::default().interval(&[0.25; 40]), [0.25, 0.25]);
        let test = paired_randomisation(&[0.3; 40], &[0.3; 40], 100, 1).unwrap();
        assert_eq!((test.p_value, test.mean_difference, test.exact), (1.0, 0.0, true));
    }

    #[test]
    fn a_seed_repeats_and_another_does_not() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i * i % 17)).collect();
        let interval = |seed| {
            Bootstrap {
                seed,
                ..Bootstrap::default()
            }
            .interval(&values)
        };
        assert_eq!(interval(3), interval(3));
        assert_ne!(interval(3), interval(4));
    }

    #[test]
    fn columns_of_a_table_share_their_resamples() {
        let values: Vec<f64> = (0..50).map(|i| f64::from(i * i % 17)).collect();
        let bootstrap = Bootstrap::default();
        assert_eq!(
            bootstrap.intervals(&[&values, &values]),
            vec![bootstrap.interval(&values); 2]
        );
    }

    #[test]
    fn drawn_signs_agree_with_enumerated_ones() {
        let first: Vec<f64> = (0..18).map(|i| f64::from(i % 5) * 0.1).collect();
        let second: Vec<f64> = (0..18).map(|i| f64::from(i * 7 % 4) * 0.1).collect();
        let exact = paired_randomisation(&first, &second, 0, 0).unwrap();
        // Each pair four times over is too many to enumerate; the exact p of the single pairs is checked by drawing them.
        let changed: Vec<f64> = first
            .iter()
            .zip(&second)
            .map(|(a, b)| a - b)
            .filter(|d| *d != 0.0)
            .collect();
        let observed = changed.iter().sum::<f64>().abs() - 1e-12;
        let far = (0..40_000)
            .filter(|&i| flipped_sum(&changed, Stream::new(9, i)) >= observed)
            .count();
        assert!(
            (far as f64 / 40_000.0 - exact.p_value).abs() < 0.01,
            "{far} {}",
            exact.p_value
        );
    }

    #[test]
    fn a_clear_difference_among_many_users_reaches_the_smallest_p() {
        let test = paired_randomisation(&[0.4; 100], &[0.1; 100], 999, 5).unwrap();
        assert_eq!((test.p_value, test.exact), (0.001, false));
    }

    #[test]
    fn lists_of_different_users_are_refused() {
        let error = paired_randomisation(&[0.1, 0.2], &[0.1], 10, 0).unwrap_err();
        assert_eq!(error.to_string(), "expected 2 values to pair, found 1");
    }
}
