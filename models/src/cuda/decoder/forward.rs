//! The forward pass over packed tokens.

use std::sync::{Arc, PoisonError};

use super::{CudaDecoder, CudaPass, CudaTrunk, Norm, Stream, Track};
use crate::cuda::batch::{Grouped, Rows, Scored};
use crate::cuda::gpu::{Buffer, Element, View};
use crate::cuda::kernels::{ADD_NORM, ADD_NORM_8, EMBED, GATE, GATE_8, MERGE, ROTATE};
use crate::cuda::launch::Argument;
use crate::cuda::layers::{Stack, activation, blocks};
use crate::decoder::check_tokens;
use crate::packed::PackedBatch;
use crate::{ModelError, Policy, Scores};

impl CudaDecoder {
    /// Runs the blocks that training leaves alone.
    ///
    /// # Errors
    /// A token outside of the vocabulary, or too little memory.
    pub fn trunk(&self, batch: &PackedBatch) -> Result<CudaTrunk, ModelError> {
        check_tokens(&batch.tokens, self.plan.vocabulary, "batch")?;
        if self.embedding_slot.is_some() {
            return Ok(CudaTrunk {
                hidden: None,
                pending: None,
            });
        }
        let rows = Rows::of(&self.gpu, batch)?;
        let stream = self.embed(self.table(Policy::Current), &rows.tokens, rows.count)?;
        let layers = &self.layers[..self.first_trained];
        let (stream, _) = self.blocks(layers, &rows, stream, false, Track::Nothing)?;
        Ok(CudaTrunk {
            hidden: Some(Arc::try_unwrap(stream.hidden).map_err(|_| kept())?),
            pending: stream.pending,
        })
    }

    /// Scores every response token of `batch` without gradients.
    ///
    /// # Errors
    /// Too little memory.
    pub fn score(
        &self,
        batch: &PackedBatch,
        trunk: &CudaTrunk,
        policy: Policy,
        temperature: f64,
    ) -> Result<Scores, ModelError> {
        Ok(self.run(batch, trunk, policy, temperature, false)?.scores)
    }

    /// Scores under the current policy, and keeps what the way back needs.
    ///
    /// # Errors
    /// Too little memory.
    pub fn score_tracked(
        &self,
        batch: &PackedBatch,
        trunk: &CudaTrunk,
        temperature: f64,
    ) -> Result<CudaPass, ModelError> {
        self.run(batch, trunk, Policy::Current, temperature, true)
    }

    fn run(
        &self,
        batch: &PackedBatch,
        trunk: &CudaTrunk,
        policy: Policy,
        temperature: f64,
        track: bool,
    ) -> Result<CudaPass, ModelError> {
        let gpu = self.gpu.clone();
        let (rows, scored) = (Rows::of(&gpu, batch)?, Scored::of(&gpu, batch)?);
        let adapted = policy == Policy::Current;
        let (layers, norm, head) = match &self.loaded {
            Some(loaded) if !adapted => (
                &loaded.layers[..],
                &loaded.norm,
                loaded.head.as_ref().unwrap_or(&self.head),
            ),
            _ => (&self.layers[self.first_trained..], &self.norm, &self.head),
        };
        let copy = |buffer: &Buffer, bytes: usize| -> Result<Buffer, ModelError> {
            let copy = gpu.bytes(bytes)?;
            copy.copy_from(buffer)?;
            Ok(copy)
        };
        let size = rows.count * self.plan.hidden;
        let stream = match &trunk.hidden {
            Some(hidden) => Stream {
                hidden: Arc::new(copy(hidden, size * 4)?),
                pending: match &trunk.pending {
                    Some(pending) => Some(copy(pending, size * self.element.bytes())?),
                    None => None,
                },
            },
            None => self.embed(self.table(policy), &rows.tokens, rows.count)?,
        };
        let embedded = match track && self.embedding_slot.is_some() {
            true => Some(Grouped::new(&gpu, &batch.tokens)?),
            false => None,
        };
        let kept = match track {
            false => Track::Nothing,
            true if rows.count > self.recompute_above => Track::Inputs,
            true => Track::Whole,
        };
        let (stream, saved) = self.blocks(layers, &rows, stream, adapted, kept)?;

        let (count, width) = (scored.count, self.plan.hidden);
        let last = gpu.elements(count * width, Element::F32)?;
        let inverse = gpu.elements(count, Element::F32)?;
        let x_width = head.input_width(0);
        let x = gpu.elements(count * x_width, self.element)?;
        let out = x.matrix(count, x_width);
        self.add_norm(
            &stream,
            Some(&scored.predictors),
            count,
            norm,
            Some(&last),
            Some(&inverse),
            &[out],
        )?;
        let [logprobs, entropies, lse] = self.score_head(head, out, &scored, temperature, adapted)?;
        Ok(CudaPass {
            scores: Scores {
                logprobs: logprobs.read(0, count)?,
                entropies: entropies.read(0, count)?,
            },
            rows,
            scored,
            embedded,
            temperature,
            version: self.parameters.version(),
            layers: saved,
            last,
            inverse,
            x,
            lse,
        })
    }

    /// The table of rotary angles for at least so many positions.
    pub(in crate::cuda) fn angles(&self, positions: usize) -> Result<Arc<Buffer>, ModelError> {
        let mut kept = self.angles.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((have, table)) = &*kept
            && *have >= positions
        {
            return Ok(table.clone());
        }
        let positions = positions.next_power_of_two().max(2048);
        let frequencies = self.plan.rope.inverse_frequencies(self.plan.head_dim);
        let mut table = Vec::with_capacity(positions * self.plan.head_dim);
        for position in 0..positions {
            // The product in f32, as the published models compute it.
            let angles = || frequencies.iter().map(|&frequency| position as f32 * frequency as f32);
            table.extend(angles().map(f32::cos));
            table.extend(angles().map(f32::sin));
        }
        let table = Arc::new(self.gpu.upload(&table)?);
        *kept = Some((positions, table.clone()));
        Ok(table)
    }

    /// The embedding, `[vocabulary, hidden]`.
    pub(in crate::cuda) fn table(&self, policy: Policy) -> View {
        let loaded = self.loaded.as_ref().filter(|_| policy == Policy::Reference);
        let table = loaded.and_then(|loaded| loaded.embedding.as_ref());
        match table.or(self.embedding.as_ref()) {
            Some(table) => table.matrix(self.plan.vocabulary, self.plan.hidden),
            None => {
                let head = loaded.and_then(|loaded| loaded.head.as_ref());
                head.unwrap_or(&self.head).weight(0)
            }
        }
    }

    /// What the embedding is multiplied by.
    pub(super) fn embedding_scale(&self) -> f32 {
        let scale = self.plan.embedding_scale.unwrap_or(1.0);
        match self.element {
            Element::F32 => scale,
            _ => half::bf16::from_f32(scale).to_f32(),
        }
    }

    /// Rows of the embedding.
    pub(in crate::cuda) fn embed(&self, table: View, tokens: &Buffer, count: usize) -> Result<Stream, ModelError> {
        let width = self.plan.hidden;
        let hidden = self.gpu.elements(count * width, Element::F32)?;
        self.embed_into(table, tokens, count, &hidden)?;
        Ok(Stream {
            hidden: Arc::new(hidden),
            pending: None,
        })
    }

    pub(in crate::cuda) fn embed_into(
        &self,
        table: View,
        tokens: &Buffer,
        count: usize,
        hidden: &Buffer,
    ) -> Result<(), ModelError> {
        // SAFETY: tokens are below the vocabulary: checked where they come in, or drawn from it.
        unsafe {
            let arguments = [
                hidden.into(),
                table.into(),
                table.stride.into(),
                tokens.into(),
                self.plan.hidden.into(),
                self.embedding_scale().into(),
            ];
            self.gpu
                .launch(EMBED, self.element, [count as u32, 1, 1], 256, 0, &arguments)
        }
    }

    /// Adds what is pending to the hidden states, and norms them into up to three places.
    #[expect(clippy::too_many_arguments, reason = "the kernel's own")]
    pub(in crate::cuda) fn add_norm(
        &self,
        stream: &Stream,
        rows: Option<&Buffer>,
        count: usize,
        norm: &Norm,
        hidden_out: Option<&Buffer>,
        inverse: Option<&Buffer>,
        outs: &[View],
    ) -> Result<(), ModelError> {
        let states = (stream.hidden.as_ref(), stream.pending.as_ref());
        self.add_norm_of(states, rows, count, norm, hidden_out, inverse, outs)
    }

    /// As [`CudaDecoder::add_norm`], on hidden states and what is to be added to them.
    #[expect(clippy::too_many_arguments, reason = "the kernel's own")]
    pub(in crate::cuda) fn add_norm_of(
        &self,
        (hidden, pending): (&Buffer, Option<&Buffer>),
        rows: Option<&Buffer>,
        count: usize,
        norm: &Norm,
        hidden_out: Option<&Buffer>,
        inverse: Option<&Buffer>,
        outs: &[View],
    ) -> Result<(), ModelError> {
        let none = Argument::Address(0);
        let optional = |buffer: Option<&Buffer>| buffer.map_or(none, Argument::from);
        let place = |index: usize| {
            outs.get(index)
                .map_or([none, Argument::Int(0)], |&out| [out.into(), out.stride.into()])
        };
        let width = self.plan.hidden;
        let offset = if self.plan.norm_adds_one { 1.0_f32 } else { 0.0 };
        let mut arguments = vec![
            hidden.into(),
            optional(rows),
            optional(pending),
            width.into(),
            optional(hidden_out),
            (&norm.weight).into(),
            offset.into(),
            (self.plan.norm_eps as f32).into(),
            width.into(),
        ];
        for index in 0..3 {
            arguments.extend(place(index));
        }
        arguments.push(optional(inverse));
        let kernel = if by_eight(width, outs) { ADD_NORM_8 } else { ADD_NORM };
        // SAFETY: hidden states and what is added have rows of `width`, the outputs at least as many.
        unsafe {
            self.gpu
                .launch(kernel, self.element, [count as u32, 1, 1], 256, 0, &arguments)
        }
    }

    /// Buffers for the input of each part of a stack: one for all where there are no adapters.
    pub(in crate::cuda) fn inputs(
        &self,
        stack: &Stack,
        count: usize,
        adapted: bool,
    ) -> Result<Vec<Buffer>, ModelError> {
        let own = adapted && stack.parts.iter().any(|part| part.rank > 0);
        let parts = if own { stack.parts.len() } else { 1 };
        (0..parts)
            .map(|part| self.gpu.elements(count * stack.input_width(part), self.element))
            .collect()
    }

    /// A copy of `from` with rows of `width`, of which only the first columns are written.
    pub(in crate::cuda) fn widened(&self, from: View, width: usize) -> Result<Buffer, ModelError> {
        let wide = self.gpu.elements(from.rows * width, self.element)?;
        // SAFETY: both have as many rows, and `width` is at least `from`'s.
        unsafe {
            let arguments = [
                (&wide).into(),
                width.into(),
                from.into(),
                from.stride.into(),
                Argument::Address(0),
                from.columns.into(),
            ];
            let grid = [blocks(from.columns), from.rows as u32, 1];
            self.gpu.launch(MERGE, self.element, grid, 256, 0, &arguments)?;
        }
        Ok(wide)
    }

    /// Runs all parts of a stack side by side into `y`.
    pub(in crate::cuda) fn project(
        &self,
        stack: &Stack,
        x: &[Buffer],
        count: usize,
        y: View,
        adapted: bool,
    ) -> Result<(), ModelError> {
        if x.len() == 1 && stack.parts.iter().all(|part| part.rank == 0) {
            return stack.forward_all(&self.gpu, x[0].matrix(count, stack.inputs), y);
        }
        let mut first = 0;
        for (index, part) in stack.parts.iter().enumerate() {
            let buffer = x.get(index).unwrap_or(&x[0]);
            let width = stack.input_width(if x.len() == 1 { 0 } else { index });
            let place = y.columns(first, part.outputs, self.element);
            stack.forward(&self.gpu, index, buffer.matrix(count, width), place, adapted)?;
            first += part.outputs;
        }
        Ok(())
    }

    pub(in crate::cuda) fn rotate(
        &self,
        heads: View,
        (positions, angles): (&Buffer, &Buffer),
        count: usize,
        sign: f32,
    ) -> Result<(), ModelError> {
        let dim = self.plan.head_dim;
        // SAFETY: `heads` has whole heads; the table reaches all positions.
        unsafe {
            let arguments = [
                heads.into(),
                heads.stride.into(),
                positions.into(),
                angles.into(),
                dim.into(),
                sign.into(),
            ];
            let grid = [count as u32, (heads.columns / dim) as u32, 1];
            let threads = (dim / 2).next_multiple_of(32).min(256) as u32;
            self.gpu.launch(ROTATE, self.element, grid, threads, 0, &arguments)
        }
    }

    pub(in crate::cuda) fn gate(&self, both: View, out: View, count: usize) -> Result<(), ModelError> {
        let inner = self.plan.intermediate;
        // SAFETY: `both` has rows of twice `inner`, `out` of at least `inner`.
        unsafe {
            let arguments = [
                out.into(),
                out.stride.into(),
                both.into(),
                both.stride.into(),
                inner.into(),
                self.activation(),
            ];
            let (kernel, columns) = match eight(inner, &[both, out]) {
                true => (GATE_8, inner / 8),
                false => (GATE, inner),
            };
            let grid = [blocks(columns), count as u32, 1];
            self.gpu.launch(kernel, self.element, grid, 256, 0, &arguments)
        }
    }

    pub(in crate::cuda) fn activation(&self) -> Argument {
        activation(self.plan.activation)
    }
}

/// Whether rows of `width` can be read eight values at a time.
pub(in crate::cuda) fn eight(width: usize, views: &[View]) -> bool {
    let aligned = |view: &View| view.pointer.is_multiple_of(16) && view.stride.is_multiple_of(8);
    width.is_multiple_of(8) && views.iter().all(aligned)
}

/// The same, where a block keeps a row in registers.
pub(in crate::cuda) fn by_eight(width: usize, views: &[View]) -> bool {
    width <= 8192 && eight(width, views)
}

fn kept() -> ModelError {
    ModelError::Gpu {
        what: "hidden states".to_owned(),
        message: "are still in use".to_owned(),
    }
}

/// The inputs of a stack's parts as matrices.
pub(in crate::cuda) fn views(stack: &Stack, buffers: &[Buffer], count: usize) -> Vec<View> {
    let each = buffers.iter().enumerate();
    each.map(|(part, buffer)| buffer.matrix(count, stack.input_width(part)))
        .collect()
}
