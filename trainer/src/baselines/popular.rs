//! The same list for everyone: what most training users reviewed.

use super::Recommender;
use crate::data::Item;

/// Scores an item by its number of reviews from training users.
#[derive(Debug, Clone)]
pub struct Popular {
    counts: Vec<f64>,
}

impl Popular {
    /// By [`Item::train_count`].
    pub fn new(items: &[Item]) -> Self {
        Self {
            counts: items.iter().map(|item| f64::from(item.train_count)).collect(),
        }
    }
}

impl Recommender for Popular {
    fn scores(&self, _user: u32, _history: &[u32]) -> Vec<f64> {
        self.counts.clone()
    }
}
