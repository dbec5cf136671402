//! What the page is set to, as its address has it.

use std::ops::Range;

use eval_core::Cutoff;
use eval_core::report::{Embeddings, F16File, Found, Manifest};

use crate::overview::best_checkpoint;
use crate::user::Profile;
use crate::worker::row_of;

/// Names of the parameters.
pub mod parameter {
    /// Which items of the history are not masked: `all`, or places counted from 1 with commas between them.
    pub const UNMASKED: &str = "unmasked";
    /// `reversed` for the history from its end.
    pub const ORDER: &str = "order";
    /// How many places count.
    pub const CUTOFF: &str = "k";
    /// The profile.
    pub const PROFILE: &str = "profile";
}

/// Which items of a history are masked, and in which order they are given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mask {
    /// For each place of the history.
    pub masked: Vec<bool>,
    /// Whether the last comes first.
    pub reversed: bool,
}

impl Mask {
    /// Reads the parameters [`UNMASKED`](parameter::UNMASKED) and [`ORDER`](parameter::ORDER), for a history of so many items.
    pub fn read(unmasked: Option<&str>, order: Option<&str>, history: usize) -> Self {
        let mut masked = vec![true; history];
        match unmasked {
            Some("all") => masked.fill(false),
            places => {
                let places = places.unwrap_or_default().split(',');
                for place in places.filter_map(|place| place.parse::<usize>().ok()) {
                    if let Some(masked) = place.checked_sub(1).and_then(|place| masked.get_mut(place)) {
                        *masked = false;
                    }
                }
            }
        }
        Self {
            masked,
            reversed: order == Some("reversed"),
        }
    }

    /// The value of [`UNMASKED`](parameter::UNMASKED) with a place masked or not; `None` where all are masked.
    pub fn with(&self, place: usize, is_masked: bool) -> Option<String> {
        let mut masked = self.masked.clone();
        if let Some(masked) = masked.get_mut(place) {
            *masked = is_masked;
        }
        if !masked.contains(&true) {
            return Some("all".to_owned());
        }
        let unmasked = (1..).zip(masked).filter(|(_, is_masked)| !is_masked);
        let places: Vec<String> = unmasked.map(|(place, _): (usize, bool)| place.to_string()).collect();
        (!places.is_empty()).then(|| places.join(","))
    }

    /// The items of a history that are masked.
    pub fn items(&self, history: &[u32]) -> Vec<u32> {
        let items = history.iter().zip(&self.masked).filter(|(_, masked)| **masked);
        let mut items: Vec<u32> = items.map(|(item, _)| *item).collect();
        if self.reversed {
            items.reverse();
        }
        items
    }

    /// Whether the whole history is masked, as it is in what is recorded.
    pub fn is_whole(&self) -> bool {
        !self.masked.contains(&false)
    }
}

/// How many places count: those of the address, or as many as are recorded.
pub fn cutoff(named: Option<&str>, recorded: &Found) -> Option<Cutoff> {
    let named = named.and_then(|named| named.parse().ok());
    named.or_else(|| Cutoff::new(recorded.top_items.len().max(1)).ok())
}

/// The checkpoints whose vectors were kept: numbers in the manifest.
pub fn with_vectors(manifest: &Manifest) -> Vec<usize> {
    let checkpoints = manifest.checkpoints.iter().enumerate();
    checkpoints
        .filter(|(_, checkpoint)| checkpoint.embeddings.is_some() && checkpoint.results.is_some())
        .map(|(number, _)| number)
        .collect()
}

/// The checkpoint with vectors that a parameter names; without a name the best checkpoint, or the last with vectors.
///
/// # Errors
/// In words for the page: there is none, or not the named one.
pub fn chosen_checkpoint(named: Option<&str>, manifest: &Manifest) -> Result<usize, String> {
    let with_vectors = with_vectors(manifest);
    let Some(&last) = with_vectors.last() else {
        return Err(match manifest.redacted {
            true => "Vectors were left out of this report, so nothing can be ranked anew.",
            false => "The report has no vectors, so nothing can be ranked anew.",
        }
        .to_owned());
    };
    let name_of = |number: &usize| manifest.checkpoints[*number].name.as_str();
    match named {
        None => {
            let best = best_checkpoint(manifest).filter(|best| with_vectors.contains(best));
            Ok(best.unwrap_or(last))
        }
        Some(name) => {
            let found = with_vectors.iter().copied().find(|number| name_of(number) == name);
            found.ok_or_else(|| {
                let known: Vec<&str> = with_vectors.iter().map(name_of).collect();
                format!(
                    "The vectors of checkpoint {name:?} were not kept: the report has those of {}.",
                    known.join(", ")
                )
            })
        }
    }
}

/// The file, and the bytes in it, of the vector of a user's profile; `None` where it was not kept.
pub fn vector_place(
    embeddings: &Embeddings,
    profiles_per_user: usize,
    user: usize,
    profile: Profile,
) -> Option<(&F16File, Range<usize>)> {
    let (file, row) = match profile {
        Profile::Generated(number) => (&embeddings.profiles, user.checked_mul(profiles_per_user)? + number),
        Profile::Reference => (embeddings.references.as_ref()?, user),
    };
    Some((file, row_of(file, row)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::report::{Checkpoint, Chunks};

    use super::*;

    #[test]
    fn a_mask_reads_back_from_its_address() {
        let mask = Mask::read(None, None, 4);
        assert!(mask.is_whole());
        assert_eq!(mask.items(&[9, 8, 7, 6]), [9, 8, 7, 6]);
        let unmasked = mask.with(1, false).unwrap();
        let mask = Mask::read(Some(&unmasked), Some("reversed"), 4);
        assert_eq!(mask.items(&[9, 8, 7, 6]), [6, 7, 9]);
        assert_eq!(mask.with(3, false).as_deref(), Some("2,4"));
        assert_eq!(mask.with(1, true), None, "the whole history needs no word");
        let nothing = Mask::read(Some("all"), None, 4);
        assert!(nothing.items(&[9, 8, 7, 6]).is_empty() && !nothing.is_whole());
        assert_eq!(nothing.with(0, true).as_deref(), Some("2,3,4"));
        assert_eq!(Mask::read(Some("1"), None, 1).with(0, false).as_deref(), Some("all"));
        assert!(
            Mask::read(Some("0,9,x,"), None, 4).is_whole(),
            "places that are not there"
        );
    }

    #[test]
    fn as_many_places_count_as_are_recorded_unless_told() {
        let found = Found {
            top_items: vec![1; 10],
            ..Found::default()
        };
        let places = |named| cutoff(named, &found).map(Cutoff::get);
        assert_eq!((places(None), places(Some("3"))), (Some(10), Some(3)));
        assert_eq!((places(Some("0")), places(Some("x"))), (Some(10), Some(10)));
        assert_eq!(cutoff(None, &Found::default()).map(Cutoff::get), Some(1));
    }

    fn file(rows: usize) -> F16File {
        F16File {
            file: "f".into(),
            rows,
            dims: 3,
        }
    }

    fn manifest() -> Manifest {
        let checkpoint = |name: &str, has_vectors: bool| Checkpoint {
            name: name.into(),
            results: Some(Chunks::in_files("results", 4, 2)),
            embeddings: has_vectors.then(|| Embeddings {
                items: file(5),
                profiles: file(8),
                references: None,
            }),
            ..Checkpoint::default()
        };
        Manifest {
            checkpoints: vec![
                checkpoint("start", false),
                checkpoint("middle", true),
                checkpoint("end", true),
            ],
            ..Manifest::default()
        }
    }

    #[test]
    fn only_checkpoints_with_vectors_can_be_chosen() {
        let manifest = manifest();
        assert_eq!(chosen_checkpoint(None, &manifest), Ok(2));
        assert_eq!(chosen_checkpoint(Some("middle"), &manifest), Ok(1));
        let problem = chosen_checkpoint(Some("start"), &manifest).unwrap_err();
        assert!(problem.ends_with("the report has those of middle, end."), "{problem}");
        let redacted = Manifest {
            redacted: true,
            ..Manifest::default()
        };
        assert!(chosen_checkpoint(None, &redacted).unwrap_err().contains("left out"));
    }

    #[test]
    fn a_users_profiles_lie_one_after_the_other() {
        let manifest = manifest();
        let embeddings = manifest.checkpoints[1].embeddings.as_ref().unwrap();
        let range = |user, profile| vector_place(embeddings, 2, user, profile).map(|(_, range)| range);
        assert_eq!(range(3, Profile::Generated(1)), Some(42..48));
        assert_eq!(range(4, Profile::Generated(0)), None);
        assert_eq!(range(0, Profile::Reference), None);
    }
}
