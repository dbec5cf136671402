//! Gemma and Llama on one GPU, following the same plan as the burn module: forward and backward over packed tokens, on buffers of
//! our own.

mod backward;
mod block;
mod build;
mod forward;
mod gradients;
mod head;
mod room;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use crate::cuda::attend::Heads;
use crate::cuda::batch::{Grouped, Rows, Scored};
use crate::cuda::gpu::{Buffer, Element, Gpu};
use crate::cuda::layers::Stack;
use crate::cuda::parameters::Parameters;
use crate::plan::DecoderPlan;
use crate::{ModelError, Scores, TrainedPart};

/// One block.
#[derive(Debug)]
pub(in crate::cuda) struct Layer {
    pub(in crate::cuda) input_norm: Norm,
    /// Queries, keys, values.
    pub(in crate::cuda) qkv: Stack,
    pub(in crate::cuda) output: Stack,
    pub(in crate::cuda) mlp_norm: Norm,
    /// Gate and up.
    pub(in crate::cuda) gate_up: Stack,
    pub(in crate::cuda) down: Stack,
}

/// A block's weights, wherever they stand.
#[derive(Debug, Clone, Copy)]
pub(in crate::cuda) struct BlockWeights<'a> {
    pub(in crate::cuda) input_norm: &'a Norm,
    pub(in crate::cuda) qkv: &'a Stack,
    pub(in crate::cuda) output: &'a Stack,
    pub(in crate::cuda) mlp_norm: &'a Norm,
    pub(in crate::cuda) gate_up: &'a Stack,
    pub(in crate::cuda) down: &'a Stack,
}

impl Layer {
    fn weights(&self) -> BlockWeights<'_> {
        BlockWeights {
            input_norm: &self.input_norm,
            qkv: &self.qkv,
            output: &self.output,
            mlp_norm: &self.mlp_norm,
            gate_up: &self.gate_up,
            down: &self.down,
        }
    }

    fn stacks_mut(&mut self) -> [&mut Stack; 4] {
        [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down]
    }
}

/// A norm's weight, f32.
#[derive(Debug)]
pub(in crate::cuda) struct Norm {
    name: String,
    pub(in crate::cuda) weight: Buffer,
    slot: Option<usize>,
}

/// How a decoder is put on a GPU.
#[derive(Debug, Clone)]
pub struct CudaDecoderOptions {
    /// The GPU.
    pub gpu: Gpu,
    /// What it computes in.
    pub element: Element,
    /// What training will change.
    pub part: TrainedPart,
    /// Seeds the first values of a new adapter.
    pub seed: u64,
}

/// A causal language model on one GPU.
#[derive(Debug)]
pub struct CudaDecoder {
    pub(in crate::cuda) gpu: Gpu,
    pub(in crate::cuda) element: Element,
    pub(in crate::cuda) plan: DecoderPlan,
    part: TrainedPart,
    /// Where it is not the head.
    embedding: Option<Buffer>,
    /// Which trained parameter the embedding is.
    embedding_slot: Option<usize>,
    pub(in crate::cuda) layers: Vec<Layer>,
    pub(in crate::cuda) norm: Norm,
    pub(in crate::cuda) head: Stack,
    /// What is trained as it was loaded, where that is not adapters.
    loaded: Option<Loaded>,
    pub(in crate::cuda) parameters: Parameters,
    /// The first block that is, or that has adapters.
    first_trained: usize,
    /// Passes of more tokens run their blocks again on the way back.
    recompute_above: usize,
    angles: Mutex<Option<(usize, Arc<Buffer>)>>,
    pub(in crate::cuda) sampler: Option<super::sample::Sampler>,
    source: PathBuf,
}

/// Parameters as loaded; `None` for those that are not trained.
#[derive(Debug)]
struct Loaded {
    embedding: Option<Buffer>,
    layers: Vec<Layer>,
    norm: Norm,
    head: Option<Stack>,
}

/// Hidden states below everything that training changes.
#[derive(Debug)]
pub struct CudaTrunk {
    /// `None` where the embedding itself is trained.
    hidden: Option<Buffer>,
    /// Still to be added to them.
    pending: Option<Buffer>,
}

/// What a block's backward pass needs of its forward pass.
#[derive(Debug)]
pub(in crate::cuda) struct Saved {
    hidden_in: Arc<Buffer>,
    inverse_in: Buffer,
    x: Vec<Buffer>,
    qkv: Buffer,
    mixed: Buffer,
    wide: Option<Buffer>,
    lse: Buffer,
    hidden_mid: Arc<Buffer>,
    inverse_mid: Buffer,
    z: Vec<Buffer>,
    /// Gate and up, or with `derived` the derivatives of their gated product.
    both: Buffer,
    derived: bool,
    gated: Buffer,
}

/// What is kept of a block for the way back.
#[derive(Debug)]
pub(in crate::cuda) enum Way {
    /// All that it needs.
    Whole(Box<Saved>),
    /// What went into the block, f32: it is run again.
    Input(Arc<Buffer>),
}

/// How much is to be kept of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::cuda) enum Track {
    Nothing,
    Inputs,
    Whole,
}

/// A forward pass whose gradients can be asked for.
#[derive(Debug)]
pub struct CudaPass {
    /// The scores.
    pub scores: Scores,
    rows: Rows,
    scored: Scored,
    /// Where each token stands, for the embedding's gradient.
    embedded: Option<Grouped>,
    temperature: f64,
    /// Of the parameters that it was computed with.
    version: u64,
    layers: Vec<Way>,
    /// Inputs of the final norm and the head, of the predicting rows.
    last: Buffer,
    inverse: Buffer,
    x: Buffer,
    lse: Buffer,
}

/// Where hidden states stand between blocks: a sum, and what is still to be added to it.
pub(in crate::cuda) struct Stream {
    pub(in crate::cuda) hidden: Arc<Buffer>,
    pub(in crate::cuda) pending: Option<Buffer>,
}

/// What is done with keys and values of each layer, `[tokens, ·]` in one buffer with queries.
pub(in crate::cuda) type Keep<'a> = &'a dyn Fn(usize, &Buffer) -> Result<(), ModelError>;

impl CudaDecoder {
    /// The model's description.
    pub fn plan(&self) -> &DecoderPlan {
        &self.plan
    }

    pub(in crate::cuda) fn heads(&self) -> Heads {
        Heads {
            gpu: self.gpu.clone(),
            element: self.element,
            heads: self.plan.heads,
            kv_heads: self.plan.kv_heads,
            head_dim: self.plan.head_dim,
        }
    }

    /// Where it was loaded from.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// What training changes.
    pub fn part(&self) -> &TrainedPart {
        &self.part
    }

    /// From now on passes of more than `tokens` keep what went into each block alone, and run the block again on the way back: the
    /// same gradients to the last bit, slower, in less memory.
    pub fn recompute_above(&mut self, tokens: usize) {
        self.recompute_above = tokens;
    }

    /// Gives back the memory that sampling holds.
    ///
    /// # Errors
    /// What went wrong on the card before.
    pub fn forget_sampler(&mut self) -> Result<(), ModelError> {
        self.gpu.wait()?;
        self.sampler = None;
        Ok(())
    }
}
