//! Metrics of one user's ranking, from the ranks of the targets.
//!
//! Every function takes the targets' ranks ([`TargetRanks`]) and gives `None` for a user without a target. The cutoff is
//! a [`Cutoff`], or `None` for the whole catalogue where that makes sense: `ndcg(&ranks, None)` and `mrr(&ranks, None)` are
//! the rewards of training.
//!
//! With targets *T*, their ranks counted from 1, and *hits* the targets of rank ≤ k:
//!
//! | name | value | source |
//! |---|---|---|
//! | `recall@k` | hits / targets | |
//! | `precision@k` | hits / k, also when fewer than k items exist | `P_k` of trec_eval |
//! | `hit@k` | 1 with a hit, else 0 | "hit rate" once averaged |
//! | `mrr@k` | Σ 1/rank over **all** hits | LangPTune's code; above 1 is possible with many targets |
//! | `mrr_first@k` | 1/rank of the first hit | Voorhees, TREC-8 question answering, 1999 |
//! | `ndcg@k` | Σ grade/log2(rank+1) over hits, over the same sum of an ideal ranking's first k | Järvelin & Kekäläinen, 2002; `ndcg_cut` of trec_eval |
//! | `ndcg_exp@k` | the same with the gain 2^grade − 1 | Burges et al., 2005 |
//! | `map@k` | Σ (hits up to rank)/rank over hits, over targets | `map_cut` of trec_eval |
//!
//! Targets have grade 1 unless graded; then `ndcg` and `ndcg_exp` are equal. The ideal sum runs over min(k, targets) places.

mod name;
mod table;

pub use name::{Measure, Metric};
pub use table::{MetricSummary, MetricTable, Summary};

use crate::log2::log2;
use crate::{Cutoff, TargetRanks};

/// Share of the targets in the first `cutoff` places, in `0.0..=1.0`; `None` for a user without a target.
///
/// ```
/// # use eval_core::{metrics::recall, Cutoff, TargetRanks};
/// let ranks = TargetRanks::new(&[2, 7, 30])?;
/// assert_eq!(recall(&ranks, Cutoff::new(10)?), Some(2.0 / 3.0));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn recall(ranks: &TargetRanks, cutoff: Cutoff) -> Option<f64> {
    per_target(ranks, hits(ranks, cutoff))
}

/// Share of the first `cutoff` places that are targets, in `0.0..=1.0`; `None` for a user without a target.
///
/// ```
/// # use eval_core::{metrics::precision, Cutoff, TargetRanks};
/// let ranks = TargetRanks::new(&[2, 7, 30])?;
/// assert_eq!(precision(&ranks, Cutoff::new(10)?), Some(0.2));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn precision(ranks: &TargetRanks, cutoff: Cutoff) -> Option<f64> {
    (!ranks.is_empty()).then(|| hits(ranks, cutoff) / cutoff.get() as f64)
}

/// 1 when a target is in the first `cutoff` places, else 0; `None` for a user without a target.
///
/// ```
/// # use eval_core::{metrics::hit, Cutoff, TargetRanks};
/// let ranks = TargetRanks::new(&[7, 30])?;
/// assert_eq!(hit(&ranks, Cutoff::new(10)?), Some(1.0));
/// assert_eq!(hit(&ranks, Cutoff::new(5)?), Some(0.0));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn hit(ranks: &TargetRanks, cutoff: Cutoff) -> Option<f64> {
    (!ranks.is_empty()).then(|| hits(ranks, cutoff).min(1.0))
}

/// Reciprocal ranks summed over all targets in the first `cutoff` places, or in the whole catalogue; `None` for a user
/// without a target. For the usual reciprocal rank see [`mrr_first`].
///
/// ```
/// # use eval_core::{metrics::mrr, Cutoff, TargetRanks};
/// let ranks = TargetRanks::new(&[2, 4, 100])?;
/// assert_eq!(mrr(&ranks, Cutoff::new(10)?), Some(0.75));
/// assert_eq!(mrr(&ranks, None), Some(0.76));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn mrr(ranks: &TargetRanks, cutoff: impl Into<Option<Cutoff>>) -> Option<f64> {
    let sum = total(ranks.graded_hits(places(cutoff)).map(|(rank, _)| 1.0 / f64::from(rank)));
    (!ranks.is_empty()).then_some(sum)
}

/// Reciprocal rank of the first target, 0 when none is in the first `cutoff` places; `None` for a user without a target.
///
/// ```
/// # use eval_core::{metrics::mrr_first, Cutoff, TargetRanks};
/// let ranks = TargetRanks::new(&[2, 4])?;
/// assert_eq!(mrr_first(&ranks, Cutoff::new(10)?), Some(0.5));
/// assert_eq!(mrr_first(&ranks, Cutoff::new(1)?), Some(0.0));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn mrr_first(ranks: &TargetRanks, cutoff: impl Into<Option<Cutoff>>) -> Option<f64> {
    let first = ranks
        .graded_hits(places(cutoff))
        .next()
        .map_or(0.0, |(rank, _)| 1.0 / f64::from(rank));
    (!ranks.is_empty()).then_some(first)
}

/// Normalised discounted cumulative gain, the gain being the grade, in `0.0..=1.0`; `None` for a user without a target.
///
/// ```
/// # use eval_core::{metrics::ndcg, Cutoff, Ranking, Targets};
/// let ranks = Targets::from([1]).ranks_in(&Ranking::from([3, 1, 4]));
/// assert_eq!(ndcg(&ranks, Cutoff::new(3)?), Some(1.0 / 3f64.log2()));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn ndcg(ranks: &TargetRanks, cutoff: impl Into<Option<Cutoff>>) -> Option<f64> {
    normalised_gain(ranks, places(cutoff), f64::from)
}

/// Normalised discounted cumulative gain, the gain being 2^grade − 1, in `0.0..=1.0`; `None` for a user without a target.
///
/// ```
/// # use eval_core::{metrics::ndcg_exp, Cutoff, TargetRanks};
/// // Grade 1 comes first and grade 2 second; the other way round would be ideal.
/// let ranks = TargetRanks::graded([(1, 1), (2, 2)])?;
/// let (gained, ideal) = (1.0 + 3.0 / 3f64.log2(), 3.0 + 1.0 / 3f64.log2());
/// assert_eq!(ndcg_exp(&ranks, Cutoff::new(5)?), Some(gained / ideal));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn ndcg_exp(ranks: &TargetRanks, cutoff: impl Into<Option<Cutoff>>) -> Option<f64> {
    normalised_gain(ranks, places(cutoff), |grade| ((1u64 << grade) - 1) as f64)
}

/// Average precision: the precision at each hit's rank, summed and divided by the number of targets, in `0.0..=1.0`;
/// `None` for a user without a target. Targets beyond the cutoff count in the divisor, as in trec_eval.
///
/// ```
/// # use eval_core::{metrics::map, Cutoff, TargetRanks};
/// let ranks = TargetRanks::new(&[1, 4, 30])?;
/// assert_eq!(map(&ranks, Cutoff::new(10)?), Some((1.0 + 2.0 / 4.0) / 3.0));
/// # Ok::<(), eval_core::Error>(())
/// ```
pub fn map(ranks: &TargetRanks, cutoff: impl Into<Option<Cutoff>>) -> Option<f64> {
    let hits = ranks.graded_hits(places(cutoff)).zip(1u32..);
    per_target(
        ranks,
        total(hits.map(|((rank, _), hits)| f64::from(hits) / f64::from(rank))),
    )
}

fn hits(ranks: &TargetRanks, cutoff: Cutoff) -> f64 {
    ranks.graded_hits(cutoff.get()).count() as f64
}

fn per_target(ranks: &TargetRanks, sum: f64) -> Option<f64> {
    (!ranks.is_empty()).then(|| sum / ranks.len() as f64)
}

/// No cutoff is a cutoff that no ranking reaches.
fn places(cutoff: impl Into<Option<Cutoff>>) -> usize {
    cutoff.into().map_or(usize::MAX, Cutoff::get)
}

fn normalised_gain(ranks: &TargetRanks, places: usize, gain: impl Fn(u32) -> f64) -> Option<f64> {
    let gained = total(
        ranks
            .graded_hits(places)
            .map(|(rank, grade)| gain(grade) * discount(rank)),
    );
    let ideal: f64 = (1..)
        .zip(ranks.ideal_grades())
        .take(places)
        .map(|(rank, &grade)| gain(grade) * discount(rank))
        .sum();
    (!ranks.is_empty()).then(|| gained / ideal)
}

/// The sum in order; of nothing it is 0, where [`Iterator::sum`] gives -0.
fn total(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |sum, value| sum + value)
}

/// What a gain at `rank`, counted from 1, is worth.
fn discount(rank: u32) -> f64 {
    1.0 / log2(u64::from(rank) + 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::NOT_RANKED;

    fn ranks(ranks: &[u32]) -> TargetRanks {
        TargetRanks::new(ranks).unwrap()
    }

    fn at(places: usize) -> Cutoff {
        Cutoff::new(places).unwrap()
    }

    #[test]
    fn no_hit_is_zero_and_not_minus_zero() {
        let missed = ranks(&[30]);
        for value in [
            mrr(&missed, at(5)),
            ndcg(&missed, at(5)),
            ndcg_exp(&missed, at(5)),
            map(&missed, at(5)),
        ] {
            assert!(
                value.is_some_and(|value| value == 0.0 && value.is_sign_positive()),
                "{value:?}"
            );
        }
    }

    #[test]
    fn a_user_without_a_target_has_no_metric() {
        let none = ranks(&[]);
        assert_eq!(recall(&none, at(5)), None);
        assert_eq!(precision(&none, at(5)), None);
        assert_eq!(hit(&none, at(5)), None);
        assert_eq!(mrr(&none, None), None);
        assert_eq!(mrr_first(&none, None), None);
        assert_eq!(ndcg(&none, None), None);
        assert_eq!(ndcg_exp(&none, None), None);
        assert_eq!(map(&none, None), None);
    }

    #[test]
    fn a_perfect_ranking_is_worth_exactly_one() {
        let perfect = ranks(&[1, 2, 3, 4, 5, 6, 7]);
        for cutoff in [1, 3, 7, 20] {
            assert_eq!(ndcg(&perfect, at(cutoff)), Some(1.0));
        }
        assert_eq!(map(&perfect, None), Some(1.0));
        assert_eq!(recall(&perfect, at(7)), Some(1.0));
    }

    #[test]
    fn the_cutoff_includes_its_own_place() {
        assert_eq!(hit(&ranks(&[5]), at(5)), Some(1.0));
        assert_eq!(hit(&ranks(&[6]), at(5)), Some(0.0));
    }

    #[test]
    fn the_ideal_sum_stops_at_the_cutoff() {
        // Two targets, one place: the best that can be had is one hit at rank 1.
        assert_eq!(ndcg(&ranks(&[1, 9]), at(1)), Some(1.0));
    }

    #[test]
    fn the_whole_catalogue_reward_sums_over_every_target() {
        // 1/log2(4) + 1/log2(8) over 1/log2(2) + 1/log2(3).
        let reward = ndcg(&ranks(&[7, 3]), None).unwrap();
        assert!((reward - (0.5 + 1.0 / 3.0) / (1.0 + 1.0 / 3f64.log2())).abs() < 1e-15);
    }

    #[test]
    fn a_target_that_is_not_ranked_gains_nothing_but_counts() {
        let ranks = ranks(&[NOT_RANKED, 1]);
        assert_eq!(recall(&ranks, at(10)), Some(0.5));
        assert_eq!(mrr(&ranks, None), Some(1.0));
        assert_eq!(map(&ranks, None), Some(0.5));
        assert_eq!(ndcg(&ranks, None), Some(1.0 / (1.0 + 1.0 / 3f64.log2())));
    }

    #[test]
    fn mrr_sums_all_hits_and_mrr_first_takes_one() {
        let ranks = ranks(&[4, 1, 2]);
        assert_eq!(mrr(&ranks, at(3)), Some(1.5));
        assert_eq!(mrr_first(&ranks, at(3)), Some(1.0));
    }
}
