//! What a page of one user reads.

use std::sync::Arc;

use eval_core::report::{ResultChunk, User, UserChunk, UserResult};

use crate::load::{LoadError, Source};

/// A user and what a checkpoint found for the user.
#[derive(Clone, Debug)]
pub struct Record {
    users: Arc<UserChunk>,
    results: Arc<ResultChunk>,
    /// The user's number.
    pub user: usize,
}

impl Record {
    /// Reads both.
    ///
    /// # Errors
    /// A user or a checkpoint beyond the report, and those of [`Source`].
    pub async fn read(source: &Source, user: usize, checkpoint: usize) -> Result<Self, LoadError> {
        let manifest = source.manifest();
        let beyond = || LoadError::Beyond {
            what: format!("user {user}"),
            count: manifest.users.count,
        };
        let (file, _) = manifest.users.locate(user).ok_or_else(beyond)?;
        let users = source.users(file).await?;
        let results = manifest
            .checkpoints
            .get(checkpoint)
            .and_then(|found| found.results.as_ref());
        let (file, _) = results.and_then(|results| results.locate(user)).ok_or_else(beyond)?;
        let results = source.results(checkpoint, file).await?;
        Ok(Self { users, results, user })
    }

    /// The user. Both are there in files that were checked; an empty record would stand for one that is not.
    pub fn user(&self) -> User {
        let place = self.user.checked_sub(self.users.first);
        place
            .and_then(|place| self.users.users.get(place))
            .cloned()
            .unwrap_or_default()
    }

    /// What was found.
    pub fn result(&self) -> UserResult {
        let place = self.user.checked_sub(self.results.first);
        place
            .and_then(|place| self.results.results.get(place))
            .cloned()
            .unwrap_or_default()
    }
}
