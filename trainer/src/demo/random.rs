//! Draws that a seed decides, the same on every machine.

use models::philox;

/// A stream of random numbers: Philox over a counter, keyed by the seed.
#[derive(Debug, Clone)]
pub struct Random {
    key: [u32; 2],
    stream: u32,
    blocks: u64,
    words: [u32; 4],
    left: usize,
}

impl Random {
    /// Stream `stream` of `seed`; streams of one seed do not overlap.
    pub fn new(seed: u64, stream: u32) -> Self {
        Self {
            key: [seed as u32, (seed >> 32) as u32],
            stream,
            blocks: 0,
            words: [0; 4],
            left: 0,
        }
    }

    fn word(&mut self) -> u32 {
        if self.left == 0 {
            let [low, high] = [self.blocks as u32, (self.blocks >> 32) as u32];
            self.words = philox([low, high, self.stream, u32::from_le_bytes(*b"demo")], self.key);
            self.blocks += 1;
            self.left = self.words.len();
        }
        self.left -= 1;
        self.words[self.left]
    }

    /// Uniform between 0 and 1, both excluded.
    pub fn unit(&mut self) -> f64 {
        (f64::from(self.word()) + 0.5) / 4_294_967_296.0
    }

    /// Uniform over `0..count`; 0 where `count` is 0.
    pub fn below(&mut self, count: usize) -> usize {
        ((u64::from(self.word()) * count as u64) >> 32) as usize
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f64) -> bool {
        self.unit() < probability
    }

    /// Standard normal (Box & Muller, 1958).
    pub fn normal(&mut self) -> f64 {
        let (radius, angle) = (self.unit(), self.unit());
        (-2.0 * radius.ln()).sqrt() * (2.0 * std::f64::consts::PI * angle).cos()
    }

    /// Standard exponential.
    pub fn exponential(&mut self) -> f64 {
        -self.unit().ln()
    }

    /// Standard Gumbel: the largest of utilities plus such noise is a draw from their softmax.
    pub fn gumbel(&mut self) -> f64 {
        -self.exponential().ln()
    }

    /// One of `values`, which are at least one.
    pub fn choose<'a, T>(&mut self, values: &'a [T]) -> &'a T {
        &values[self.below(values.len())]
    }

    /// Shuffles (Fisher & Yates, 1938).
    pub fn shuffle<T>(&mut self, values: &mut [T]) {
        for last in (1..values.len()).rev() {
            let chosen = self.below(last + 1);
            values.swap(last, chosen);
        }
    }
}
