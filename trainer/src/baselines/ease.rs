//! EASE: a linear model of items on items, in closed form (Steck, *Embarrassingly Shallow Autoencoders*, WWW 2019).

use rayon::prelude::*;

use super::cholesky::{NotPositive, inverse};
use super::{Interactions, Recommender, distinct};

/// Larger catalogues are not tried: the model holds, and while it is made doubles, items² · 8 bytes (200 MB at 5,000
/// items), and takes items³/2 multiplications.
pub const EASE_MAX_ITEMS: usize = 5_000;

/// Predicts an item from the other items of a session.
///
/// With X the users' items as zeros and ones, P = (XᵀX + λI)⁻¹ and B = −P / diag(P) by columns, with a diagonal of 0. A
/// user's scores are the sum of the rows of B that belong to the history.
#[derive(Debug, Clone)]
pub struct Ease {
    items: usize,
    /// `[items, items]`: from an item of the history to a candidate.
    weights: Vec<f64>,
}

impl Ease {
    /// λ unless said otherwise.
    pub const L2: f64 = 100.0;

    /// Learns from `interactions` with the penalty `l2`, which is above 0.
    ///
    /// # Errors
    /// When `l2` is so small that the inverse does not exist.
    pub fn new(interactions: &Interactions, l2: f64) -> Result<Self, NotPositive> {
        let items = interactions.items();
        let mut weights = inverse(gram(interactions, l2), items)?;
        let diagonal: Vec<f64> = (0..items).map(|item| weights[item * items + item]).collect();
        weights
            .par_chunks_exact_mut(items.max(1))
            .enumerate()
            .for_each(|(row, weights)| {
                weights
                    .iter_mut()
                    .zip(&diagonal)
                    .for_each(|(weight, own)| *weight /= -own);
                weights[row] = 0.0;
            });
        Ok(Self { items, weights })
    }
}

/// XᵀX + λI, its lower triangle.
fn gram(interactions: &Interactions, l2: f64) -> Vec<f64> {
    let items = interactions.items();
    let mut gram = vec![0.0; items * items];
    for session in interactions.by_user() {
        for (place, &item) in session.iter().enumerate() {
            let row = item as usize * items;
            session[..=place]
                .iter()
                .for_each(|&other| gram[row + other as usize] += 1.0);
        }
    }
    (0..items).for_each(|item| gram[item * items + item] += l2);
    gram
}

impl Recommender for Ease {
    fn scores(&self, _user: u32, history: &[u32]) -> Vec<f64> {
        let mut scores = vec![0.0; self.items];
        for item in distinct(history.to_vec()) {
            let row = &self.weights[item as usize * self.items..][..self.items];
            scores.iter_mut().zip(row).for_each(|(score, weight)| *score += weight);
        }
        scores
    }
}
