//! BERT on one GPU, following the same plan as the burn module: packed texts forward and backward, on buffers of our own.

mod backward;
mod build;
mod contrast;
mod forward;
mod rows;

pub(super) use contrast::Loss;

use std::path::{Path, PathBuf};

use crate::cuda::attend::{Asking, Heads};
use crate::cuda::batch::{Grouped, Rows};
use crate::cuda::gpu::{Buffer, Element, Gpu};
use crate::cuda::parameters::Parameters;
use crate::decoder::check_vocabulary;
use crate::encoder::{EncoderFolder, Written, check_pairs, check_texts, encoder_specs};
use crate::files::{Dtype, NamedTensor};
use crate::plan::EncoderPlan;
use crate::{Contrasted, Encoder, Kept, ModelError, Pass, Pooling, TrackedVectors, Trainable};

/// Tokens of a pass whose gradients may be asked for: what more there is goes through in further ones.
const TRACKED_TOKENS: usize = 32_768;
/// Rows of a product that a multiprocessor has at a time: passes without gradients are as many for each, so that no multiprocessor
/// waits for others, and few enough that much of a layer stays in the cache.
const ROWS_AT_A_TIME: usize = 128;

/// A linear layer, or several over one input whose outputs stand side by side.
#[derive(Debug)]
struct Linear {
    /// `[outputs, inputs]`.
    weight: Buffer,
    /// f32, or what the model computes in where the product itself adds it.
    bias: Buffer,
    inputs: usize,
    outputs: usize,
    /// Which trained parameters weight and bias of each part are; parts are equally high.
    slots: Vec<[Option<usize>; 2]>,
}

/// A LayerNorm, f32.
#[derive(Debug)]
struct Norm {
    weight: Buffer,
    bias: Buffer,
    slots: [Option<usize>; 2],
}

/// A table of embeddings.
#[derive(Debug)]
struct Table {
    rows: Buffer,
    slot: Option<usize>,
}

/// One block.
#[derive(Debug)]
struct Layer {
    /// Queries, keys, values.
    qkv: Linear,
    output: Linear,
    attention_norm: Norm,
    up: Linear,
    down: Linear,
    mlp_norm: Norm,
}

/// How an encoder is put on a GPU.
#[derive(Debug, Clone)]
pub struct CudaEncoderOptions {
    /// The GPU.
    pub gpu: Gpu,
    /// What it computes in.
    pub element: Element,
    /// Overrides the folder's `1_Pooling/config.json`; without either, CLS.
    pub pooling: Option<Pooling>,
    /// Whether training changes it: then all of it.
    pub train: bool,
}

/// A text encoder on one GPU.
#[derive(Debug)]
pub struct CudaEncoder {
    gpu: Gpu,
    element: Element,
    plan: EncoderPlan,
    pooling: Pooling,
    /// Whether products take the non-linearity too.
    fused: bool,
    words: Table,
    positions: Table,
    segments: Table,
    norm: Norm,
    layers: Vec<Layer>,
    parameters: Parameters,
    carried: Vec<NamedTensor>,
    source: PathBuf,
}

/// Packed texts on the card.
#[derive(Debug)]
struct Texts {
    rows: Rows,
    /// Where each begins, and the end.
    starts: Buffer,
    /// The same where each has one row.
    single: Buffer,
    count: usize,
}

/// What a block's backward pass needs of its forward pass. Where only each text's first row goes on after attention, what comes
/// after it has a row a text.
#[derive(Debug)]
struct Saved {
    x: Buffer,
    qkv: Buffer,
    /// Queries of texts' first tokens where those ask alone: `qkv` has none then, `lse` and `mixed` have a row a text.
    queries: Option<Buffer>,
    lse: Buffer,
    mixed: Buffer,
    /// The rows of `mixed` that go on, where not all do.
    chosen: Option<Buffer>,
    attention_sum: Buffer,
    middle: Buffer,
    /// What the non-linearity was taken of, but for its bias where that is added on the way (with `derived` its derivative
    /// there), and what it gave.
    inner: Buffer,
    derived: bool,
    bent: Buffer,
    mlp_sum: Buffer,
}

impl Saved {
    fn asking(&self) -> Asking {
        match self.queries {
            Some(_) => Asking::First,
            None => Asking::All,
        }
    }
}

/// A forward pass over some texts.
#[derive(Debug)]
struct Part {
    texts: Texts,
    /// Which rows of the tables were gathered.
    gathered: [Grouped; 2],
    embedded: Buffer,
    layers: Vec<Saved>,
}

/// A forward pass whose gradients can be asked for.
#[derive(Debug)]
struct CudaEncoderPass {
    parts: Vec<Part>,
    /// Of the parameters that it was computed with.
    version: u64,
}

impl CudaEncoder {
    /// The model's description.
    pub fn plan(&self) -> &EncoderPlan {
        &self.plan
    }

    /// Refuses a tokenizer whose ids the embedding does not cover.
    ///
    /// # Errors
    /// [`ModelError::TokenizerTooLarge`].
    pub fn check_tokenizer(&self, vocabulary_size: usize) -> Result<(), ModelError> {
        check_vocabulary(&self.source, vocabulary_size, self.plan.vocabulary)
    }

    /// Whether after this block's attention only each text's first row matters.
    fn first_rows_alone(&self, layer: usize) -> bool {
        self.pooling == Pooling::Cls && layer + 1 == self.layers.len()
    }

    /// Where texts begin among the last block's rows.
    fn pooled_starts<'a>(&self, texts: &'a Texts) -> &'a Buffer {
        match self.plan.layers > 0 && self.first_rows_alone(self.plan.layers - 1) {
            true => &texts.single,
            false => &texts.starts,
        }
    }

    /// Vectors of texts, f32, and what gradients are found from.
    fn tracked(&self, texts: &[&[u32]]) -> Result<(Buffer, CudaEncoderPass), ModelError> {
        check_texts(&self.plan, texts)?;
        let width = self.plan.hidden;
        let vectors = self.gpu.elements(texts.len() * width, Element::F32)?;
        let mut parts = Vec::new();
        for range in rows::passes(texts, TRACKED_TOKENS) {
            let at = vectors
                .matrix(texts.len(), width)
                .rows(range.start, range.len(), Element::F32);
            parts.extend(self.run(&texts[range], at, true)?);
        }
        let version = self.parameters.version();
        Ok((vectors, CudaEncoderPass { parts, version }))
    }

    /// Adds the gradients of Σ slopes · vectors, `slopes` having as many values as the pass gave.
    fn pass_backward(&mut self, pass: CudaEncoderPass, slopes: &Buffer) -> Result<(), ModelError> {
        let count = pass.parts.iter().map(|part| part.texts.count).sum();
        let slopes = slopes.matrix(count, self.plan.hidden);
        let mut first = 0;
        for part in pass.parts {
            let own = slopes.rows(first, part.texts.count, Element::F32);
            first += part.texts.count;
            self.part_backward(part, own)?;
        }
        Ok(())
    }

    fn heads(&self) -> Heads {
        Heads {
            gpu: self.gpu.clone(),
            element: self.element,
            heads: self.plan.heads,
            kv_heads: self.plan.heads,
            head_dim: self.plan.head_dim(),
        }
    }
}

impl Encoder for CudaEncoder {
    fn dimension(&self) -> usize {
        self.plan.hidden
    }

    fn max_tokens(&self) -> usize {
        self.plan.max_positions
    }

    fn embed(&self, texts: &[&[u32]]) -> Result<Vec<f32>, ModelError> {
        check_texts(&self.plan, texts)?;
        let width = self.plan.hidden;
        let vectors = self.gpu.elements(texts.len() * width, Element::F32)?;
        let most = ROWS_AT_A_TIME * self.gpu.multiprocessors() as usize;
        for range in rows::passes_of_much(texts, most) {
            let at = vectors
                .matrix(texts.len(), width)
                .rows(range.start, range.len(), Element::F32);
            self.run(&texts[range], at, false)?;
        }
        vectors.read(0, texts.len() * width)
    }

    fn embed_tracked(&mut self, texts: &[&[u32]]) -> Result<TrackedVectors, ModelError> {
        let (vectors, pass) = self.tracked(texts)?;
        Ok(TrackedVectors {
            vectors: vectors.read(0, texts.len() * self.plan.hidden)?,
            pass: Pass(Kept::new(pass)),
        })
    }

    fn backward(&mut self, tracked: TrackedVectors, slopes: &[f32]) -> Result<(), ModelError> {
        let pass: CudaEncoderPass = tracked.pass.0.take()?;
        self.parameters.check_version(pass.version)?;
        let wanted = tracked.vectors.len();
        if slopes.len() != wanted {
            return Err(ModelError::Input(format!(
                "{} slopes for vectors of {wanted} values",
                slopes.len()
            )));
        }
        let slopes = self.gpu.upload(slopes)?;
        self.pass_backward(pass, &slopes)
    }

    fn contrast(&mut self, texts: &[&[u32]], temperature: f64, parts: usize) -> Result<Contrasted, ModelError> {
        check_pairs(texts)?;
        let (vectors, pass) = self.tracked(texts)?;
        let loss = Loss::new(&self.gpu, &vectors, self.plan.hidden, temperature, parts)?;
        // The card goes on with the way back while the host waits for the loss.
        self.pass_backward(pass, loss.slopes())?;
        loss.read()
    }

    fn trainable(&mut self) -> &mut dyn Trainable {
        &mut self.parameters
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        let specs = encoder_specs(&self.plan);
        let written = Written {
            source: &self.source,
            dimension: self.plan.hidden,
            pooling: self.pooling,
            carried: &self.carried,
            dtype: Dtype::F32,
        };
        // What is not trained is as it was loaded.
        let loaded = match self.parameters.trained().is_empty() {
            true => Some(EncoderFolder::open(&self.source, Some(self.pooling))?),
            false => None,
        };
        let each = specs.clone();
        written.write(folder, specs, |place| match &loaded {
            Some(loaded) => loaded.read(&each[place]),
            None => self.parameters.values(place),
        })
    }
}
