//! Sampling on the card: prompts are read packed and once, then one CUDA graph a batch size draws a token of every sequence;
//! a sequence leaves at its end, and the next takes its place.

mod state;
mod step;

use std::sync::Arc;

use cudarc::driver::result;

use crate::cuda::batch::Rows;
use crate::cuda::decoder::CudaDecoder;
use crate::cuda::gpu::{Buffer, driver};
use crate::cuda::kernels::STORE_PROMPT;
use crate::ops::RowShape;
use crate::random::seed_key;
use crate::sample::{Draws, Prompt, Response, check_prompts};
use crate::{ModelError, Policy, TrainedPart};
use state::{Drawing, Merged, Shape, State};
use step::weights;

pub(super) use state::Sampler;

/// Tokens of prompts that are read together.
const PREFILL_TOKENS: usize = 16_384;
/// Steps between two looks at who has ended.
const STEPS: usize = 16;
/// Most tokens that end a response.
const MOST_ENDS: usize = 64;
/// Blocks that share a row of logits.
const SAMPLE_PARTS: usize = 32;
/// 32-bit words of a slot, in the order of the kernels' struct.
const SLOT_WORDS: usize = 8;
const SLOT_COUNT: usize = 3;
const SLOT_ACTIVE: usize = 6;
const SLOT_ENDED: usize = 7;

/// A sequence under way.
#[derive(Debug)]
struct Running {
    index: usize,
    prompt: usize,
}

impl CudaDecoder {
    /// Continues each prompt; see [`crate::LanguageModel::sample`].
    ///
    /// # Errors
    /// Prompts that cannot be continued, or too little memory for even one sequence.
    pub fn sample_responses(&mut self, prompts: &[Prompt<'_>], draws: &Draws) -> Result<Vec<Response>, ModelError> {
        check_prompts(prompts, draws, self.plan.vocabulary)?;
        if draws.end_tokens.len() > MOST_ENDS {
            let message = format!(
                "{} end tokens are too many: at most {MOST_ENDS}",
                draws.end_tokens.len()
            );
            return Err(ModelError::Input(message));
        }
        if prompts.is_empty() {
            return Ok(Vec::new());
        }
        let longest = prompts.iter().map(|prompt| prompt.tokens.len()).max().unwrap_or(1);
        let angles = self.angles(longest + draws.limit)?;
        let mut sampler = self.sampler.take().unwrap_or_default();
        let answer = self.sample_with(&mut sampler, prompts, draws, longest, angles);
        // Graphs and buffers may be in use until here.
        let waited = self.gpu.wait();
        self.sampler = Some(sampler);
        waited?;
        answer
    }

    fn sample_with(
        &mut self,
        sampler: &mut Sampler,
        prompts: &[Prompt<'_>],
        draws: &Draws,
        longest: usize,
        angles: Arc<Buffer>,
    ) -> Result<Vec<Response>, ModelError> {
        if matches!(self.part(), TrainedPart::Lora(_)) {
            self.merge(&mut sampler.merged)?;
        }
        let different = prompts
            .iter()
            .enumerate()
            .filter(|(index, prompt)| *index == 0 || prompts[index - 1].tokens != prompt.tokens)
            .count();
        let slots = draws.slots.clamp(1, prompts.len());
        let shape = Shape {
            slots,
            prompts: different.min(slots),
            prompt: longest,
            limit: draws.limit,
        };
        self.make_state(&mut sampler.state, shape)?;
        let Some(state) = &mut sampler.state else {
            return Ok(Vec::new());
        };
        if !Arc::ptr_eq(&state.angles, &angles) {
            // Graphs hold the table's address.
            self.gpu.wait()?;
            state.graphs.clear();
            state.angles = angles;
        }
        let merged = sampler.merged.as_ref().map(|(_, merged)| merged);
        state.ends.write(0, &draws.end_tokens)?;
        let drawing = Drawing {
            inverse: 1.0 / draws.temperature as f32,
            seed: seed_key(draws.seed),
            update: draws.update,
            ends: draws.end_tokens.len(),
        };
        self.run_sampling(state, merged, prompts, draws, drawing)
    }

    fn run_sampling(
        &self,
        state: &mut State,
        merged: Option<&Merged>,
        prompts: &[Prompt<'_>],
        draws: &Draws,
        drawing: Drawing,
    ) -> Result<Vec<Response>, ModelError> {
        let mut responses: Vec<Option<Response>> = prompts.iter().map(|_| None).collect();
        let shape = state.shape;
        let mut words = vec![0_u32; (shape.slots + 1) * SLOT_WORDS];
        let mut running: Vec<Option<Running>> = (0..shape.slots).map(|_| None).collect();
        // How many sequences use each place for a prompt, and which prompt stands there.
        let mut prompt_users = vec![0_usize; shape.prompts];
        let mut waiting = 0;
        loop {
            let mut admitted = Vec::new();
            let mut new_prompts: Vec<(usize, &[u32])> = Vec::new();
            let mut tokens = 0;
            while waiting < prompts.len() {
                let Some(slot) = running.iter().position(Option::is_none) else {
                    break;
                };
                let prompt = prompts[waiting];
                let place = match new_prompts.last() {
                    Some((place, same)) if *same == prompt.tokens => *place,
                    _ => {
                        let free = prompt_users.iter().position(|&users| users == 0);
                        let Some(place) = free else { break };
                        if tokens > 0 && tokens + prompt.tokens.len() > PREFILL_TOKENS {
                            break;
                        }
                        tokens += prompt.tokens.len();
                        new_prompts.push((place, prompt.tokens));
                        place
                    }
                };
                prompt_users[place] += 1;
                running[slot] = Some(Running {
                    index: waiting,
                    prompt: place,
                });
                let own = &mut words[slot * SLOT_WORDS..(slot + 1) * SLOT_WORDS];
                own.copy_from_slice(&[
                    (place * shape.prompt) as u32,
                    prompt.tokens.len() as u32,
                    (shape.prompts * shape.prompt + slot * shape.limit) as u32,
                    0,
                    prompt.user,
                    prompt.sample,
                    1,
                    0,
                ]);
                admitted.push((slot, new_prompts.len() - 1));
                waiting += 1;
            }
            if !admitted.is_empty() {
                state.slots.write(0, &words)?;
                self.prefill(state, merged, &new_prompts, &admitted, drawing)?;
            } else if running.iter().all(Option::is_none) {
                break;
            } else {
                let active: Vec<u32> = running
                    .iter()
                    .zip(0..)
                    .filter_map(|(running, slot)| running.as_ref().map(|_| slot))
                    .collect();
                self.steps(state, merged, &active, drawing)?;
            }
            words = state.slots.read(0, words.len())?;
            for slot in 0..shape.slots {
                let own = &words[slot * SLOT_WORDS..(slot + 1) * SLOT_WORDS];
                if own[SLOT_ACTIVE] != 0 {
                    continue;
                }
                let Some(done) = running[slot].take() else { continue };
                prompt_users[done.prompt] -= 1;
                let count = own[SLOT_COUNT] as usize;
                let offset = 4 * slot * shape.limit;
                responses[done.index] = Some(Response {
                    tokens: state.responses.read(offset, count)?,
                    logprobs: state.logprobs.read(offset, count)?,
                    ended: own[SLOT_ENDED] != 0,
                });
            }
        }
        debug_assert!(draws.limit == shape.limit);
        Ok(responses.into_iter().flatten().collect())
    }

    /// Reads prompts, puts what they leave in the cache, and draws the first token of each admitted sequence.
    fn prefill(
        &self,
        state: &State,
        merged: Option<&Merged>,
        prompts: &[(usize, &[u32])],
        admitted: &[(usize, usize)],
        drawing: Drawing,
    ) -> Result<(), ModelError> {
        let (gpu, plan, element) = (&self.gpu, &self.plan, self.element);
        let (mut tokens, mut positions, mut places) = (Vec::new(), Vec::new(), Vec::new());
        let (mut rows, mut ends) = (Vec::new(), Vec::new());
        for (place, prompt) in prompts {
            tokens.extend(*prompt);
            positions.extend(0..prompt.len() as u32);
            places.extend((0..prompt.len()).map(|token| (place * state.shape.prompt + token) as u32));
            rows.push(RowShape::Tree {
                prompt: prompt.len(),
                branches: Vec::new(),
            });
            ends.push(tokens.len() as u32 - 1);
        }
        let rows = Rows::new(gpu, &tokens, &positions, &rows)?;
        let places = gpu.upload(&places)?;
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let all = queries + 2 * keys;
        let count = rows.count;
        let keep = |layer: usize, qkv: &Buffer| -> Result<(), ModelError> {
            let qkv = qkv.matrix(count, all);
            let (k, v) = (
                qkv.columns(queries, keys, element),
                qkv.columns(queries + keys, keys, element),
            );
            // SAFETY: places lie in the cache.
            unsafe {
                let arguments = [
                    (&state.keys[layer]).into(),
                    (&state.values[layer]).into(),
                    k.into(),
                    v.into(),
                    all.into(),
                    (&places).into(),
                    keys.into(),
                ];
                gpu.launch(STORE_PROMPT, element, [count as u32, 1, 1], 128, 0, &arguments)
            }
        };
        let mut stream = self.embed(self.table(Policy::Current), &rows.tokens, count)?;
        let last_rows = gpu.upload(&ends)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let of = weights(merged, index, layer);
            // Of the last block only what follows each prompt is asked for.
            stream = match index + 1 == self.layers.len() {
                true => self.block_of_rows(index, of, &rows, stream, (&last_rows, ends.len()), &keep)?,
                false => self.block(index, of, &rows, stream, (false, false), Some(&keep))?.0,
            };
        }
        if !self.layers.is_empty() {
            ends = (0..ends.len() as u32).collect();
        }
        let rows_of_logits = batch_size(state.shape.slots);
        for admitted in admitted.chunks(rows_of_logits) {
            let chosen: Vec<u32> = admitted.iter().map(|(slot, _)| *slot as u32).collect();
            let last: Vec<u32> = admitted.iter().map(|(_, prompt)| ends[*prompt]).collect();
            let (chosen, last, count) = (gpu.upload(&chosen)?, gpu.upload(&last)?, admitted.len());
            let x = state.x.matrix(count, plan.hidden);
            self.add_norm(&stream, Some(&last), count, &self.norm, None, None, &[x])?;
            self.logits(state, merged, count)?;
            self.draw(state, &chosen, count, drawing)?;
        }
        Ok(())
    }

    /// Up to [`STEPS`] tokens of the sequences in `active`.
    fn steps(
        &self,
        state: &mut State,
        merged: Option<&Merged>,
        active: &[u32],
        drawing: Drawing,
    ) -> Result<(), ModelError> {
        let rows = batch_size(active.len());
        let mut chosen = active.to_vec();
        // Rows to spare work on the slot that is never active.
        chosen.resize(rows, state.shape.slots as u32);
        let key = fingerprint(drawing);
        if state.graphs.get(&rows).is_none_or(|(of, _)| *of != key) {
            let graph = self.capture(state, merged, rows, drawing)?;
            state.graphs.insert(rows, (key, graph));
        }
        state.chosen.write(0, &chosen)?;
        if let Some((_, graph)) = state.graphs.get(&rows) {
            for _ in 0..STEPS {
                // SAFETY: all that it reads and writes lives in `state`, and the weights in this decoder.
                unsafe { result::graph::launch(graph.0, self.gpu.stream()) }.map_err(driver("sampling a token"))?;
            }
        }
        Ok(())
    }
}

/// The sizes that graphs are captured for.
fn batch_size(rows: usize) -> usize {
    match rows {
        0..=1 => 1,
        2..=8 => rows.next_power_of_two(),
        9..=64 => rows.next_multiple_of(8),
        _ => rows.next_multiple_of(32),
    }
}

fn fingerprint(drawing: Drawing) -> u64 {
    let words = [
        drawing.inverse.to_bits(),
        drawing.seed[0],
        drawing.seed[1],
        drawing.update,
        drawing.ends as u32,
    ];
    words.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &word| {
        (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::batch_size;

    #[test]
    fn graphs_are_few() {
        let sizes: std::collections::BTreeSet<usize> = (1..=512).map(batch_size).collect();
        assert!(sizes.len() <= 26, "{sizes:?}");
        assert!((1..=512).all(|rows| batch_size(rows) >= rows));
    }
}
