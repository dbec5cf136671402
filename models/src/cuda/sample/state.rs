//! What sampling keeps between calls.

use std::collections::BTreeMap;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::{MOST_ENDS, SAMPLE_PARTS, SLOT_WORDS, batch_size};
use crate::ModelError;
use crate::cuda::decoder::CudaDecoder;
use crate::cuda::gpu::{Buffer, Element};
use crate::cuda::layers::Stack;

/// What sampling keeps between calls.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Sampler {
    pub(super) merged: Option<(u64, Merged)>,
    pub(super) state: Option<State>,
}

/// The weights with the adapters added.
#[derive(Debug)]
pub(super) struct Merged {
    pub(super) layers: Vec<[Stack; 4]>,
    pub(super) head: Option<Stack>,
}

/// Sizes that buffers and graphs depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) slots: usize,
    pub(super) prompts: usize,
    pub(super) prompt: usize,
    pub(super) limit: usize,
}

impl Shape {
    pub(super) fn tokens(self) -> usize {
        self.prompts * self.prompt + self.slots * self.limit
    }
}

/// A captured step.
#[derive(Debug)]
pub(super) struct Graph(pub(super) sys::CUgraphExec);

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
pub(super) struct State {
    pub(super) graphs: BTreeMap<usize, (u64, Graph)>,
    pub(super) angles: Arc<Buffer>,
    pub(super) shape: Shape,
    /// One more than there are sequences: the last is never active.
    pub(super) slots: Buffer,
    pub(super) chosen: Buffer,
    pub(super) responses: Buffer,
    pub(super) logprobs: Buffer,
    pub(super) ends: Buffer,
    pub(super) tokens: Buffer,
    pub(super) positions: Buffer,
    pub(super) hidden: [Buffer; 2],
    pub(super) x: Buffer,
    pub(super) qkv: Buffer,
    pub(super) mixed: Buffer,
    pub(super) both: Buffer,
    pub(super) gated: Buffer,
    /// What is added to the hidden states next.
    pub(super) added: Buffer,
    pub(super) partial: Buffer,
    pub(super) logits: Buffer,
    pub(super) best: Buffer,
    pub(super) keys: Vec<Buffer>,
    pub(super) values: Vec<Buffer>,
}

/// What of the draws is in a step's arguments: with others, graphs are captured anew.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drawing {
    pub(super) inverse: f32,
    pub(super) seed: [u32; 2],
    pub(super) update: u32,
    pub(super) ends: usize,
}

impl CudaDecoder {
    /// Brings the merged weights up to date.
    pub(super) fn merge(&self, merged: &mut Option<(u64, Merged)>) -> Result<(), ModelError> {
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
            let mut merged = Stack::new(gpu, self.element, stack.inputs, &parts, 1.0)?;
            merged.share_bias(stack);
            Ok::<_, ModelError>(merged)
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

    pub(super) fn make_state(&self, state: &mut Option<State>, mut shape: Shape) -> Result<(), ModelError> {
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

    pub(super) fn new_state(&self, shape: Shape) -> Result<State, ModelError> {
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
}
