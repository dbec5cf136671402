use crate::scores::RankedTarget;
use crate::{Error, ErrorKind};

/// The rank of a target that a ranking does not hold: it is never a hit and gains nothing.
pub const NOT_RANKED: u32 = u32::MAX;

/// The largest relevance grade; 2^62 − 1 is the largest gain that is computed.
pub const MAX_GRADE: u32 = 62;

/// Item indices, best first. An item that is listed twice stands at its first place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranking(Vec<u32>);

impl Ranking {
    /// The items, best first.
    pub fn items(&self) -> &[u32] {
        &self.0
    }
}

impl From<Vec<u32>> for Ranking {
    fn from(items: Vec<u32>) -> Self {
        Self(items)
    }
}

impl<const N: usize> From<[u32; N]> for Ranking {
    fn from(items: [u32; N]) -> Self {
        Self(items.into())
    }
}

/// The items that a user wants, each with a relevance grade (1 unless given). A repeated item counts once, at its first grade.
///
/// ```
/// use eval_core::{Ranking, Targets};
/// let ranks = Targets::from([4, 7]).ranks_in(&Ranking::from([3, 1, 4]));
/// assert_eq!(ranks.len(), 2); // 4 is third, 7 is not ranked
/// assert_eq!(ranks.ranked().collect::<Vec<_>>(), [3]);
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Targets(Vec<(u32, u32)>);

impl Targets {
    /// Items with grades, `(item, grade)`. A grade of 0 means "not relevant", so that item is no target.
    ///
    /// # Errors
    /// [`ErrorKind::GradeTooLarge`] above [`MAX_GRADE`].
    pub fn graded(items: impl IntoIterator<Item = (u32, u32)>) -> Result<Self, Error> {
        let mut targets = Self::default();
        for (item, grade) in items {
            check_grade(grade)?;
            targets.push(item, grade);
        }
        targets.0.retain(|&(_, grade)| grade > 0);
        Ok(targets)
    }

    /// Number of targets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no target.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where `ranking` has them; [`NOT_RANKED`] for those that it does not hold.
    pub fn ranks_in(&self, ranking: &Ranking) -> TargetRanks {
        let place = |item| ranking.0.iter().position(|&other| other == item);
        let rank = |item| place(item).map_or(NOT_RANKED, |place| u32::try_from(place + 1).unwrap_or(NOT_RANKED));
        TargetRanks::sorted(self.0.iter().map(|&(item, grade)| (rank(item), grade)).collect())
    }

    fn push(&mut self, item: u32, grade: u32) {
        if self.0.iter().all(|&(other, _)| other != item) {
            self.0.push((item, grade));
        }
    }
}

impl From<Vec<u32>> for Targets {
    fn from(items: Vec<u32>) -> Self {
        let mut targets = Self::default();
        items.into_iter().for_each(|item| targets.push(item, 1));
        targets
    }
}

impl<const N: usize> From<[u32; N]> for Targets {
    fn from(items: [u32; N]) -> Self {
        Vec::from(items).into()
    }
}

/// The ranks of one user's targets, counted from 1: all that any metric needs, computed once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TargetRanks {
    /// `(rank, grade)`, by ascending rank.
    by_rank: Vec<(u32, u32)>,
    /// The grades alone, largest first: the ideal ranking.
    ideal: Vec<u32>,
}

impl TargetRanks {
    /// From the ranks of equally relevant targets, in any order; [`NOT_RANKED`] stands for one that has none.
    ///
    /// # Errors
    /// [`ErrorKind::ZeroRank`], and [`ErrorKind::RepeatedRank`] for a rank given twice.
    pub fn new(ranks: &[u32]) -> Result<Self, Error> {
        Self::graded(ranks.iter().map(|&rank| (rank, 1)))
    }

    /// From `(rank, grade)` of each target; one of grade 0 is no target.
    ///
    /// # Errors
    /// Those of [`TargetRanks::new`], and [`ErrorKind::GradeTooLarge`] above [`MAX_GRADE`].
    pub fn graded(targets: impl IntoIterator<Item = (u32, u32)>) -> Result<Self, Error> {
        let mut by_rank = Vec::new();
        for (place, (rank, grade)) in targets.into_iter().enumerate() {
            if rank == 0 {
                return Err(ErrorKind::ZeroRank { place }.into());
            }
            check_grade(grade)?;
            if grade > 0 {
                by_rank.push((rank, grade));
            }
        }
        let ranks = Self::sorted(by_rank);
        let repeated = ranks
            .by_rank
            .windows(2)
            .find(|pair| pair[0].0 == pair[1].0 && pair[0].0 != NOT_RANKED);
        match repeated {
            Some(pair) => Err(ErrorKind::RepeatedRank { rank: pair[0].0 }.into()),
            None => Ok(ranks),
        }
    }

    /// From what [`retrieval`](crate::retrieval) or [`scores`](crate::scores) found, by the fixed rule for ties.
    ///
    /// # Errors
    /// [`ErrorKind::RepeatedRank`] when one target was ranked twice.
    pub fn from_ranked(targets: &[RankedTarget]) -> Result<Self, Error> {
        Self::graded(targets.iter().map(|target| (target.rank, 1)))
    }

    fn sorted(mut by_rank: Vec<(u32, u32)>) -> Self {
        by_rank.sort_unstable();
        let mut ideal: Vec<u32> = by_rank.iter().map(|&(_, grade)| grade).collect();
        // Sorted and turned round: the sort is one that others use too, and the viewer has to be small.
        ideal.sort_unstable();
        ideal.reverse();
        Self { by_rank, ideal }
    }

    /// Number of targets, those without a rank included.
    pub fn len(&self) -> usize {
        self.by_rank.len()
    }

    /// Whether there is no target; then no metric is defined.
    pub fn is_empty(&self) -> bool {
        self.by_rank.is_empty()
    }

    /// The ranks in ascending order, without those that are [`NOT_RANKED`].
    pub fn ranked(&self) -> impl Iterator<Item = u32> {
        self.graded_hits(usize::MAX).map(|(rank, _)| rank)
    }

    /// `(rank, grade)` of the targets in the first `places`, by ascending rank.
    pub(crate) fn graded_hits(&self, places: usize) -> impl Iterator<Item = (u32, u32)> {
        let within = move |rank: u32| rank != NOT_RANKED && rank as usize <= places;
        self.by_rank.iter().copied().take_while(move |&(rank, _)| within(rank))
    }

    /// The grades in the order of an ideal ranking.
    pub(crate) fn ideal_grades(&self) -> &[u32] {
        &self.ideal
    }
}

fn check_grade(grade: u32) -> Result<(), Error> {
    match grade <= MAX_GRADE {
        true => Ok(()),
        false => Err(ErrorKind::GradeTooLarge { grade, max: MAX_GRADE }.into()),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_rank_of_zero_and_a_repeated_rank_are_errors() {
        assert!(matches!(
            TargetRanks::new(&[3, 0]).unwrap_err().kind(),
            ErrorKind::ZeroRank { place: 1 }
        ));
        assert!(matches!(
            TargetRanks::new(&[3, 1, 3]).unwrap_err().kind(),
            ErrorKind::RepeatedRank { rank: 3 }
        ));
        assert_eq!(TargetRanks::new(&[NOT_RANKED, NOT_RANKED]).unwrap().len(), 2);
    }

    #[test]
    fn a_repeated_target_counts_once() {
        assert_eq!(Targets::from([5, 5, 2]).len(), 2);
    }

    #[test]
    fn an_item_of_grade_zero_is_no_target() {
        assert_eq!(Targets::graded([(1, 0), (2, 3)]).unwrap().len(), 1);
        assert!(Targets::graded([(1, MAX_GRADE + 1)]).is_err());
    }
}
