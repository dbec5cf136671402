//! Attention on the host: rows of queries over cached keys and values.

use rayon::prelude::*;

use super::elementwise::softmax;
use super::panels::{Outputs, Panels, Rows, WIDTH, multiply};

/// Queries that go through the products together.
const TASK_QUERIES: usize = 12;

/// Shapes that attention needs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads {
    pub(crate) query: usize,
    pub(crate) key: usize,
    pub(crate) dim: usize,
}

impl Heads {
    fn scale(self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }

    /// Query heads of a key head.
    fn shared(self) -> usize {
        self.query / self.key
    }
}

/// Keys and values of one layer in panels: keys `[key heads, capacity / WIDTH, dim, WIDTH]`, values
/// `[key heads, dim / WIDTH, capacity, WIDTH]`.
#[derive(Debug, Clone)]
pub(crate) struct KeyValues {
    heads: Heads,
    keys: Vec<f32>,
    values: Vec<f32>,
    capacity: usize,
}

impl KeyValues {
    /// Room for `capacity` tokens.
    pub(crate) fn new(heads: Heads, capacity: usize) -> Self {
        Self {
            heads,
            keys: vec![0.0; heads.key * capacity.next_multiple_of(WIDTH) * heads.dim],
            values: vec![0.0; heads.key * heads.dim.next_multiple_of(WIDTH) * capacity],
            capacity,
        }
    }

    /// Keys and values `[tokens, key heads · dim]` of a whole sequence.
    pub(crate) fn of(heads: Heads, keys: &[f32], values: &[f32]) -> Self {
        let width = heads.key * heads.dim;
        let mut cache = Self::new(heads, keys.len() / width);
        for (place, (key, value)) in keys.chunks_exact(width).zip(values.chunks_exact(width)).enumerate() {
            cache.put(place, key, value);
        }
        cache
    }

    /// Puts the key and value of one token, `[key heads · dim]` each, at `place`.
    pub(crate) fn put(&mut self, place: usize, key: &[f32], value: &[f32]) {
        let (dim, capacity) = (self.heads.dim, self.capacity);
        for (head, (key, value)) in key.chunks_exact(dim).zip(value.chunks_exact(dim)).enumerate() {
            let first = head * capacity.next_multiple_of(WIDTH) * dim + place / WIDTH * dim * WIDTH + place % WIDTH;
            let places = self.keys[first..].iter_mut().step_by(WIDTH);
            places.zip(key).for_each(|(place, &key)| *place = key);
            let first = head * dim.next_multiple_of(WIDTH) * capacity;
            for (panel, part) in value.chunks(WIDTH).enumerate() {
                let to = first + (panel * capacity + place) * WIDTH;
                self.values[to..to + part.len()].copy_from_slice(part);
            }
        }
    }

    /// The first `len` keys of a head, as columns.
    fn keys(&self, head: usize, len: usize) -> Panels<'_, f32> {
        let dim = self.heads.dim;
        Panels {
            data: &self.keys[head * self.capacity.next_multiple_of(WIDTH) * dim..],
            depth: dim,
            stride: dim * WIDTH,
            columns: len,
        }
    }

    /// The first `len` values of a head, as rows.
    fn values(&self, head: usize, len: usize) -> Panels<'_, f32> {
        let dim = self.heads.dim;
        Panels {
            data: &self.values[head * dim.next_multiple_of(WIDTH) * self.capacity..],
            depth: len,
            stride: self.capacity * WIDTH,
            columns: dim,
        }
    }

    /// Attention of a whole sequence over itself, one head after another on this thread. `queries` and `out` are
    /// `[tokens, query heads · dim]`.
    pub(crate) fn attend(&self, causal: bool, queries: &[f32], out: &mut [f32]) {
        let (dim, width) = (self.heads.dim, self.heads.query * self.heads.dim);
        for head in 0..self.heads.query {
            self.attend_head(head, causal, &queries[head * dim..], &mut out[head * dim..], width);
        }
    }

    /// As [`attend`](Self::attend), heads shared out among all threads.
    pub(crate) fn attend_in_parallel(&self, causal: bool, queries: &[f32], out: &mut [f32]) {
        let (dim, width) = (self.heads.dim, self.heads.query * self.heads.dim);
        let outputs: Vec<Vec<f32>> = (0..self.heads.query)
            .into_par_iter()
            .map(|head| {
                let mut mixed = vec![0.0; self.capacity * dim];
                self.attend_head(head, causal, &queries[head * dim..], &mut mixed, dim);
                mixed
            })
            .collect();
        for (head, mixed) in outputs.iter().enumerate() {
            for (row, values) in mixed.chunks_exact(dim).enumerate() {
                out[row * width + head * dim..][..dim].copy_from_slice(values);
            }
        }
    }

    /// One query head; `queries` and `out` begin at its first number, outputs stand `out_stride` apart.
    fn attend_head(&self, head: usize, causal: bool, queries: &[f32], out: &mut [f32], out_stride: usize) {
        let (tokens, stride) = (self.capacity, self.heads.query * self.heads.dim);
        let shared = head / self.heads.shared();
        let mut scores = vec![0.0; TASK_QUERIES * tokens];
        for first in (0..tokens).step_by(TASK_QUERIES) {
            let count = TASK_QUERIES.min(tokens - first);
            let seen = if causal { first + count } else { tokens };
            let rows = Rows {
                data: &queries[first * stride..],
                stride,
                count,
            };
            multiply(
                self.keys(shared, seen),
                rows,
                &mut Outputs {
                    data: &mut scores,
                    stride: seen,
                    add: false,
                },
            );
            for (row, scores) in scores.chunks_exact_mut(seen).take(count).enumerate() {
                let (visible, hidden) = scores.split_at_mut(if causal { first + row + 1 } else { seen });
                softmax(visible, self.heads.scale());
                hidden.fill(0.0);
            }
            let rows = Rows {
                data: &scores,
                stride: seen,
                count,
            };
            let data = &mut out[first * out_stride..];
            multiply(
                self.values(shared, seen),
                rows,
                &mut Outputs {
                    data,
                    stride: out_stride,
                    add: false,
                },
            );
        }
    }
}

/// Attention of one new token over a prompt's cache and its own, the given lengths of each: `query` and `out` are
/// `[query heads · dim]`.
pub(crate) fn attend_token(parts: [(&KeyValues, usize); 2], query: &[f32], scratch: &mut Vec<f32>, out: &mut [f32]) {
    let heads = parts[0].0.heads;
    let (shared, len) = (heads.shared(), parts[0].1 + parts[1].1);
    scratch.resize(shared * len, 0.0);
    let width = shared * heads.dim;
    for head in 0..heads.key {
        let rows = Rows {
            data: &query[head * width..],
            stride: heads.dim,
            count: shared,
        };
        let mut start = 0;
        for (cache, filled) in parts {
            let data = &mut scratch[start..];
            multiply(
                cache.keys(head, filled),
                rows,
                &mut Outputs {
                    data,
                    stride: len,
                    add: false,
                },
            );
            start += filled;
        }
        scratch.chunks_exact_mut(len).for_each(|scores| {
            softmax(scores, heads.scale());
        });
        let mut start = 0;
        for (cache, filled) in parts {
            let rows = Rows {
                data: &scratch[start..],
                stride: len,
                count: shared,
            };
            let data = &mut out[head * width..];
            multiply(
                cache.values(head, filled),
                rows,
                &mut Outputs {
                    data,
                    stride: heads.dim,
                    add: start > 0,
                },
            );
            start += filled;
        }
    }
}
