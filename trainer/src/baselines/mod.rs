//! Recommenders that need no model: what a profile must beat.
//!
//! Each learns from the training users alone and scores every item for a user from the history. Ranks come from
//! [`eval_core::scores`], like those of embeddings: history masked, equal scores by ascending item index.

mod bm25;
mod cholesky;
mod ease;
mod item_knn;
mod popular;
mod random;
#[cfg(test)]
mod tests;

use eval_core::Cutoff;
use eval_core::retrieval::Found;
use eval_core::scores::{ScoredItem, rank_by_scores, top_by_scores};
use rayon::prelude::*;

use crate::TrainError;
use crate::data::{Dataset, User};
use crate::evaluation::Ranked;

pub use bm25::{Bm25, terms};
pub use cholesky::NotPositive;
pub use ease::{EASE_MAX_ITEMS, Ease};
pub use item_knn::ItemKnn;
pub use popular::Popular;
pub use random::Random;

/// Scores items for a user; the higher, the better.
pub trait Recommender: Sync {
    /// A score for each item of the catalogue, those of the history included. `user` counts over train, val and test, and
    /// `history` is what the user had, oldest first.
    fn scores(&self, user: u32, history: &[u32]) -> Vec<f64>;
}

/// Which training user had which items, without order and repetition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interactions {
    items: usize,
    /// Of each training user, ascending.
    by_user: Vec<Vec<u32>>,
}

impl Interactions {
    /// The whole sessions of the training users: history, target and what came later.
    pub fn of_train(dataset: &Dataset) -> Self {
        let sessions = dataset
            .train
            .iter()
            .map(|user| user.history.iter().chain(&user.later).copied().collect());
        Self::new(dataset.items.len(), sessions)
    }

    /// From the sessions' items, each below `items`.
    pub fn new(items: usize, sessions: impl IntoIterator<Item = Vec<u32>>) -> Self {
        Self {
            items,
            by_user: sessions.into_iter().map(distinct).collect(),
        }
    }

    /// Number of items in the catalogue.
    pub fn items(&self) -> usize {
        self.items
    }

    /// The items of each user, ascending.
    pub fn by_user(&self) -> &[Vec<u32>] {
        &self.by_user
    }

    /// The users of each item, ascending.
    fn by_item(&self) -> Vec<Vec<u32>> {
        let mut users = vec![Vec::new(); self.items];
        for (user, items) in (0..).zip(&self.by_user) {
            items.iter().for_each(|&item| users[item as usize].push(user));
        }
        users
    }
}

/// Ranks the targets of `users`, whose first has the number `first_user`.
///
/// # Errors
/// A target that is in the user's history.
pub fn rank(recommender: &dyn Recommender, users: &[User], first_user: u32, top: Cutoff) -> Result<Ranked, TrainError> {
    let found = users
        .par_iter()
        .enumerate()
        .map(|(index, user)| {
            let scores = recommender.scores(first_user + index as u32, &user.history);
            let best = top_by_scores(&scores, &user.history, top)?;
            Ok(Found {
                targets: rank_by_scores(&scores, &user.history, &user.targets)?,
                top: best.into_iter().map(single).collect(),
            })
        })
        .collect::<Result<_, eval_core::Error>>()?;
    Ok(Ranked { found, samples: 1 })
}

/// The score in single precision, for lists that are shown; ranks were made from the double.
fn single(scored: ScoredItem<f64>) -> ScoredItem {
    ScoredItem {
        item: scored.item,
        score: scored.score as f32,
    }
}

/// Ascending, each once.
fn distinct(mut items: Vec<u32>) -> Vec<u32> {
    items.sort_unstable();
    items.dedup();
    items
}
