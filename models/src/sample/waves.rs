//! Sampling where the parameters are, in burn's operations: waves of sequences whose keys and values stay on the device. Adapters
//! stand beside their layers, so that there is no second copy of the parameters; tokens are drawn on the host, from the same
//! random stream as everywhere.

use burn::tensor::{DType, Device, Int, Tensor, TensorData, activation};
use rayon::prelude::*;

use super::schedule::extend;
use super::{Draws, Prompt, Response};
use crate::ModelError;
use crate::decoder::{Decoder, View, select_rows};
use crate::language_model::Policy;
use crate::ops::{AttentionLayout, RotaryTable, RowShape};
use crate::weights::tensor_to_vec;

/// Columns by which caches grow.
const GROWTH: usize = 64;
/// Tokens of prompts that are read in one pass, where no prompt alone has more.
const MOST_TOKENS: usize = 4096;

impl Decoder {
    /// Continues prompts that were checked, `draws.slots` at a time, those of similar length together.
    pub(super) fn sample_in_waves(&self, prompts: &[Prompt<'_>], draws: &Draws) -> Result<Vec<Response>, ModelError> {
        let mut order: Vec<usize> = (0..prompts.len()).collect();
        order.sort_by_key(|&index| (prompts[index].tokens.len(), prompts[index].tokens, index));
        let mut responses = vec![Response::default(); prompts.len()];
        for wave in order.chunks(draws.slots.max(1)) {
            let chosen: Vec<Prompt<'_>> = wave.iter().map(|&index| prompts[index]).collect();
            for (&index, response) in wave.iter().zip(self.wave(&chosen, draws)?) {
                responses[index] = response;
            }
        }
        Ok(responses)
    }

    fn wave(&self, prompts: &[Prompt<'_>], draws: &Draws) -> Result<Vec<Response>, ModelError> {
        let view = self.view(Policy::Current);
        let mut responses = vec![Response::default(); prompts.len()];
        let (mut caches, logits) = self.read_prompts(view, prompts)?;
        // The prompts that are still continued, in the order of the caches' rows.
        let mut running: Vec<usize> = (0..prompts.len()).collect();
        let mut over = extend_all(&mut responses, prompts, &running, logits, draws);
        loop {
            let left: Vec<usize> = (0..running.len()).filter(|&row| !over[row]).collect();
            if left.is_empty() {
                return Ok(responses);
            }
            if left.len() < running.len() {
                caches.keep(&left);
                running = left.into_iter().map(|row| running[row]).collect();
            }
            let logits = self.read_tokens(view, prompts, &responses, &running, &mut caches)?;
            over = extend_all(&mut responses, prompts, &running, logits, draws);
        }
    }

    /// Reads each different prompt once; what its sequences begin with, and the logits after it, `[sequences, vocabulary]`.
    fn read_prompts(&self, view: View<'_>, prompts: &[Prompt<'_>]) -> Result<(Caches, Vec<f32>), ModelError> {
        let (different, row_of) = distinct(prompts);
        let layout = CacheLayout::new(&different, &row_of, &self.device);
        let mut packed = vec![[Vec::new(), Vec::new()]; self.plan.layers];
        let mut ends = Vec::new();
        for prompts in passes(&different) {
            ends.push(self.read_packed(view, prompts, &mut packed));
        }
        let place = |parts: Vec<Tensor<3>>| layout.place(Tensor::cat(parts, 0));
        let layers = packed.into_iter().map(|both| both.into_iter().map(place).collect());
        let ends = Tensor::cat(ends, 0);
        let caches = Caches {
            layers: layers.collect(),
            mask: layout.mask((&self.device, ends.dtype())),
            used: layout.columns,
        };
        let rows: Vec<u32> = row_of.iter().map(|&row| row as u32).collect();
        let hidden = select_rows(ends, &rows, &self.device);
        let logits = self.head(view, self.final_norm(view, hidden));
        Ok((caches, tensor_to_vec(logits)?))
    }

    /// Reads prompts in one pass. Adds their keys and values, `[tokens, key heads, dim]`, to `packed`, layer by layer; returns the
    /// hidden states after the last tokens, `[prompts, hidden]`.
    fn read_packed(&self, view: View<'_>, prompts: &[&[u32]], packed: &mut [[Vec<Tensor<3>>; 2]]) -> Tensor<2> {
        let positions: Vec<u32> = prompts.iter().flat_map(|prompt| 0..prompt.len() as u32).collect();
        let rows: Vec<RowShape> = prompts.iter().map(|prompt| causal(prompt.len())).collect();
        let mut hidden = self.embed(view, &prompts.concat());
        let place = (&self.device, hidden.dtype());
        let attention = AttentionLayout::new(&rows, place);
        let rotary = RotaryTable::new(&self.plan.rope, self.plan.head_dim, &positions, place);
        for (layer, [keys, values]) in self.parameters.layers.iter().zip(packed) {
            hidden = self.block(view, layer, hidden, &rotary, |q, k, v| {
                let mixed = attention.attend(&q, &k, &v, self.attention_scale());
                keys.push(k);
                values.push(v);
                mixed
            });
        }
        let ends: Vec<u32> = starts(prompts)
            .zip(prompts)
            .map(|(start, prompt)| (start + prompt.len() - 1) as u32)
            .collect();
        select_rows(hidden, &ends, &self.device)
    }

    /// Reads the last token of each running response; the logits after it.
    fn read_tokens(
        &self,
        view: View<'_>,
        prompts: &[Prompt<'_>],
        responses: &[Response],
        running: &[usize],
        caches: &mut Caches,
    ) -> Result<Vec<f32>, ModelError> {
        let last = |&row: &usize| responses[row].tokens.last().copied().unwrap_or_default();
        let tokens: Vec<u32> = running.iter().map(last).collect();
        let place = |&row: &usize| (prompts[row].tokens.len() + responses[row].tokens.len() - 1) as u32;
        let positions: Vec<u32> = running.iter().map(place).collect();
        caches.make_room();
        let mut hidden = self.embed(view, &tokens);
        let rotary = RotaryTable::new(
            &self.plan.rope,
            self.plan.head_dim,
            &positions,
            (&self.device, hidden.dtype()),
        );
        for (index, layer) in self.parameters.layers.iter().enumerate() {
            hidden = self.block(view, layer, hidden, &rotary, |q, k, v| {
                caches.put(index, [k, v]);
                caches.attend(index, q.mul_scalar(self.attention_scale()))
            });
        }
        caches.used += 1;
        tensor_to_vec(self.head(view, self.final_norm(view, hidden)))
    }
}

/// Draws a token for every running response; which of them that ended.
fn extend_all(
    responses: &mut [Response],
    prompts: &[Prompt<'_>],
    running: &[usize],
    mut logits: Vec<f32>,
    draws: &Draws,
) -> Vec<bool> {
    let vocabulary = logits.len() / running.len();
    let mut taken: Vec<Response> = running.iter().map(|&row| std::mem::take(&mut responses[row])).collect();
    let over = taken
        .par_iter_mut()
        .zip(logits.par_chunks_exact_mut(vocabulary))
        .zip(running)
        .map(|((response, logits), &row)| extend(response, logits, prompts[row], draws))
        .collect();
    for (&row, response) in running.iter().zip(taken) {
        responses[row] = response;
    }
    over
}

/// Different prompts among neighbours, and which of them each prompt is.
fn distinct<'a>(prompts: &[Prompt<'a>]) -> (Vec<&'a [u32]>, Vec<usize>) {
    let mut different: Vec<&[u32]> = Vec::new();
    let row_of = prompts
        .iter()
        .map(|prompt| {
            if different.last() != Some(&prompt.tokens) {
                different.push(prompt.tokens);
            }
            different.len() - 1
        })
        .collect();
    (different, row_of)
}

/// Prompts in the order given, in passes of some thousand tokens.
fn passes<'a, 'b>(mut prompts: &'b [&'a [u32]]) -> Vec<&'b [&'a [u32]]> {
    let mut passes = Vec::new();
    while !prompts.is_empty() {
        let mut tokens = 0;
        let fits = |prompt: &&&[u32]| {
            tokens += prompt.len();
            tokens <= MOST_TOKENS
        };
        let count = prompts.iter().take_while(fits).count().max(1);
        let (pass, rest) = prompts.split_at(count);
        passes.push(pass);
        prompts = rest;
    }
    passes
}

/// Where each prompt begins among the packed tokens.
fn starts<'a>(prompts: &'a [&[u32]]) -> impl Iterator<Item = usize> + 'a {
    prompts.iter().scan(0, |next, prompt| {
        let start = *next;
        *next += prompt.len();
        Some(start)
    })
}

fn causal(prompt: usize) -> RowShape {
    RowShape::Tree {
        prompt,
        branches: Vec::new(),
    }
}

/// How prompts' keys and values are placed in caches: they end in the same column, so that all sequences go on in the same one.
struct CacheLayout {
    /// Where each place of the caches reads from among the packed tokens, sequence by sequence.
    sources: Tensor<1, Int>,
    /// Columns before each sequence's prompt.
    padding: Vec<usize>,
    columns: usize,
}

impl CacheLayout {
    fn new(different: &[&[u32]], row_of: &[usize], device: &Device) -> Self {
        let columns = different.iter().map(|prompt| prompt.len()).max().unwrap_or(0);
        let starts: Vec<usize> = starts(different).collect();
        let padding: Vec<usize> = row_of.iter().map(|&row| columns - different[row].len()).collect();
        // A column before the prompt reads the prompt's first token; the mask hides it.
        let sources: Vec<i64> = row_of
            .iter()
            .zip(&padding)
            .flat_map(|(&row, &padding)| (0..columns).map(move |column| (row, column.saturating_sub(padding))))
            .map(|(row, token)| (starts[row] + token) as i64)
            .collect();
        let places = sources.len();
        Self {
            sources: Tensor::from_data(TensorData::new(sources, [places]), device),
            padding,
            columns,
        }
    }

    /// `[tokens, heads, dim]` to `[sequences, heads, columns, dim]`.
    fn place(&self, packed: Tensor<3>) -> Tensor<4> {
        let [_, heads, dim] = packed.dims();
        let placed = packed.select(0, self.sources.clone());
        placed
            .reshape([self.padding.len(), self.columns, heads, dim])
            .swap_dims(1, 2)
    }

    /// `[sequences, 1, 1, columns]`: −∞ before a prompt, 0 in it.
    fn mask(&self, place: (&Device, DType)) -> Tensor<4> {
        let mut values = vec![0.0; self.padding.len() * self.columns];
        for (row, &padding) in values.chunks_exact_mut(self.columns.max(1)).zip(&self.padding) {
            row[..padding].fill(f32::NEG_INFINITY);
        }
        Tensor::from_data(TensorData::new(values, [self.padding.len(), 1, 1, self.columns]), place)
    }
}

/// Keys and values of every layer, `[sequences, key heads, columns, dim]`, of which the first `used` columns are written.
struct Caches {
    /// Keys and values of each layer.
    layers: Vec<Vec<Tensor<4>>>,
    /// Added to scores, `[sequences, 1, 1, columns]`.
    mask: Tensor<4>,
    used: usize,
}

impl Caches {
    /// Drops all sequences but those in `rows`.
    fn keep(&mut self, rows: &[usize]) {
        let indices: Vec<i64> = rows.iter().map(|&row| row as i64).collect();
        let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [rows.len()]), &self.mask.device());
        let tensors = self.layers.iter_mut().flatten().chain([&mut self.mask]);
        tensors.for_each(|tensor| *tensor = tensor.clone().select(0, indices.clone()));
    }

    /// Shows the next column to all sequences; where there is none, adds some.
    fn make_room(&mut self) {
        let [sequences, _, _, columns] = self.mask.dims();
        let device = self.mask.device();
        let place = (&device, self.mask.dtype());
        if self.used == columns {
            for cache in self.layers.iter_mut().flatten() {
                let [_, heads, _, dim] = cache.dims();
                let more = Tensor::zeros([sequences, heads, GROWTH, dim], place);
                *cache = Tensor::cat(vec![cache.clone(), more], 2);
            }
            let hidden = Tensor::full([sequences, 1, 1, GROWTH], f32::NEG_INFINITY, place);
            self.mask = Tensor::cat(vec![self.mask.clone(), hidden], 3);
        }
        let next = [0..sequences, 0..1, 0..1, self.used..self.used + 1];
        let shown = Tensor::zeros([sequences, 1, 1, 1], place);
        self.mask = self.mask.clone().slice_assign(next, shown);
    }

    /// Writes keys and values of one token a sequence, `[sequences, key heads, dim]`, into the next column.
    fn put(&mut self, layer: usize, tokens: [Tensor<3>; 2]) {
        let column = self.used..self.used + 1;
        // Nobody else holds them while they are written to, so that nothing is copied.
        let caches = std::mem::take(&mut self.layers[layer]).into_iter().zip(tokens);
        self.layers[layer] = caches
            .map(|(cache, token)| {
                let [sequences, heads, _, dim] = cache.dims();
                cache.slice_assign([0..sequences, 0..heads, column.clone(), 0..dim], token.unsqueeze_dim(2))
            })
            .collect();
    }

    /// Scaled queries of one token a sequence, `[sequences, heads, dim]`, over all columns: `[sequences, heads · dim]`.
    fn attend(&self, layer: usize, q: Tensor<3>) -> Tensor<2> {
        let [keys, values] = [0, 1].map(|which| self.layers[layer][which].clone());
        let ([sequences, heads, dim], [_, key_heads, _, _]) = (q.dims(), keys.dims());
        // Query heads of one key head are rows of its product.
        let q = q.reshape([sequences, key_heads, heads / key_heads, dim]);
        let scores = q.matmul(keys.transpose()) + self.mask.clone();
        let mixed = activation::softmax(scores, 3).matmul(values);
        mixed.reshape([sequences, heads * dim])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::path::Path;

    use super::*;
    use crate::DecoderOptions;

    fn decoder(name: &str) -> Decoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures");
        let options = DecoderOptions::inference(Device::flex());
        let mut decoder = Decoder::load(&folder.join("models").join(name), &options).unwrap();
        let adapter = folder.join("adapters").join(name);
        if adapter.is_dir() {
            decoder.load_adapter(&adapter).unwrap();
        }
        decoder
    }

    fn draws(slots: usize, limit: usize) -> Draws {
        Draws {
            seed: 9,
            update: 4,
            temperature: 0.8,
            limit,
            end_tokens: vec![7, 11, 60],
            slots,
        }
    }

    /// Two samples a prompt, in an order in which equal prompts do not follow each other.
    fn prompts(tokens: &[Vec<u32>]) -> Vec<Prompt<'_>> {
        let of_sample = |sample| {
            let users = tokens.iter().zip(0..);
            users.map(move |(tokens, user)| Prompt { tokens, user, sample })
        };
        of_sample(0).chain(of_sample(1)).collect()
    }

    #[test]
    fn waves_draw_what_the_processors_engine_draws() {
        let lists: Vec<Vec<u32>> = (1..7)
            .map(|n| (0..n * 5).map(|i| (i * 37 + n * 11) % 290 + 1).collect())
            .collect();
        for name in ["gemma", "llama", "llama_untied"] {
            let mut decoder = decoder(name);
            let prompts = prompts(&lists);
            // 80 tokens are more than the caches have room for at first.
            for (slots, limit) in [(1, 20), (5, 80), (64, 20)] {
                let expected = decoder.sample_responses(&prompts, &draws(slots, limit)).unwrap();
                let found = decoder.sample_in_waves(&prompts, &draws(slots, limit)).unwrap();
                assert!(expected.iter().any(|response| response.ended), "{name}");
                for (found, expected) in found.iter().zip(&expected) {
                    assert_eq!(
                        (&found.tokens, found.ended),
                        (&expected.tokens, expected.ended),
                        "{name}"
                    );
                    let pairs = found.logprobs.iter().zip(&expected.logprobs);
                    let apart = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                    assert!(apart < 1e-4, "{name}: {apart}");
                }
            }
        }
    }

    #[test]
    fn passes_hold_whole_prompts_and_no_more_tokens_than_they_may() {
        let prompts: Vec<Vec<u32>> = [4000, 90, 7, 5000, 4096].map(|len| vec![1; len]).to_vec();
        let prompts: Vec<&[u32]> = prompts.iter().map(Vec::as_slice).collect();
        let lengths = |pass: &[&[u32]]| pass.iter().map(|prompt| prompt.len()).collect::<Vec<_>>();
        let passes: Vec<Vec<usize>> = passes(&prompts).into_iter().map(lengths).collect();
        assert_eq!(passes, [vec![4000, 90], vec![7], vec![5000], vec![4096]]);
    }
}
