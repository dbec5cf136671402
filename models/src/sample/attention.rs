//! Attention of the sampler: a prompt over itself, and one new token over what came before.

use rayon::prelude::*;

use super::kernels::{dots, softmax, strided_product, weighted_sum};

/// Shapes that attention needs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    pub(super) query: usize,
    pub(super) key: usize,
    pub(super) dim: usize,
}

impl Heads {
    fn scale(self) -> f32 {
        (self.dim as f32).powf(-0.5)
    }
}

/// Keys and values of one layer, `[key heads, capacity, dim]` each, of which `len` places are filled.
#[derive(Debug, Clone)]
pub(super) struct LayerCache {
    keys: Vec<f32>,
    values: Vec<f32>,
    capacity: usize,
}

impl LayerCache {
    pub(super) fn new(heads: Heads, capacity: usize) -> Self {
        let size = heads.key * capacity * heads.dim;
        Self {
            keys: vec![0.0; size],
            values: vec![0.0; size],
            capacity,
        }
    }

    /// Puts the key and value of one token, `[key heads · dim]` each, at `place`.
    pub(super) fn put(&mut self, heads: Heads, place: usize, key: &[f32], value: &[f32]) {
        for head in 0..heads.key {
            let to = (head * self.capacity + place) * heads.dim;
            let from = head * heads.dim;
            self.keys[to..to + heads.dim].copy_from_slice(&key[from..from + heads.dim]);
            self.values[to..to + heads.dim].copy_from_slice(&value[from..from + heads.dim]);
        }
    }

    fn head(&self, heads: Heads, head: usize, len: usize) -> (&[f32], &[f32]) {
        let start = head * self.capacity * heads.dim;
        let range = start..start + len * heads.dim;
        (&self.keys[range.clone()], &self.values[range])
    }
}

/// Causal attention of a prompt over itself: `queries` is `[len, query heads · dim]`, as is `out`.
pub(super) fn attend_prompt(heads: Heads, cache: &LayerCache, queries: &[f32], len: usize, out: &mut [f32]) {
    let width = heads.query * heads.dim;
    let shared = heads.query / heads.key;
    let outputs: Vec<Vec<f32>> = (0..heads.query)
        .into_par_iter()
        .map(|head| {
            let (keys, values) = cache.head(heads, head / shared, len);
            let mut scores = vec![0.0; len * len];
            let q = &queries[head * heads.dim..];
            strided_product(
                q,
                (width, 1),
                keys,
                (1, heads.dim),
                &mut scores,
                len,
                [len, heads.dim, len],
            );
            for (query, row) in scores.chunks_exact_mut(len).enumerate() {
                let (seen, unseen) = row.split_at_mut(query + 1);
                seen.iter_mut().for_each(|score| *score *= heads.scale());
                softmax(seen);
                unseen.fill(0.0);
            }
            let mut mixed = vec![0.0; len * heads.dim];
            let shape = [len, len, heads.dim];
            strided_product(&scores, (len, 1), values, (heads.dim, 1), &mut mixed, heads.dim, shape);
            mixed
        })
        .collect();
    for (head, mixed) in outputs.iter().enumerate() {
        for (row, values) in mixed.chunks_exact(heads.dim).enumerate() {
            let to = row * width + head * heads.dim;
            out[to..to + heads.dim].copy_from_slice(values);
        }
    }
}

/// Attention of one new token over a prompt's cache and its own: `query` and `out` are `[query heads · dim]`.
pub(super) fn attend_token(
    heads: Heads,
    parts: [(&LayerCache, usize); 2],
    query: &[f32],
    scratch: &mut Vec<f32>,
    out: &mut [f32],
) {
    let shared = heads.query / heads.key;
    let len = parts[0].1 + parts[1].1;
    out.fill(0.0);
    for head in 0..heads.key {
        let queries = &query[head * shared * heads.dim..(head + 1) * shared * heads.dim];
        // Scores come as [place, shared]; the softmax wants them by query head.
        scratch.clear();
        scratch.resize(2 * len * shared, 0.0);
        let (raw, scores) = scratch.split_at_mut(len * shared);
        let mut start = 0;
        for (cache, filled) in parts {
            let (keys, _) = cache.head(heads, head, filled);
            dots(
                keys,
                queries,
                heads.dim,
                shared,
                &mut raw[start * shared..(start + filled) * shared],
            );
            start += filled;
        }
        for index in 0..shared {
            let row = &mut scores[index * len..(index + 1) * len];
            for (score, raw) in row.iter_mut().zip(raw.chunks_exact(shared)) {
                *score = raw[index] * heads.scale();
            }
            softmax(row);
            let to = (head * shared + index) * heads.dim;
            let out = &mut out[to..to + heads.dim];
            let mut start = 0;
            for (cache, filled) in parts {
                let (_, values) = cache.head(heads, head, filled);
                weighted_sum(&row[start..start + filled], values, heads.dim, out);
                start += filled;
            }
        }
    }
}
