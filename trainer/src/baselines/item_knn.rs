//! Item-based nearest neighbours (Deshpande & Karypis, ACM TOIS 22(1), 2004).

use super::{Interactions, Recommender, distinct};

/// Scores an item by its similarity to the items of the history of which it is a neighbour.
///
/// The similarity of items i and j is the cosine of their columns of users, shrunk where few users stand behind it:
/// `both / (√(users of i · users of j) + shrinkage)`. The neighbours of an item are the `neighbours` items most similar to
/// it, equal ones by ascending index; an item that shares no user is none.
#[derive(Debug, Clone)]
pub struct ItemKnn {
    by_user: Vec<Vec<u32>>,
    by_item: Vec<Vec<u32>>,
    neighbours: usize,
    shrinkage: f64,
}

impl ItemKnn {
    /// Neighbours of an item unless said otherwise.
    pub const NEIGHBOURS: usize = 100;
    /// Shrinkage unless said otherwise.
    pub const SHRINKAGE: f64 = 10.0;

    /// Learns from `interactions`.
    pub fn new(interactions: &Interactions, neighbours: usize, shrinkage: f64) -> Self {
        let by_user = interactions.by_user().to_vec();
        Self {
            by_user,
            by_item: interactions.by_item(),
            neighbours,
            shrinkage,
        }
    }

    /// The items most similar to `item`, best first, with their similarities.
    pub fn neighbours_of(&self, item: u32) -> Vec<(u32, f64)> {
        let users = &self.by_item[item as usize];
        let mut both = vec![0u32; self.by_item.len()];
        for &user in users {
            self.by_user[user as usize]
                .iter()
                .for_each(|&other| both[other as usize] += 1);
        }
        both[item as usize] = 0;
        let similarity = |(other, &count): (usize, &u32)| {
            let lengths = (users.len() as f64 * self.by_item[other].len() as f64).sqrt();
            (count > 0).then(|| (other as u32, f64::from(count) / (lengths + self.shrinkage)))
        };
        let mut similar: Vec<(u32, f64)> = both.iter().enumerate().filter_map(similarity).collect();
        similar.sort_by(|(a, of_a), (b, of_b)| of_b.total_cmp(of_a).then(a.cmp(b)));
        similar.truncate(self.neighbours);
        similar
    }
}

impl Recommender for ItemKnn {
    fn scores(&self, _user: u32, history: &[u32]) -> Vec<f64> {
        let mut scores = vec![0.0; self.by_item.len()];
        for item in distinct(history.to_vec()) {
            self.neighbours_of(item)
                .into_iter()
                .for_each(|(other, similarity)| scores[other as usize] += similarity);
        }
        scores
    }
}
