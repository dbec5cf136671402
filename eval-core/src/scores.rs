//! From scores to ranks: the one rule of ties and masks, for retrieval and for baselines that score items themselves.
//!
//! A higher score is better. Equal scores rank by ascending item index. Masked items are not in the ranking at all.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};

use crate::{Cutoff, Error, ErrorKind};

/// A score: f32 or f64.
pub trait Score: Copy + PartialOrd + Into<f64> + Send + Sync + sealed::Sealed {}

impl Score for f32 {}
impl Score for f64 {}

mod sealed {
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f64 {}
}

/// Where one target stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RankedTarget {
    /// The target.
    pub item: u32,
    /// Its rank, counted from 1, where equal scores rank by ascending item index.
    pub rank: u32,
    /// Number of items with a higher score.
    pub above: u32,
    /// Number of other items with the same score.
    pub tied: u32,
}

impl RankedTarget {
    /// From counts over the unmasked items: those that score higher, those that tie and have a lower index, and all others
    /// that tie. A GPU may count; what is made of the counts stays here.
    pub fn from_counts(item: u32, above: u32, tied_before: u32, tied: u32) -> Self {
        Self {
            item,
            rank: above + tied_before + 1,
            above,
            tied,
        }
    }

    /// Its mean rank if ties were broken at random: above + 1 + tied/2.
    pub fn expected_rank(&self) -> f64 {
        f64::from(self.above) + 1.0 + f64::from(self.tied) / 2.0
    }
}

/// How much ties matter for a set of targets.
///
/// ```
/// use eval_core::scores::{TieSummary, rank_by_scores};
/// // Items 1, 2 and 3 tie; target 1 has the lowest index of them, so the fixed rule favours it.
/// let ranked = rank_by_scores(&[9.0, 5.0, 5.0, 5.0], &[], &[1, 0])?;
/// let ties = TieSummary::of(&ranked);
/// assert_eq!((ties.targets, ties.tied_share), (2, 0.5));
/// assert_eq!((ties.mean_rank, ties.mean_expected_rank), ((2.0 + 1.0) / 2.0, (3.0 + 1.0) / 2.0));
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TieSummary {
    /// Number of targets.
    pub targets: usize,
    /// Share of them that tie with another item, in `0.0..=1.0`.
    pub tied_share: f64,
    /// Mean rank by the fixed rule.
    pub mean_rank: f64,
    /// Mean rank if ties were broken at random.
    pub mean_expected_rank: f64,
}

impl TieSummary {
    /// Over these targets; all 0 of none.
    pub fn of<'a>(targets: impl IntoIterator<Item = &'a RankedTarget>) -> Self {
        let mut sums = Self::default();
        for target in targets {
            sums.targets += 1;
            sums.tied_share += f64::from(u8::from(target.tied > 0));
            sums.mean_rank += f64::from(target.rank);
            sums.mean_expected_rank += target.expected_rank();
        }
        let targets = sums.targets.max(1) as f64;
        Self {
            targets: sums.targets,
            tied_share: sums.tied_share / targets,
            mean_rank: sums.mean_rank / targets,
            mean_expected_rank: sums.mean_expected_rank / targets,
        }
    }
}

/// An item of a top list.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredItem<S = f32> {
    /// The item.
    pub item: u32,
    /// Its score.
    pub score: S,
}

/// The ranks of `targets` among all items, one score an item; in the order of `targets`.
///
/// ```
/// use eval_core::scores::rank_by_scores;
/// let scores = [0.2f32, 0.9, 0.5, 0.5];
/// let ranked = rank_by_scores(&scores, &[1], &[3])?; // item 1 is masked, item 2 ties and comes first
/// assert_eq!((ranked[0].rank, ranked[0].above, ranked[0].tied), (2, 0, 1));
/// assert_eq!(ranked[0].expected_rank(), 1.5);
/// # Ok::<(), eval_core::Error>(())
/// ```
///
/// # Errors
/// A score that is not finite, a target or masked item beyond the catalogue, a target that is masked.
pub fn rank_by_scores<S: Score>(scores: &[S], masked: &[u32], targets: &[u32]) -> Result<Vec<RankedTarget>, Error> {
    check_scores(scores)?;
    let masked = checked_mask(scores.len(), masked)?;
    targets
        .iter()
        .map(|&target| rank_one(scores, &masked, target))
        .collect()
}

/// The best `cutoff` unmasked items, best first; fewer when fewer are unmasked.
///
/// ```
/// use eval_core::{Cutoff, scores::top_by_scores};
/// let top = top_by_scores(&[0.2, 0.9, 0.5, 0.5], &[1], Cutoff::new(10)?)?;
/// assert_eq!(top.iter().map(|scored| scored.item).collect::<Vec<_>>(), [2, 3, 0]);
/// # Ok::<(), eval_core::Error>(())
/// ```
///
/// # Errors
/// A score that is not finite, a masked item beyond the catalogue.
pub fn top_by_scores<S: Score>(scores: &[S], masked: &[u32], cutoff: Cutoff) -> Result<Vec<ScoredItem<S>>, Error> {
    check_scores(scores)?;
    let masked = checked_mask(scores.len(), masked)?;
    let places = cutoff.get().min(scores.len());
    let mut best: Vec<ScoredItem<S>> = Vec::with_capacity(2 * places.max(32));
    let mut worst_kept = None;
    for (item, &score) in (0u32..).zip(scores) {
        // Items come by ascending index, so one that only ties with the worst kept has lost to it.
        if worst_kept.is_some_and(|worst| score <= worst) || masked.binary_search(&item).is_ok() {
            continue;
        }
        best.push(ScoredItem { item, score });
        if best.len() == best.capacity() {
            best.select_nth_unstable_by(places - 1, better_first);
            best.truncate(places);
            worst_kept = Some(best[places - 1].score);
        }
    }
    best.sort_unstable_by(better_first);
    best.truncate(places);
    Ok(best)
}

/// The order of a ranking: score descending, then item index ascending.
fn better_first<S: Score>(a: &ScoredItem<S>, b: &ScoredItem<S>) -> Ordering {
    b.score
        .partial_cmp(&a.score)
        .unwrap_or(Ordering::Equal)
        .then(a.item.cmp(&b.item))
}

fn rank_one<S: Score>(scores: &[S], masked: &[u32], target: u32) -> Result<RankedTarget, Error> {
    let own = *scores
        .get(target as usize)
        .ok_or_else(|| unknown("target", target, scores.len()))?;
    if masked.binary_search(&target).is_ok() {
        return Err(ErrorKind::MaskedTarget { item: target }.into());
    }
    let higher = |scores: &[S]| scores.iter().map(|&score| u32::from(score > own)).sum::<u32>();
    let equal = |scores: &[S]| scores.iter().map(|&score| u32::from(score == own)).sum::<u32>();
    let (before, after) = scores.split_at(target as usize);
    let mut above = higher(scores);
    let mut tied_before = equal(before);
    let mut tied = tied_before + equal(&after[1..]);
    // Counting everything and taking the few masked ones off again keeps the loop over all items free of branches.
    for &item in masked {
        let score = scores[item as usize];
        above -= u32::from(score > own);
        tied -= u32::from(score == own);
        tied_before -= u32::from(score == own && item < target);
    }
    Ok(RankedTarget::from_counts(target, above, tied_before, tied))
}

fn check_scores<S: Score>(scores: &[S]) -> Result<(), Error> {
    if scores.len() > u32::MAX as usize {
        return Err(ErrorKind::TooManyRows { rows: scores.len() }.into());
    }
    // A fold over all of them has no branch, so it is quicker than a search that nearly always finds nothing.
    let finite = scores
        .iter()
        .fold(true, |finite, &score| finite & Into::<f64>::into(score).is_finite());
    if finite {
        return Ok(());
    }
    let item = scores
        .iter()
        .position(|&score| !Into::<f64>::into(score).is_finite())
        .unwrap_or_default();
    Err(ErrorKind::ScoreNotFinite {
        item,
        score: scores[item].into(),
    }
    .into())
}

/// The mask in ascending order, each item once.
fn checked_mask(items: usize, masked: &[u32]) -> Result<Vec<u32>, Error> {
    let mut masked = masked.to_vec();
    masked.sort_unstable();
    masked.dedup();
    match masked.last() {
        Some(&last) if last as usize >= items => Err(unknown("masked item", last, items)),
        _ => Ok(masked),
    }
}

fn unknown(what: &'static str, item: u32, items: usize) -> Error {
    ErrorKind::UnknownItem { what, item, items }.into()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Stream;

    fn items(top: &[ScoredItem<f64>]) -> Vec<u32> {
        top.iter().map(|scored| scored.item).collect()
    }

    /// The rule said in another way: sort everything.
    fn sorted(scores: &[f64], masked: &[u32]) -> Vec<u32> {
        let mut order: Vec<u32> = (0..scores.len() as u32).filter(|item| !masked.contains(item)).collect();
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        order
    }

    #[test]
    fn ranks_and_top_lists_agree_with_a_full_sort() {
        for case in 0..200 {
            let stream = Stream::new(7, case);
            let count = 1 + stream.below(0, 300);
            // Few distinct values, so that most items tie.
            let scores: Vec<f64> = (0..count).map(|i| stream.below(1 + i as u64, 12) as f64).collect();
            let masked: Vec<u32> = (0..stream.below(500, 9))
                .map(|i| stream.below(501 + i as u64, count) as u32)
                .collect();
            let order = sorted(&scores, &masked);
            let ranked = rank_by_scores(&scores, &masked, &order).unwrap();
            assert!(ranked.iter().zip(1..).all(|(target, rank)| target.rank == rank));
            for places in [1, 5, 64, 1000] {
                let top = top_by_scores(&scores, &masked, Cutoff::new(places).unwrap()).unwrap();
                assert_eq!(items(&top), order[..places.min(order.len())]);
            }
        }
    }

    #[test]
    fn a_masked_item_never_appears_even_past_the_unmasked_ones() {
        let top = top_by_scores(&[3.0, 2.0, 1.0], &[0, 2, 0], Cutoff::new(3).unwrap()).unwrap();
        assert_eq!(items(&top), [1]);
        assert!(top_by_scores(&[3.0], &[0], Cutoff::new(3).unwrap()).unwrap().is_empty());
    }

    #[test]
    fn a_masked_target_is_an_error_that_names_it() {
        let error = rank_by_scores(&[3.0, 2.0], &[1], &[1]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::MaskedTarget { item: 1 }));
    }

    #[test]
    fn a_score_that_is_not_finite_names_the_item() {
        let error = rank_by_scores(&[3.0, f64::NAN], &[], &[0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::ScoreNotFinite { item: 1, .. }));
        assert!(top_by_scores(&[f32::INFINITY], &[], Cutoff::new(1).unwrap()).is_err());
    }

    #[test]
    fn items_beyond_the_catalogue_are_errors() {
        assert_eq!(
            rank_by_scores(&[1.0], &[], &[1]).unwrap_err().to_string(),
            "target 1 is not in the catalogue of 1 items"
        );
        assert!(rank_by_scores(&[1.0], &[1], &[0]).is_err());
    }

    #[test]
    fn negative_zero_ties_with_zero() {
        let ranked = rank_by_scores(&[-0.0, 0.0], &[], &[0, 1]).unwrap();
        assert_eq!((ranked[0].rank, ranked[1].rank, ranked[0].tied), (1, 2, 1));
    }
}
