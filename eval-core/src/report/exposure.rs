//! How often a checkpoint or a baseline shows each item.

use serde::{Deserialize, Serialize};

use super::check::{expect, inconsistent};
use super::{Checkpoint, Manifest};
use crate::{Cutoff, Error, ErrorKind};

/// `exposure.json`: for each item, in how many top lists it stands. [`exposure`](crate::exposure) makes figures of it.
///
/// ```
/// use eval_core::Cutoff;
/// use eval_core::report::Exposure;
///
/// // Two top lists over a catalogue of four items.
/// let exposure = Exposure::of(4, &[Cutoff::new(1)?, Cutoff::new(2)?], &[[3, 0], [3, 1]], None::<&[[u32; 2]]>)?;
/// assert_eq!(exposure.generated, [[0, 0, 0, 2], [1, 1, 0, 2]]);
/// assert_eq!(exposure.rank_sum, [2, 2, 0, 2]);
/// assert_eq!(exposure.mean_rank(0), Some(2.0));
/// assert_eq!(exposure.mean_rank(2), None);
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exposure {
    /// How long a top list is taken to be, ascending.
    pub cutoffs: Vec<Cutoff>,
    /// `[cutoffs][items]`: in how many top lists of generated profiles each item stands, counted over users × profiles; of a
    /// baseline, over users.
    pub generated: Vec<Vec<u32>>,
    /// `[items]`: the sum of an item's ranks, counted from 1, in those of the largest cutoff.
    pub rank_sum: Vec<u64>,
    /// `[cutoffs][items]` for the reference profiles; `None` where they were not evaluated.
    pub reference: Option<Vec<Vec<u32>>>,
}

impl Exposure {
    /// Counts items in top lists, each best first; `cutoffs` in any order.
    ///
    /// # Errors
    /// [`ErrorKind::UnknownItem`] for one beyond `items`.
    pub fn of<List: AsRef<[u32]>>(
        items: usize,
        cutoffs: &[Cutoff],
        generated: &[List],
        reference: Option<&[List]>,
    ) -> Result<Self, Error> {
        let mut cutoffs = cutoffs.to_vec();
        cutoffs.sort_unstable();
        cutoffs.dedup();
        let (counts, rank_sum) = count(items, &cutoffs, generated)?;
        let reference = reference.map(|lists| count(items, &cutoffs, lists)).transpose()?;
        Ok(Self {
            cutoffs,
            generated: counts,
            rank_sum,
            reference: reference.map(|(counts, _)| counts),
        })
    }

    /// The counts of generated profiles at that cutoff.
    pub fn at(&self, cutoff: Cutoff) -> Option<&[u32]> {
        self.place(cutoff)
            .and_then(|place| self.generated.get(place))
            .map(Vec::as_slice)
    }

    /// The counts of reference profiles at that cutoff.
    pub fn reference_at(&self, cutoff: Cutoff) -> Option<&[u32]> {
        let place = self.place(cutoff)?;
        self.reference.as_ref()?.get(place).map(Vec::as_slice)
    }

    fn place(&self, cutoff: Cutoff) -> Option<usize> {
        self.cutoffs.binary_search(&cutoff).ok()
    }

    /// The mean rank of an item in the top lists of the largest cutoff that show it; `None` where none does.
    pub fn mean_rank(&self, item: usize) -> Option<f64> {
        let shown = *self.generated.last()?.get(item)?;
        let sum = *self.rank_sum.get(item)?;
        (shown > 0).then(|| sum as f64 / f64::from(shown))
    }

    /// Whether this can be the checkpoint's: a count for every item of the catalogue at every cutoff, and none above the number
    /// of lists.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`].
    pub fn check(&self, manifest: &Manifest, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.check_lists(manifest, checkpoint.profiles_per_user)
    }

    /// Whether this can be a baseline's, which has one list a user.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`].
    pub fn check_baseline(&self, manifest: &Manifest) -> Result<(), Error> {
        self.check_lists(manifest, 1)
    }

    fn check_lists(&self, manifest: &Manifest, profiles: usize) -> Result<(), Error> {
        if let Some(pair) = self.cutoffs.windows(2).find(|pair| pair[0] >= pair[1]) {
            return inconsistent(
                "exposure.cutoffs".to_owned(),
                &format_args!("a cutoff above {}", pair[0]),
                &pair[1],
            );
        }
        let (items, users) = (manifest.items.count, manifest.users.count);
        expect("exposure.rank_sum".to_owned(), &items, &self.rank_sum.len())?;
        self.check_counts("generated", &self.generated, items, users.saturating_mul(profiles))?;
        match &self.reference {
            Some(reference) => self.check_counts("reference", reference, items, users),
            None => Ok(()),
        }
    }

    fn check_counts(&self, name: &str, counts: &[Vec<u32>], items: usize, lists: usize) -> Result<(), Error> {
        expect(format!("exposure.{name}"), &self.cutoffs.len(), &counts.len())?;
        for (place, counts) in counts.iter().enumerate() {
            let field = format!("exposure.{name}[{place}]");
            expect(field.clone(), &items, &counts.len())?;
            if let Some(count) = counts.iter().find(|&&count| count as usize > lists) {
                return inconsistent(field, &format_args!("counts of at most {lists} lists"), count);
            }
        }
        Ok(())
    }
}

type Counts = Vec<Vec<u32>>;

/// Counts by cutoff, which ascend, and sums of ranks.
fn count<List: AsRef<[u32]>>(items: usize, cutoffs: &[Cutoff], lists: &[List]) -> Result<(Counts, Vec<u64>), Error> {
    // At first each cutoff counts only the places that the one before does not have.
    let mut counts = vec![vec![0u32; items]; cutoffs.len()];
    let mut rank_sum = vec![0u64; items];
    for list in lists {
        let mut place = 0;
        for (rank, &item) in (1usize..).zip(list.as_ref()) {
            while cutoffs.get(place).is_some_and(|cutoff| rank > cutoff.get()) {
                place += 1;
            }
            let Some(counts) = counts.get_mut(place) else { break };
            let unknown = ErrorKind::UnknownItem {
                what: "item of a top list",
                item,
                items,
            };
            let (Some(count), Some(sum)) = (counts.get_mut(item as usize), rank_sum.get_mut(item as usize)) else {
                return Err(unknown.into());
            };
            *count += 1;
            *sum += rank as u64;
        }
    }
    for place in 1..counts.len() {
        let (before, here) = counts.split_at_mut(place);
        here[0]
            .iter_mut()
            .zip(&before[place - 1])
            .for_each(|(here, before)| *here += before);
    }
    Ok((counts, rank_sum))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Chunks, read_chunk, write_json};
    use super::*;

    fn cutoffs(of: &[usize]) -> Vec<Cutoff> {
        of.iter().map(|&cutoff| Cutoff::new(cutoff).unwrap()).collect()
    }

    /// Two users with two profiles each over three items.
    fn exposure() -> Exposure {
        let generated = [vec![2, 1, 0], vec![2, 0, 1], vec![1, 2, 0], vec![2]];
        let reference = [vec![0, 1, 2], vec![0, 2]];
        Exposure::of(3, &cutoffs(&[3, 1]), &generated, Some(&reference)).unwrap()
    }

    fn manifest() -> Manifest {
        Manifest {
            items: Chunks::in_files("items", 3, 2),
            users: Chunks::in_files("users", 2, 2),
            checkpoints: vec![Checkpoint {
                profiles_per_user: 2,
                ..Checkpoint::default()
            }],
            ..Manifest::default()
        }
    }

    #[test]
    fn lists_are_counted_up_to_each_cutoff() {
        let exposure = exposure();
        assert_eq!(exposure.cutoffs, cutoffs(&[1, 3]));
        assert_eq!(exposure.at(exposure.cutoffs[0]).unwrap(), [0, 1, 3]);
        assert_eq!(exposure.at(exposure.cutoffs[1]).unwrap(), [3, 3, 4]);
        assert_eq!(exposure.reference_at(exposure.cutoffs[0]).unwrap(), [2, 0, 0]);
        assert_eq!(exposure.reference_at(exposure.cutoffs[1]).unwrap(), [2, 1, 2]);
        assert_eq!(exposure.rank_sum, [3 + 2 + 3, 2 + 3 + 1, 1 + 1 + 2 + 1]);
        assert_eq!(exposure.mean_rank(1), Some(2.0));
        assert_eq!(exposure.at(cutoffs(&[2])[0]), None);
    }

    #[test]
    fn places_beyond_the_largest_cutoff_do_not_count() {
        let lists = [[0, 1, 2]];
        let exposure = Exposure::of(3, &cutoffs(&[2]), &lists, None).unwrap();
        assert_eq!(
            (&exposure.generated[0][..], &exposure.rank_sum[..]),
            (&[1, 1, 0][..], &[1, 2, 0][..])
        );
        let error = Exposure::of(1, &cutoffs(&[2]), &lists, None).unwrap_err();
        assert_eq!(
            error.to_string(),
            "item of a top list 1 is not in the catalogue of 1 items"
        );
    }

    #[test]
    fn a_file_reads_back_and_contradictions_name_their_field() {
        let mut file = Vec::new();
        write_json(&mut file, &exposure()).unwrap();
        let manifest = manifest();
        let read: Exposure = read_chunk(&file[..]).unwrap();
        read.check(&manifest, &manifest.checkpoints[0]).unwrap();
        assert_eq!(read, exposure());
        let message = |break_it: fn(&mut Exposure)| {
            let mut broken = exposure();
            break_it(&mut broken);
            broken
                .check(&manifest, &manifest.checkpoints[0])
                .unwrap_err()
                .to_string()
        };
        assert_eq!(
            message(|exposure| exposure.cutoffs.reverse()),
            "exposure.cutoffs: expected a cutoff above 3, found 1"
        );
        assert_eq!(
            message(|exposure| exposure.rank_sum.push(1)),
            "exposure.rank_sum: expected 3, found 4"
        );
        assert_eq!(
            message(|exposure| exposure.generated.truncate(1)),
            "exposure.generated: expected 2, found 1"
        );
        assert_eq!(
            message(|exposure| exposure.reference.as_mut().unwrap()[1][2] = 3),
            "exposure.reference[1]: expected counts of at most 2 lists, found 3"
        );
        let error = exposure().check_baseline(&manifest).unwrap_err();
        assert_eq!(
            error.to_string(),
            "exposure.generated[0]: expected counts of at most 2 lists, found 3"
        );
    }
}
