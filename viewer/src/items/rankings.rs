//! Who ranks the items: profiles of a checkpoint, or a baseline; and how often each shows them.

use std::fmt::{self, Display};
use std::sync::Arc;

use eval_core::Cutoff;
use eval_core::report::{Exposure, Manifest};

use crate::load::Source;
use crate::overview::best_checkpoint;
use crate::reading::Reading;
use crate::state::{RwSignal, StoredValue};

/// What top lists are counted of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Lists {
    /// The generated profiles of the checkpoint.
    #[default]
    Generated,
    /// The reference profiles.
    Reference,
    /// A baseline, by name.
    Baseline(String),
}

impl Lists {
    /// Reads what [`Display`] writes; anything else is the generated profiles.
    pub fn parse(text: &str) -> Self {
        match text.split_once(':') {
            Some(("baseline", name)) => Self::Baseline(name.to_owned()),
            _ if text == "reference" => Self::Reference,
            _ => Self::Generated,
        }
    }

    /// What it is called.
    pub fn name(&self) -> String {
        match self {
            Self::Generated => "generated profiles".to_owned(),
            Self::Reference => "reference profiles".to_owned(),
            Self::Baseline(name) => name.clone(),
        }
    }
}

impl Display for Lists {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated => f.write_str("generated"),
            Self::Reference => f.write_str("reference"),
            Self::Baseline(name) => write!(f, "baseline:{name}"),
        }
    }
}

/// The checkpoints of which the report counts recommendations: numbers in the manifest.
pub fn with_exposure(manifest: &Manifest) -> Vec<usize> {
    let checkpoints = manifest.checkpoints.iter().enumerate();
    checkpoints
        .filter(|(_, checkpoint)| checkpoint.exposure.is_some())
        .map(|(number, _)| number)
        .collect()
}

/// The checkpoint of that name among `known`; without a name the best, or the last of them. `None` where there is none.
///
/// # Errors
/// In words for the page: `what` of the checkpoint of that name is not in the report.
pub fn chosen(named: Option<&str>, known: &[usize], what: &str, manifest: &Manifest) -> Result<Option<usize>, String> {
    let name_of = |number: &usize| manifest.checkpoints[*number].name.as_str();
    let Some(&last) = known.last() else {
        return Ok(None);
    };
    match named {
        None => Ok(Some(
            best_checkpoint(manifest)
                .filter(|best| known.contains(best))
                .unwrap_or(last),
        )),
        Some(name) => match known.iter().find(|number| name_of(number) == name) {
            Some(&found) => Ok(Some(found)),
            None => {
                let names: Vec<&str> = known.iter().map(name_of).collect();
                Err(format!(
                    "The report has no {what} of a checkpoint {name:?}: expected one of {}.",
                    names.join(", ")
                ))
            }
        },
    }
}

/// How often items are shown, as far as the files are there.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    checkpoint: Option<Arc<Exposure>>,
    /// Names of baselines and their counts, in the order of the manifest.
    baselines: Vec<(String, Option<Arc<Exposure>>)>,
}

impl Counted {
    /// The cutoffs, ascending.
    pub fn cutoffs(&self) -> Vec<Cutoff> {
        self.checkpoint
            .as_ref()
            .map_or_else(Vec::new, |exposure| exposure.cutoffs.clone())
    }

    /// What lists are counted of.
    pub fn lists(&self) -> Vec<Lists> {
        let own = self.checkpoint.iter();
        let reference = own.clone().filter(|exposure| exposure.reference.is_some());
        let baselines = self.baselines.iter().filter(|(_, exposure)| exposure.is_some());
        let generated = own.map(|_| Lists::Generated);
        generated
            .chain(reference.map(|_| Lists::Reference))
            .chain(baselines.map(|(name, _)| Lists::Baseline(name.clone())))
            .collect()
    }

    fn of(&self, lists: &Lists) -> Option<&Exposure> {
        match lists {
            Lists::Baseline(name) => {
                let found = self.baselines.iter().find(|(known, _)| known == name);
                found?.1.as_deref()
            }
            _ => self.checkpoint.as_deref(),
        }
    }

    /// In how many top lists each item stands.
    pub fn counts(&self, lists: &Lists, cutoff: Cutoff) -> Option<&[u32]> {
        let exposure = self.of(lists)?;
        match lists {
            Lists::Reference => exposure.reference_at(cutoff),
            _ => exposure.at(cutoff),
        }
    }

    /// An item's mean rank in the lists of the largest cutoff that have it.
    pub fn mean_rank(&self, lists: &Lists, item: u32) -> Option<f64> {
        match lists {
            // Sums of ranks are kept for generated profiles alone.
            Lists::Reference => None,
            _ => self.of(lists)?.mean_rank(item as usize),
        }
    }
}

/// How often items are shown by a checkpoint and by the baselines, and the reading of it.
#[derive(Clone, Copy, Debug)]
pub struct Exposures {
    counted: StoredValue<Counted>,
    /// Changes with the counts.
    pub version: RwSignal<u32>,
    /// The reading of the files.
    pub reading: Reading,
}

impl Exposures {
    /// Reads the counts of a checkpoint and of all baselines that have some.
    pub fn new(source: &Source, checkpoint: usize) -> Self {
        let baselines = &source.manifest().baselines;
        let counted = StoredValue::new(Counted {
            checkpoint: None,
            baselines: baselines.iter().map(|baseline| (baseline.name.clone(), None)).collect(),
        });
        let with_counts: Vec<usize> = (0..baselines.len())
            .filter(|&baseline| baselines[baseline].exposure.is_some())
            .collect();
        let version = RwSignal::new(0);
        let needed = 1 + with_counts.len();
        let source = source.clone();
        let read = move |file: usize| {
            let source = source.clone();
            let baseline = file.checked_sub(1).and_then(|place| with_counts.get(place).copied());
            Box::pin(async move {
                match baseline {
                    None => {
                        let exposure = source.exposure(checkpoint).await?;
                        counted.try_update_value(|counted| counted.checkpoint = Some(exposure));
                    }
                    Some(baseline) => {
                        let exposure = source.baseline_exposure(baseline).await?;
                        counted.try_update_value(|counted| counted.baselines[baseline].1 = Some(exposure));
                    }
                }
                version.try_update(|version| *version += 1);
                Ok(())
            }) as _
        };
        let reading = Reading::new(needed, Box::new(read));
        // They are few, and the page is about them.
        reading.start();
        Self {
            counted,
            version,
            reading,
        }
    }

    /// Uses the counts; tracked.
    pub fn with<T>(self, use_it: impl FnOnce(&Counted) -> T) -> T {
        self.version.track();
        self.counted.with_value(use_it)
    }
}

#[cfg(test)]
pub(super) mod samples {
    #![allow(clippy::unwrap_used)]

    use super::*;

    pub(crate) fn cutoff(places: usize) -> Cutoff {
        Cutoff::new(places).unwrap()
    }

    /// Four items: three lists of generated profiles, two of reference profiles, one list of a baseline; one baseline has none.
    pub(crate) fn counted() -> Counted {
        let cutoffs = [cutoff(1), cutoff(2)];
        let exposure = Exposure::of(4, &cutoffs, &[[3, 0], [3, 1], [0, 3]], Some(&[[2, 0], [2, 1]])).unwrap();
        let popular = Exposure::of(4, &cutoffs, &[[1, 2]], None::<&[[u32; 2]]>).unwrap();
        Counted {
            checkpoint: Some(Arc::new(exposure)),
            baselines: vec![("random".into(), None), ("popular".into(), Some(Arc::new(popular)))],
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::report::Checkpoint;

    use super::samples::{counted, cutoff};
    use super::*;

    #[test]
    fn lists_read_back_from_their_addresses() {
        for lists in [Lists::Generated, Lists::Reference, Lists::Baseline("item:knn".into())] {
            assert_eq!(Lists::parse(&lists.to_string()), lists);
        }
        assert_eq!(Lists::parse("nonsense"), Lists::Generated);
    }

    #[test]
    fn counts_are_those_of_the_lists() {
        let counted = counted();
        let popular = Lists::Baseline("popular".into());
        assert_eq!(counted.lists(), [Lists::Generated, Lists::Reference, popular.clone()]);
        assert_eq!(counted.counts(&Lists::Generated, cutoff(1)).unwrap(), [1, 0, 0, 2]);
        assert_eq!(counted.counts(&Lists::Reference, cutoff(2)).unwrap(), [1, 1, 2, 0]);
        assert_eq!(counted.counts(&popular, cutoff(1)).unwrap(), [0, 1, 0, 0]);
        assert_eq!(counted.counts(&Lists::Generated, cutoff(7)), None);
        assert_eq!(counted.counts(&Lists::Baseline("random".into()), cutoff(1)), None);
        assert_eq!(counted.mean_rank(&Lists::Generated, 3), Some(4.0 / 3.0));
        assert_eq!(
            (counted.mean_rank(&Lists::Reference, 2), counted.mean_rank(&popular, 0)),
            (None, None)
        );
    }

    #[test]
    fn a_checkpoint_is_chosen_among_those_that_have_what_is_shown() {
        let checkpoint = |name: &str, exposure: Option<&str>| Checkpoint {
            name: name.into(),
            exposure: exposure.map(str::to_owned),
            ..Checkpoint::default()
        };
        let manifest = Manifest {
            checkpoints: vec![
                checkpoint("a", Some("x")),
                checkpoint("b", Some("y")),
                checkpoint("c", None),
            ],
            ..Manifest::default()
        };
        let known = with_exposure(&manifest);
        let choose = |name| chosen(name, &known, "counts", &manifest);
        assert_eq!(choose(None), Ok(Some(1)), "the best has none, so it is the last");
        assert_eq!(choose(Some("a")), Ok(Some(0)));
        let problem = "The report has no counts of a checkpoint \"c\": expected one of a, b.";
        assert_eq!(choose(Some("c")), Err(problem.to_owned()));
        assert_eq!(chosen(Some("c"), &[], "counts", &manifest), Ok(None));
    }
}
