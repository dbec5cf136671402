//! The records behind the manifest.

use serde::{Deserialize, Serialize};

use super::check::expect;
use super::{Baseline, Checkpoint, Chunks, Manifest};
use crate::Error;
use crate::scores::{RankedTarget, ScoredItem};

/// A file of items.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ItemChunk {
    /// Number of the first item.
    pub first: usize,
    /// The items from there on.
    pub items: Vec<Item>,
}

/// An item of the catalogue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Item {
    /// Its identifier in the raw data.
    pub id: String,
    /// Its title.
    pub title: String,
    /// The text that the embedder sees.
    pub text: String,
    /// Interactions with it in the train split.
    pub train_interactions: u64,
}

/// A file of users.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserChunk {
    /// Number of the first user.
    pub first: usize,
    /// The users from there on.
    pub users: Vec<User>,
}

/// A user of the split. What a redacted report leaves out is `None`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct User {
    /// The identifier in the raw data, or a pseudonym.
    pub id: String,
    /// The history, oldest first.
    pub history: Vec<Interaction>,
    /// The items to be found.
    pub targets: Vec<u32>,
    /// What the language model reads.
    pub prompt: Option<String>,
    /// The reference profile.
    pub reference_profile: Option<String>,
}

/// An interaction of the history.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Interaction {
    /// The item.
    pub item: u32,
    /// The user's rating, where known.
    pub rating: Option<f64>,
    /// The user's review, where known.
    pub review: Option<String>,
}

/// A file of results: what a checkpoint or a baseline found for users.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ResultChunk {
    /// Number of the first user.
    pub first: usize,
    /// The results from there on.
    pub results: Vec<UserResult>,
}

/// What a checkpoint or a baseline found for one user.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct UserResult {
    /// For each generated profile, `profiles_per_user` of them; one for a baseline.
    pub generated: Vec<Found>,
    /// For the reference profile; `None` where it was not evaluated.
    pub reference: Option<Found>,
}

/// A profile and its ranking.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Found {
    /// The profile's text; `None` in a redacted report, for a baseline, and for the reference profile, whose text the user has.
    pub profile: Option<String>,
    /// Where the targets stand, in the order of the user's targets.
    pub targets: Vec<RankedTarget>,
    /// The best items, best first, history masked. A list apart from the scores, which halves the file.
    pub top_items: Vec<u32>,
    /// Their scores.
    pub top_scores: Vec<f32>,
}

impl Found {
    /// A profile with what [`Retriever::search`](crate::retrieval::Retriever::search) found for it.
    pub fn new(profile: Option<String>, found: &crate::retrieval::Found) -> Self {
        let top = &found.top;
        Self {
            profile,
            targets: found.targets.clone(),
            top_items: top.iter().map(|scored| scored.item).collect(),
            top_scores: top.iter().map(|scored| scored.score).collect(),
        }
    }

    /// The best items with their scores.
    pub fn top(&self) -> impl Iterator<Item = ScoredItem> {
        self.top_items
            .iter()
            .zip(&self.top_scores)
            .map(|(&item, &score)| ScoredItem { item, score })
    }
}

impl ItemChunk {
    /// Whether this is file `file` of the manifest's items.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent).
    pub fn check(&self, manifest: &Manifest, file: usize) -> Result<(), Error> {
        check_place("items", &manifest.items, file, self.first, self.items.len())
    }
}

impl UserChunk {
    /// Whether this is file `file` of the manifest's users, and its items are in the catalogue.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent).
    pub fn check(&self, manifest: &Manifest, file: usize) -> Result<(), Error> {
        check_place("users", &manifest.users, file, self.first, self.users.len())?;
        for (user, record) in (self.first..).zip(&self.users) {
            let history = record.history.iter().map(|interaction| interaction.item);
            check_items(
                manifest,
                || format!("user {user}"),
                history.chain(record.targets.iter().copied()),
            )?;
        }
        Ok(())
    }
}

impl ResultChunk {
    /// Whether this is file `file` of the checkpoint's results, with its number of profiles, and its items are in the
    /// catalogue.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent).
    pub fn check(&self, manifest: &Manifest, checkpoint: &Checkpoint, file: usize) -> Result<(), Error> {
        let profiles = checkpoint.profiles_per_user;
        self.check_rankings(manifest, checkpoint.results.as_ref(), profiles, file)
    }

    /// Whether this is file `file` of the baseline's results, with one ranking a user, and its items are in the catalogue.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent).
    pub fn check_baseline(&self, manifest: &Manifest, baseline: &Baseline, file: usize) -> Result<(), Error> {
        self.check_rankings(manifest, baseline.results.as_ref(), 1, file)
    }

    fn check_rankings(
        &self,
        manifest: &Manifest,
        chunks: Option<&Chunks>,
        profiles: usize,
        file: usize,
    ) -> Result<(), Error> {
        let chunks = chunks.cloned().unwrap_or_default();
        check_place("results", &chunks, file, self.first, self.results.len())?;
        for (user, result) in (self.first..).zip(&self.results) {
            let field = |name: &str| format!("user {user}, {name}");
            expect(field("generated profiles"), &profiles, &result.generated.len())?;
            for found in result.generated.iter().chain(&result.reference) {
                expect(field("top scores"), &found.top_items.len(), &found.top_scores.len())?;
                let targets = found.targets.iter().map(|target| target.item);
                check_items(
                    manifest,
                    || field("ranking"),
                    targets.chain(found.top_items.iter().copied()),
                )?;
            }
        }
        Ok(())
    }
}

fn check_place(what: &str, chunks: &Chunks, file: usize, first: usize, records: usize) -> Result<(), Error> {
    expect(
        format!("first of {what} file {file}"),
        &(file * chunks.per_file),
        &first,
    )?;
    expect(
        format!("number of records in {what} file {file}"),
        &chunks.records_in(file),
        &records,
    )
}

fn check_items(
    manifest: &Manifest,
    field: impl Fn() -> String,
    mut items: impl Iterator<Item = u32>,
) -> Result<(), Error> {
    match items.find(|&item| item as usize >= manifest.items.count) {
        None => Ok(()),
        Some(item) => expect(
            field(),
            &format!("items below {}", manifest.items.count),
            &item.to_string(),
        ),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{read_chunk, write_json};
    use super::*;

    fn manifest() -> Manifest {
        let checkpoint = Checkpoint {
            profiles_per_user: 1,
            results: Some(Chunks::in_files("results", 3, 2)),
            ..Checkpoint::default()
        };
        Manifest {
            items: Chunks::in_files("items", 5, 2),
            users: Chunks::in_files("users", 3, 2),
            checkpoints: vec![checkpoint],
            ..Manifest::default()
        }
    }

    fn results() -> ResultChunk {
        let found = Found {
            profile: Some("likes </script> & quotes \"".into()),
            targets: vec![RankedTarget::from_counts(4, 6, 0, 1)],
            top_items: vec![1, 0],
            top_scores: vec![0.5, 0.1],
        };
        let result = UserResult {
            generated: vec![found.clone()],
            reference: Some(found),
        };
        ResultChunk {
            first: 2,
            results: vec![result],
        }
    }

    #[test]
    fn results_read_back_and_fit_their_manifest() {
        let mut file = Vec::new();
        write_json(&mut file, &results()).unwrap();
        let read: ResultChunk = read_chunk(&file[..]).unwrap();
        assert_eq!(read, results());
        read.check(&manifest(), &manifest().checkpoints[0], 1).unwrap();
    }

    #[test]
    fn a_chunk_in_the_wrong_place_is_an_error() {
        let error = results().check(&manifest(), &manifest().checkpoints[0], 0).unwrap_err();
        assert_eq!(error.to_string(), "first of results file 0: expected 0, found 2");
        let error = ItemChunk {
            first: 4,
            items: Vec::new(),
        }
        .check(&manifest(), 2)
        .unwrap_err();
        assert_eq!(
            error.to_string(),
            "number of records in items file 2: expected 1, found 0"
        );
    }

    #[test]
    fn an_item_beyond_the_catalogue_names_the_user() {
        let user = User {
            targets: vec![5],
            ..User::default()
        };
        let error = UserChunk {
            first: 2,
            users: vec![user],
        }
        .check(&manifest(), 1)
        .unwrap_err();
        assert_eq!(error.to_string(), "user 2: expected items below 5, found 5");
    }

    #[test]
    fn a_redacted_user_reads_back() {
        let json = r#"{"id": "p1", "history": [{"item": 0, "rating": 4.5, "review": null}], "targets": [1]}"#;
        let user: User = read_chunk(json.as_bytes()).unwrap();
        assert_eq!((user.history[0].rating, user.prompt), (Some(4.5), None));
    }
}
