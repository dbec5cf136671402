//! Any order: what a ranking is worth that knows nothing.

use models::philox;

use super::Recommender;

/// A random order for each user, the same whenever and with whomever it is drawn.
#[derive(Debug, Clone, Copy)]
pub struct Random {
    items: usize,
    seed: u64,
}

impl Random {
    /// For a catalogue of `items`.
    pub fn new(items: usize, seed: u64) -> Self {
        Self { items, seed }
    }
}

impl Recommender for Random {
    /// Uniform in 0..2³²; the history plays no part.
    fn scores(&self, user: u32, _history: &[u32]) -> Vec<f64> {
        let key = [self.seed as u32, (self.seed >> 32) as u32];
        let words = |block: usize| philox([block as u32, user, 0, u32::from_le_bytes(*b"rand")], key);
        (0..self.items.div_ceil(4))
            .flat_map(words)
            .take(self.items)
            .map(f64::from)
            .collect()
    }
}
