//! Sampling on the card: prompts are read packed and once, then one CUDA graph a batch size draws a token of every sequence;
//! a sequence leaves at its end, and the next takes its place.

use std::collections::BTreeMap;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::attend::StepInputs;
use super::batch::Rows;
use super::decoder::{CudaDecoder, Layer, Stream};
use super::gemm::{Factor, Scale};
use super::gpu::{Buffer, Element, driver};
use super::kernels::{NEXT_TOKENS, ROTATE_STORE, SAMPLE, SAMPLE_JOIN, STORE_PROMPT};
use super::layers::Stack;
use crate::ops::RowShape;
use crate::random::seed_key;
use crate::sample::{Draws, Prompt, Response, check_prompts};
use crate::{ModelError, TrainedPart};

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

/// What sampling keeps between calls.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    merged: Option<(u64, Merged)>,
    state: Option<State>,
}

/// The weights with the adapters added.
#[derive(Debug)]
struct Merged {
    layers: Vec<[Stack; 4]>,
    head: Option<Stack>,
}

/// Sizes that buffers and graphs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Shape {
    slots: usize,
    prompts: usize,
    prompt: usize,
    limit: usize,
}

impl Shape {
    fn tokens(self) -> usize {
        self.prompts * self.prompt + self.slots * self.limit
    }
}

/// A captured step.
#[derive(Debug)]
struct Graph(sys::CUgraphExec);

// SAFETY: it is launched with the GPU's context current, by whoever has the decoder.
unsafe impl Send for Graph {}

impl Drop for Graph {
    fn drop(&mut self) {
        // SAFETY: the decoder waits for the stream before a state is given up.
        let _ = unsafe { result::graph::exec_destroy(self.0) };
    }
}

/// Everything that a step reads and writes.
#[derive(Debug)]
struct State {
    graphs: BTreeMap<usize, (u64, Graph)>,
    angles: Arc<Buffer>,
    shape: Shape,
    /// One more than there are sequences: the last is never active.
    slots: Buffer,
    chosen: Buffer,
    responses: Buffer,
    logprobs: Buffer,
    ends: Buffer,
    tokens: Buffer,
    positions: Buffer,
    hidden: [Buffer; 2],
    x: Buffer,
    qkv: Buffer,
    mixed: Buffer,
    both: Buffer,
    gated: Buffer,
    /// What is added to the hidden states next.
    added: Buffer,
    partial: Buffer,
    logits: Buffer,
    best: Buffer,
    keys: Vec<Buffer>,
    values: Vec<Buffer>,
}

/// What of the draws is in a step's arguments: with others, graphs are captured anew.
#[derive(Debug, Clone, Copy)]
struct Drawing {
    inverse: f32,
    seed: [u32; 2],
    update: u32,
    ends: usize,
}

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

    /// Brings the merged weights up to date.
    fn merge(&self, merged: &mut Option<(u64, Merged)>) -> Result<(), ModelError> {
        if merged
            .as_ref()
            .is_some_and(|(version, _)| *version == self.parameters.version())
        {
            return Ok(());
        }
        let gpu = &self.gpu;
        let plain = |stack: &Stack| {
            let parts: Vec<_> = stack
                .parts
                .iter()
                .map(|part| (part.name.clone(), part.outputs, 0))
                .collect();
            Stack::new(gpu, self.element, stack.inputs, &parts, 1.0)
        };
        if merged.is_none() {
            let layers = self
                .layers
                .iter()
                .map(|layer| {
                    Ok([
                        plain(&layer.qkv)?,
                        plain(&layer.output)?,
                        plain(&layer.gate_up)?,
                        plain(&layer.down)?,
                    ])
                })
                .collect::<Result<_, ModelError>>()?;
            let adapted = self.head.parts[0].rank > 0;
            let head = adapted.then(|| plain(&self.head)).transpose()?;
            *merged = Some((self.parameters.version(), Merged { layers, head }));
        }
        if let Some((version, merged)) = merged {
            for (layer, into) in self.layers.iter().zip(&merged.layers) {
                for (stack, into) in [&layer.qkv, &layer.output, &layer.gate_up, &layer.down]
                    .into_iter()
                    .zip(into)
                {
                    stack.merge_into(gpu, into)?;
                }
            }
            if let Some(into) = &merged.head {
                self.head.merge_into(gpu, into)?;
            }
            *version = self.parameters.version();
        }
        Ok(())
    }

    fn make_state(&self, state: &mut Option<State>, mut shape: Shape) -> Result<(), ModelError> {
        if let Some(have) = state {
            let have = have.shape;
            let enough = have.slots >= shape.slots
                && have.prompts >= shape.prompts
                && have.prompt >= shape.prompt
                && have.limit == shape.limit;
            if enough && have.slots <= 2 * shape.slots {
                return Ok(());
            }
        }
        *state = None;
        let wanted = shape.slots;
        loop {
            match self.new_state(shape) {
                Ok(made) => {
                    *state = Some(made);
                    return Ok(());
                }
                Err(ModelError::GpuMemory { .. }) if shape.slots > 1 => {
                    shape.slots = shape.slots * 3 / 4;
                    shape.prompts = shape.prompts.min(shape.slots);
                }
                Err(ModelError::GpuMemory { wanted: bytes, free }) => {
                    return Err(ModelError::Gpu {
                        what: format!("sampling {wanted} responses at once, or even one"),
                        message: format!("{bytes} bytes more are needed, {free} are free"),
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    fn new_state(&self, shape: Shape) -> Result<State, ModelError> {
        let (gpu, plan, element) = (&self.gpu, &self.plan, self.element);
        let rows = batch_size(shape.slots);
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let own = |count: usize| gpu.elements(rows * count, element);
        let words = |count: usize| gpu.zeros(count, Element::F32);
        let cache = || gpu.elements(shape.tokens() * keys, element);
        Ok(State {
            graphs: BTreeMap::new(),
            angles: self.angles(1)?,
            slots: words((shape.slots + 1) * SLOT_WORDS)?,
            chosen: words(rows)?,
            responses: words((shape.slots + 1) * shape.limit)?,
            logprobs: words((shape.slots + 1) * shape.limit)?,
            ends: words(MOST_ENDS)?,
            tokens: words(rows)?,
            positions: words(rows)?,
            hidden: [words(rows * plan.hidden)?, words(rows * plan.hidden)?],
            x: own(plan.hidden)?,
            qkv: own(queries + 2 * keys)?,
            mixed: own(queries)?,
            both: own(2 * plan.intermediate)?,
            gated: own(plan.intermediate)?,
            added: own(plan.hidden)?,
            partial: words(self.heads().step_scratch(rows))?,
            logits: words(rows * plan.vocabulary)?,
            best: words(rows * SAMPLE_PARTS * 5)?,
            keys: (0..plan.layers).map(|_| cache()).collect::<Result<_, _>>()?,
            values: (0..plan.layers).map(|_| cache()).collect::<Result<_, _>>()?,
            shape,
        })
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
        let stream = self.embed(&rows.tokens, count)?;
        let stream = match merged {
            None => self.blocks(&self.layers, &rows, stream, false, false, Some(&keep))?.0,
            Some(merged) => {
                let mut stream = stream;
                for (index, stacks) in merged.layers.iter().enumerate() {
                    stream = self.merged_block(index, stacks, &rows, stream, &keep)?;
                }
                stream
            }
        };
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

    /// Captures a step of `rows` rows. Before, it is run once on the slot that is never active: kernels are compiled and loaded
    /// then, which a capture does not allow.
    fn capture(
        &self,
        state: &State,
        merged: Option<&Merged>,
        rows: usize,
        drawing: Drawing,
    ) -> Result<Graph, ModelError> {
        let idle = vec![state.shape.slots as u32; rows];
        state.chosen.write(0, &idle)?;
        self.one_step(state, merged, rows, drawing)?;
        self.gpu.wait()?;
        let failed = driver("capturing a step");
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the capture is ended below whatever the step says.
        unsafe {
            result::stream::begin_capture(self.gpu.stream(), mode).map_err(&failed)?;
            let stepped = self.one_step(state, merged, rows, drawing);
            let graph = result::stream::end_capture(self.gpu.stream());
            stepped?;
            let graph = graph.map_err(&failed)?;
            let ready = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags_enum(0));
            let _ = result::graph::destroy(graph);
            Ok(Graph(ready.map_err(&failed)?))
        }
    }

    /// The launches of one step.
    fn one_step(
        &self,
        state: &State,
        merged: Option<&Merged>,
        rows: usize,
        drawing: Drawing,
    ) -> Result<(), ModelError> {
        let (gpu, plan, element) = (&self.gpu, &self.plan, self.element);
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let all = queries + 2 * keys;
        // SAFETY: state's buffers have room for `rows` rows.
        unsafe {
            let arguments = [
                (&state.tokens).into(),
                (&state.positions).into(),
                (&state.slots).into(),
                (&state.chosen).into(),
                (&state.responses).into(),
                state.shape.limit.into(),
                rows.into(),
            ];
            let grid = [rows.div_ceil(128) as u32, 1, 1];
            gpu.launch(NEXT_TOKENS, element, grid, 128, 0, &arguments)?;
        }
        self.embed_into(&state.tokens, rows, &state.hidden[0])?;
        let x = state.x.matrix(rows, plan.hidden);
        let qkv = state.qkv.matrix(rows, all);
        let mixed = state.mixed.matrix(rows, queries);
        let both = state.both.matrix(rows, 2 * plan.intermediate);
        let gated = state.gated.matrix(rows, plan.intermediate);
        let mut now = 0;
        let added = state.added.matrix(rows, plan.hidden);
        let mut pending = false;
        let multiply = |into, left, stack: &Stack| {
            let weights = Factor::Transposed(stack.weights());
            gpu.multiply((into, element), Factor::Plain(left), weights, element, Scale::ONE)
        };
        for (index, layer) in self.layers.iter().enumerate() {
            let [qkv_stack, output, gate_up, down] = stacks(merged, index, layer);
            now = self.step_norm(state, now, pending, &layer.input_norm, rows)?;
            multiply(qkv, x, qkv_stack)?;
            // SAFETY: as above; active slots' places lie in the cache.
            unsafe {
                let arguments = [
                    qkv.into(),
                    all.into(),
                    (&state.keys[index]).into(),
                    (&state.values[index]).into(),
                    (&state.slots).into(),
                    (&state.chosen).into(),
                    (&state.positions).into(),
                    state.angles.as_ref().into(),
                    plan.heads.into(),
                    plan.kv_heads.into(),
                    plan.head_dim.into(),
                ];
                let grid = [(plan.heads + 2 * plan.kv_heads) as u32, rows as u32, 1];
                let threads = (plan.head_dim / 2).next_multiple_of(32).min(256) as u32;
                gpu.launch(ROTATE_STORE, element, grid, threads, 0, &arguments)?;
            }
            let inputs = StepInputs {
                qkv,
                mixed,
                keys: &state.keys[index],
                values: &state.values[index],
                slots: &state.slots,
                chosen: &state.chosen,
                partial: &state.partial,
            };
            self.heads().attend_step(inputs, rows)?;
            multiply(added, mixed, output)?;
            now = self.step_norm(state, now, true, &layer.mlp_norm, rows)?;
            multiply(both, x, gate_up)?;
            self.gate(both, gated, rows)?;
            multiply(added, gated, down)?;
            pending = true;
        }
        self.step_norm(state, now, pending, &self.norm, rows)?;
        self.logits(state, merged, rows)?;
        self.draw(state, &state.chosen, rows, drawing)
    }

    /// Adds what is pending to the hidden states of `now`, and norms them into x; says where they are then.
    fn step_norm(
        &self,
        state: &State,
        now: usize,
        pending: bool,
        norm: &super::decoder::Norm,
        rows: usize,
    ) -> Result<usize, ModelError> {
        let x = state.x.matrix(rows, self.plan.hidden);
        let next = if pending { 1 - now } else { now };
        let out = pending.then(|| &state.hidden[next]);
        self.add_norm_of(
            (&state.hidden[now], pending.then_some(&state.added)),
            None,
            rows,
            norm,
            out,
            None,
            &[x],
        )?;
        Ok(next)
    }

    /// Logits of `rows` rows of x.
    fn logits(&self, state: &State, merged: Option<&Merged>, rows: usize) -> Result<(), ModelError> {
        let plan = &self.plan;
        let head = merged.and_then(|merged| merged.head.as_ref()).unwrap_or(&self.head);
        let x = state.x.matrix(rows, plan.hidden);
        head.forward_f32(&self.gpu, 0, x, state.logits.matrix(rows, plan.vocabulary), false)
    }

    /// Draws a token for each of `rows` sequences and writes it down.
    fn draw(&self, state: &State, chosen: &Buffer, rows: usize, drawing: Drawing) -> Result<(), ModelError> {
        let (gpu, element) = (&self.gpu, self.element);
        // SAFETY: `chosen` has slots of the state; every buffer has room for `rows`.
        unsafe {
            let arguments = [
                (&state.best).into(),
                (&state.logits).into(),
                (&state.slots).into(),
                chosen.into(),
                self.plan.vocabulary.into(),
                drawing.inverse.into(),
                drawing.seed[0].into(),
                drawing.seed[1].into(),
                drawing.update.into(),
            ];
            let grid = [SAMPLE_PARTS as u32, rows as u32, 1];
            gpu.launch(SAMPLE, element, grid, 256, 0, &arguments)?;
            let arguments = [
                (&state.slots).into(),
                (&state.responses).into(),
                (&state.logprobs).into(),
                (&state.best).into(),
                SAMPLE_PARTS.into(),
                chosen.into(),
                (&state.ends).into(),
                drawing.ends.into(),
                state.shape.limit.into(),
            ];
            gpu.launch(SAMPLE_JOIN, element, [rows as u32, 1, 1], 32, 0, &arguments)
        }
    }

    /// As [`CudaDecoder::blocks`], one block with merged weights.
    fn merged_block(
        &self,
        index: usize,
        [qkv, output, gate_up, down]: &[Stack; 4],
        rows: &Rows,
        stream: Stream,
        keep: super::decoder::Keep<'_>,
    ) -> Result<Stream, ModelError> {
        let layer = &self.layers[index];
        let of = super::decoder::BlockWeights {
            input_norm: &layer.input_norm,
            qkv,
            output,
            mlp_norm: &layer.mlp_norm,
            gate_up,
            down,
        };
        Ok(self.block(index, of, rows, stream, false, Some(keep))?.0)
    }
}

fn stacks<'a>(merged: Option<&'a Merged>, index: usize, layer: &'a Layer) -> [&'a Stack; 4] {
    match merged {
        Some(merged) => merged.layers[index].each_ref(),
        None => [&layer.qkv, &layer.output, &layer.gate_up, &layer.down],
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
