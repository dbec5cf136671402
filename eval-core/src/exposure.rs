//! How recommendations spread over the catalogue: in how many top lists an item stands, and how unequal that is.
//!
//! Counts are whole numbers and are added as such, so that a figure has the same bits on every platform.
//!
//! ```
//! use eval_core::exposure::{coverage, gini, lorenz};
//! // Four items: two lists show the first, one the second, none the others.
//! let counts = [2, 1, 0, 0];
//! assert_eq!(coverage(&counts), 0.5);
//! assert_eq!(gini(&counts), 7.0 / 12.0); // (−3·0 − 1·0 + 1·1 + 3·2) / (4·3)
//! // The least shown three quarters of the items have a third of all places.
//! assert_eq!(lorenz(&counts, 5)[3], [0.75, 1.0 / 3.0]);
//! ```

/// The share of items that stand in any list, in `0.0..=1.0`; 0 of an empty catalogue.
pub fn coverage(counts: &[u32]) -> f64 {
    let shown = counts.iter().filter(|&&count| count > 0).count();
    match counts.len() {
        0 => 0.0,
        items => shown as f64 / items as f64,
    }
}

/// The Gini coefficient of the counts, in `0.0..=1.0`: 0 where all items are shown equally often (or none is), and 1 − 1/n where
/// one of n items has everything.
///
/// With the counts ascending, G = Σᵢ (2i − n − 1)·xᵢ / (n·Σᵢ xᵢ), i from 1 to n (Damgaard & Weiner, 2000, without their
/// correction n/(n − 1)): half the mean difference of two items' counts, relative to the mean.
pub fn gini(counts: &[u32]) -> f64 {
    let items = counts.len() as i128;
    let total: i128 = counts.iter().map(|&count| i128::from(count)).sum();
    if total == 0 {
        return 0.0;
    }
    let weighted = (1i128..).zip(ascending(counts));
    let weighted: i128 = weighted
        .map(|(place, count)| (2 * place - items - 1) * i128::from(count))
        .sum();
    weighted as f64 / (items * total) as f64
}

/// The Lorenz curve of the counts: at the share of items, the least shown first, the share of all places in lists that they have.
///
/// `points` of it, at least two and at most one more than there are items, from `[0, 0]` to `[1, 1]`, at equal distances but for
/// the rounding to whole items. Where nothing is shown the curve is the diagonal, as where all items are shown equally often.
pub fn lorenz(counts: &[u32], points: usize) -> Vec<[f64; 2]> {
    let items = counts.len();
    let mut sums = vec![0u64];
    let mut sum = 0;
    for count in ascending(counts) {
        sum += u64::from(count);
        sums.push(sum);
    }
    if sum == 0 {
        return vec![[0.0, 0.0], [1.0, 1.0]];
    }
    let steps = (points.max(2) - 1).min(items);
    let places = (0..=steps).map(|step| (step as u64 * items as u64 / steps as u64) as usize);
    places
        .map(|place| [place as f64 / items as f64, sums[place] as f64 / sum as f64])
        .collect()
}

fn ascending(counts: &[u32]) -> Vec<u32> {
    let mut counts = counts.to_vec();
    counts.sort_unstable();
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_counts_have_no_inequality_and_one_item_with_all_has_the_most() {
        assert_eq!(gini(&[3; 7]), 0.0);
        assert_eq!(gini(&[0, 9, 0, 0]), 0.75);
        // By hand: ascending 1, 2, 3, 4, so (−3·1 − 1·2 + 1·3 + 3·4) / (4·10).
        assert_eq!(gini(&[4, 1, 3, 2]), 0.25);
    }

    #[test]
    fn nothing_shown_is_equal_and_covers_nothing() {
        for counts in [&[][..], &[0, 0, 0]] {
            assert_eq!((gini(counts), coverage(counts)), (0.0, 0.0));
            assert_eq!(lorenz(counts, 3), [[0.0, 0.0], [1.0, 1.0]]);
        }
    }

    #[test]
    fn large_counts_do_not_overflow() {
        let counts = vec![u32::MAX; 70_000];
        assert_eq!(gini(&counts), 0.0);
        assert_eq!(lorenz(&counts, 3), [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]);
    }

    #[test]
    fn a_curve_has_no_more_points_than_asked_for_or_items() {
        let counts = [1, 0, 3];
        let third = 1.0 / 3.0;
        let whole = [[0.0, 0.0], [third, 0.0], [2.0 * third, 0.25], [1.0, 1.0]];
        assert_eq!(lorenz(&counts, 4), whole);
        assert_eq!(lorenz(&counts, 1_000_000), whole);
        assert_eq!(lorenz(&counts, 0), [[0.0, 0.0], [1.0, 1.0]]);
        assert_eq!(lorenz(&counts, 3), [[0.0, 0.0], [third, 0.0], [1.0, 1.0]]);
    }
}
