//! A step: one token of every running sequence.

use cudarc::driver::{result, sys};

use super::SAMPLE_PARTS;
use super::state::{Drawing, Graph, Merged, State};
use crate::cuda::attend::StepInputs;
use crate::cuda::decoder::{BlockWeights, CudaDecoder, Layer, Norm};
use crate::cuda::gpu::{Buffer, driver};
use crate::cuda::kernels::{NEXT_TOKENS, ROTATE_STORE, SAMPLE, SAMPLE_JOIN};
use crate::cuda::layers::Stack;
use crate::{ModelError, Policy};

impl CudaDecoder {
    /// Captures a step of `rows` rows. Before, it is run once on the slot that is never active: kernels are compiled and loaded
    /// then, which a capture does not allow.
    pub(super) fn capture(
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
    pub(super) fn one_step(
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
        self.embed_into(self.table(Policy::Current), &state.tokens, rows, &state.hidden[0])?;
        let x = state.x.matrix(rows, plan.hidden);
        let qkv = state.qkv.matrix(rows, all);
        let mixed = state.mixed.matrix(rows, queries);
        let both = state.both.matrix(rows, 2 * plan.intermediate);
        let gated = state.gated.matrix(rows, plan.intermediate);
        let mut now = 0;
        let added = state.added.matrix(rows, plan.hidden);
        let mut pending = false;
        let multiply = |into, left, stack: &Stack| stack.forward_all(gpu, left, into);
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
    pub(super) fn step_norm(
        &self,
        state: &State,
        now: usize,
        pending: bool,
        norm: &Norm,
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
    pub(super) fn logits(&self, state: &State, merged: Option<&Merged>, rows: usize) -> Result<(), ModelError> {
        let plan = &self.plan;
        let head = merged.and_then(|merged| merged.head.as_ref()).unwrap_or(&self.head);
        let x = state.x.matrix(rows, plan.hidden);
        head.forward_f32(&self.gpu, 0, x, state.logits.matrix(rows, plan.vocabulary), false)
    }

    /// Draws a token for each of `rows` sequences and writes it down.
    pub(super) fn draw(&self, state: &State, chosen: &Buffer, rows: usize, drawing: Drawing) -> Result<(), ModelError> {
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
}

/// A block's weights as sampling takes them.
pub(super) fn weights<'a>(merged: Option<&'a Merged>, index: usize, layer: &'a Layer) -> BlockWeights<'a> {
    let [qkv, output, gate_up, down] = stacks(merged, index, layer);
    BlockWeights {
        input_norm: &layer.input_norm,
        qkv,
        output,
        mlp_norm: &layer.mlp_norm,
        gate_up,
        down,
    }
}

fn stacks<'a>(merged: Option<&'a Merged>, index: usize, layer: &'a Layer) -> [&'a Stack; 4] {
    match merged {
        Some(merged) => merged.layers[index].each_ref(),
        None => [&layer.qkv, &layer.output, &layer.gate_up, &layer.down],
    }
}
