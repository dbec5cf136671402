//! The page of one user: the history, a profile and what became of it, and the ranking.

mod items;
mod page;
mod profile;
mod ranking;
mod record;

pub use items::Items;
pub use page::UserPage;
pub use profile::{ProfileText, Text};
pub use record::Record;

use std::fmt::{self, Display};

use eval_core::report::{Found, User, UserResult};

use crate::order::sorted;

/// One of a user's profiles at a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// A generated one, counted from 0.
    Generated(usize),
    /// The reference profile.
    Reference,
}

impl Profile {
    /// Reads what [`Display`] writes: `1` is the first generated one.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "reference" => Some(Self::Reference),
            number => number.parse::<usize>().ok()?.checked_sub(1).map(Self::Generated),
        }
    }

    /// The profiles that a user has; the reference profile where it was ranked.
    pub fn all(result: &UserResult) -> Vec<Self> {
        let generated = (0..result.generated.len()).map(Self::Generated);
        generated
            .chain(result.reference.as_ref().map(|_| Self::Reference))
            .collect()
    }

    /// What it is called.
    pub fn name(self) -> String {
        match self {
            Self::Generated(number) => format!("generated profile {}", number + 1),
            Self::Reference => "reference profile".to_owned(),
        }
    }

    /// What was found for it.
    pub fn found(self, result: &UserResult) -> Option<&Found> {
        match self {
            Self::Generated(number) => result.generated.get(number),
            Self::Reference => result.reference.as_ref(),
        }
    }

    /// Its text; `None` where the report leaves it out.
    pub fn text<'a>(self, user: &'a User, result: &'a UserResult) -> Option<&'a str> {
        match self {
            Self::Generated(number) => result.generated.get(number)?.profile.as_deref(),
            Self::Reference => user.reference_profile.as_deref(),
        }
    }
}

impl Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Generated(number) => write!(f, "{}", number + 1),
            Self::Reference => f.write_str("reference"),
        }
    }
}

/// What a profile is compared with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// Another profile of the same checkpoint.
    Profile(Profile),
    /// The profile with the same number at another checkpoint, by the checkpoint's name.
    Checkpoint(String),
}

impl Other {
    /// Reads what [`Display`] writes: `profile:2`, `checkpoint:start`.
    pub fn parse(text: &str) -> Option<Self> {
        match text.split_once(':')? {
            ("profile", profile) => Profile::parse(profile).map(Self::Profile),
            ("checkpoint", name) => Some(Self::Checkpoint(name.to_owned())),
            _ => None,
        }
    }
}

impl Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Profile(profile) => write!(f, "profile:{profile}"),
            Self::Checkpoint(name) => write!(f, "checkpoint:{name}"),
        }
    }
}

/// An item of a ranking, as it is listed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Listed {
    /// Its rank, counted from 1.
    pub rank: u32,
    /// The item.
    pub item: u32,
    /// Its score; `None` for a target behind the best items, of which only the rank is recorded.
    pub score: Option<f32>,
    /// Whether the user is to find it.
    pub is_target: bool,
}

/// The best items of a ranking, and behind them the targets that are not among them, by rank.
pub fn listed(found: &Found) -> Vec<Listed> {
    let is_target = |item: u32| found.targets.iter().any(|target| target.item == item);
    let best = (1..).zip(found.top()).map(|(rank, scored)| Listed {
        rank,
        item: scored.item,
        score: Some(scored.score),
        is_target: is_target(scored.item),
    });
    let behind = found
        .targets
        .iter()
        .filter(|target| !found.top_items.contains(&target.item));
    let behind: Vec<Listed> = behind
        .map(|target| Listed {
            rank: target.rank,
            item: target.item,
            score: None,
            is_target: true,
        })
        .collect();
    let behind = sorted(&behind, |a, b| a.rank.cmp(&b.rank));
    best.chain(behind).collect()
}

#[cfg(test)]
mod tests {
    use eval_core::scores::RankedTarget;

    use super::*;

    #[test]
    fn profiles_and_comparisons_read_back_from_their_addresses() {
        for profile in [Profile::Generated(0), Profile::Generated(11), Profile::Reference] {
            assert_eq!(Profile::parse(&profile.to_string()), Some(profile));
            let other = Other::Profile(profile);
            assert_eq!(Other::parse(&other.to_string()), Some(other));
        }
        let checkpoint = Other::Checkpoint("update:9".into());
        assert_eq!(Other::parse("checkpoint:update:9"), Some(checkpoint));
        assert_eq!(Profile::parse("2"), Some(Profile::Generated(1)));
        for text in ["", "0", "-1", "x", "profile", "profile:0"] {
            assert_eq!((Profile::parse(text), Other::parse(text)), (None, None), "{text}");
        }
    }

    #[test]
    fn a_profiles_text_comes_from_the_results_and_the_references_from_the_user() {
        let found = |text: &str| Found {
            profile: Some(text.into()),
            ..Found::default()
        };
        let user = User {
            reference_profile: Some("reference".into()),
            ..User::default()
        };
        let mut result = UserResult {
            generated: vec![found("first"), found("second")],
            reference: Some(Found::default()),
        };
        let texts: Vec<_> = Profile::all(&result)
            .into_iter()
            .map(|profile| profile.text(&user, &result))
            .collect();
        assert_eq!(texts, [Some("first"), Some("second"), Some("reference")]);
        result.reference = None;
        assert_eq!(Profile::all(&result), [Profile::Generated(0), Profile::Generated(1)]);
        assert!(Profile::Generated(2).found(&result).is_none() && Profile::Reference.found(&result).is_none());
    }

    #[test]
    fn targets_behind_the_best_items_are_listed_after_them() {
        let target = |item, rank: u32| RankedTarget::from_counts(item, rank - 1, 0, 0);
        let found = Found {
            profile: None,
            targets: vec![target(7, 90), target(5, 2), target(8, 31)],
            top_items: vec![3, 5],
            top_scores: vec![0.75, 0.5],
        };
        let listed: Vec<_> = listed(&found)
            .into_iter()
            .map(|listed| (listed.rank, listed.item, listed.score, listed.is_target))
            .collect();
        let expected = [
            (1, 3, Some(0.75), false),
            (2, 5, Some(0.5), true),
            (31, 8, None, true),
            (90, 7, None, true),
        ];
        assert_eq!(listed, expected);
    }
}
