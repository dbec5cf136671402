//! Gemma and Llama on one GPU, following the same plan as the burn module: forward and backward over packed tokens, on buffers of
//! our own.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::attend::Attended;
use super::batch::{Rows, Scored};
use super::gemm::{Factor, Scale};
use super::gpu::{Argument, Buffer, Element, Gpu, View};
use super::kernels::{
    ADAM, ADD_NORM, ADD_NORM_8, EMBED, GATE, GATE_8, GATE_BACKWARD, GATE_BACKWARD_8, MERGE, NORM_BACKWARD,
    NORM_BACKWARD_8, NORM_WEIGHT_GRADIENT, ROTATE, SCORE, SCORE_BACKWARD, SUM_ROWS,
};
use super::layers::{Stack, Trained, Values, blocks, put};
use crate::decoder::{ADAPTER_PREFIX, check_names, check_tokens, decoder_specs, read_adapter_config};
use crate::files::CheckpointReader;
use crate::packed::PackedBatch;
use crate::plan::{Activation, ConfigFile, DecoderPlan};
use crate::random::uniform_values;
use crate::weights::ParameterSpec;
use crate::{AdamConfig, ModelError, Policy, Scores, TrainedPart};

/// f32 logits of at most so many bytes at a time.
const LOGIT_BYTES: usize = 512 << 20;

/// One block.
#[derive(Debug)]
pub(super) struct Layer {
    pub(super) input_norm: Norm,
    /// Queries, keys, values.
    pub(super) qkv: Stack,
    pub(super) output: Stack,
    pub(super) mlp_norm: Norm,
    /// Gate and up.
    pub(super) gate_up: Stack,
    pub(super) down: Stack,
}

/// A block's weights, wherever they stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct BlockWeights<'a> {
    pub(super) input_norm: &'a Norm,
    pub(super) qkv: &'a Stack,
    pub(super) output: &'a Stack,
    pub(super) mlp_norm: &'a Norm,
    pub(super) gate_up: &'a Stack,
    pub(super) down: &'a Stack,
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

    fn stacks(&self) -> [&Stack; 4] {
        [&self.qkv, &self.output, &self.gate_up, &self.down]
    }

    fn stacks_mut(&mut self) -> [&mut Stack; 4] {
        [&mut self.qkv, &mut self.output, &mut self.gate_up, &mut self.down]
    }
}

/// A norm's weight, f32.
#[derive(Debug)]
pub(super) struct Norm {
    name: String,
    pub(super) weight: Buffer,
    slot: Option<usize>,
}

/// Where a model's parameters come from.
#[derive(Debug)]
enum Source {
    Folder(CheckpointReader),
    /// Normal values under a seed: for timings.
    Noise(u32),
}

/// How a decoder is put on a GPU.
#[derive(Debug, Clone)]
pub struct CudaDecoderOptions {
    /// The GPU.
    pub gpu: Gpu,
    /// What it computes in.
    pub element: Element,
    /// What training will change: adapters or the last blocks.
    pub part: TrainedPart,
    /// Seeds the first values of a new adapter.
    pub seed: u64,
}

/// A causal language model on one GPU.
#[derive(Debug)]
pub struct CudaDecoder {
    pub(super) gpu: Gpu,
    pub(super) element: Element,
    pub(super) plan: DecoderPlan,
    part: TrainedPart,
    /// Where it is not the head.
    embedding: Option<Buffer>,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Norm,
    pub(super) head: Stack,
    /// The trained blocks, norm and head as loaded, where they themselves are trained.
    loaded: Option<Loaded>,
    pub(super) trained: Vec<Trained>,
    specs: Vec<ParameterSpec>,
    first_trained: usize,
    /// Counts changes to the parameters.
    pub(super) version: u64,
    angles: Mutex<Option<(usize, Arc<Buffer>)>>,
    pub(super) sampler: Option<super::sample::Sampler>,
    source: PathBuf,
}

/// Parameters as loaded.
#[derive(Debug)]
struct Loaded {
    layers: Vec<Layer>,
    norm: Norm,
    head: Option<Stack>,
}

/// Hidden states below everything that training changes.
#[derive(Debug)]
pub struct CudaTrunk {
    hidden: Buffer,
    /// Still to be added to them.
    pending: Option<Buffer>,
}

/// What a block's backward pass needs of its forward pass.
#[derive(Debug)]
pub(super) struct Saved {
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
    both: Buffer,
    gated: Buffer,
}

/// A forward pass whose gradients can be asked for.
#[derive(Debug)]
pub struct CudaPass {
    /// The scores.
    pub scores: Scores,
    rows: Rows,
    scored: Scored,
    temperature: f64,
    /// Of the parameters that it was computed with.
    version: u64,
    layers: Vec<Saved>,
    /// Inputs of the final norm and the head, of the predicting rows.
    last: Buffer,
    inverse: Buffer,
    x: Buffer,
    lse: Buffer,
}

/// Where hidden states stand between blocks: a sum, and what is still to be added to it.
pub(super) struct Stream {
    pub(super) hidden: Arc<Buffer>,
    pub(super) pending: Option<Buffer>,
}

/// What is done with keys and values of each layer, `[tokens, ·]` in one buffer with queries.
pub(super) type Keep<'a> = &'a dyn Fn(usize, &Buffer) -> Result<(), ModelError>;

impl CudaDecoder {
    /// Loads a Hugging Face folder.
    ///
    /// # Errors
    /// As [`crate::Decoder::load`]; where the model has biases; where the GPU's memory is too small.
    pub fn load(folder: &Path, options: &CudaDecoderOptions) -> Result<Self, ModelError> {
        let plan = ConfigFile::open(&folder.join("config.json"))?.decoder()?;
        let reader = CheckpointReader::open(folder)?;
        check_names(&reader, &decoder_specs(&plan), |name| {
            name.ends_with("rotary_emb.inv_freq") || (plan.tied && name == "lm_head.weight")
        })?;
        Self::build(plan, &Source::Folder(reader), options, folder)
    }

    /// Loads a Hugging Face folder and a PEFT adapter folder on it; the adapter becomes what training changes.
    ///
    /// # Errors
    /// As [`CudaDecoder::load`]; where the adapter is of a kind that is not supported, or does not fit.
    pub fn load_with_adapter(folder: &Path, adapter: &Path, options: &CudaDecoderOptions) -> Result<Self, ModelError> {
        let config = read_adapter_config(&adapter.join("adapter_config.json"))?;
        let reader = CheckpointReader::open_file(&adapter.join("adapter_model.safetensors"))?;
        let options = CudaDecoderOptions {
            part: TrainedPart::Lora(config),
            ..options.clone()
        };
        let mut decoder = Self::load(folder, &options)?;
        for (index, spec) in decoder.trained().to_vec().iter().enumerate() {
            let (values, _) = reader.read(&format!("{ADAPTER_PREFIX}{}", spec.name), &spec.shape)?;
            decoder.set_values(index, &values)?;
        }
        Ok(decoder)
    }

    /// A model of this plan with random weights: for timings.
    ///
    /// # Errors
    /// As [`CudaDecoder::load`].
    pub fn random(plan: DecoderPlan, options: &CudaDecoderOptions) -> Result<Self, ModelError> {
        Self::build(
            plan,
            &Source::Noise(options.seed as u32),
            options,
            Path::new("random weights"),
        )
    }

    fn build(
        plan: DecoderPlan,
        source: &Source,
        options: &CudaDecoderOptions,
        path: &Path,
    ) -> Result<Self, ModelError> {
        if plan.attention_bias || plan.mlp_bias {
            return Err(ModelError::Input(
                "models with biases are not supported on this device yet; use --device cpu".to_owned(),
            ));
        }
        if plan.head_dim > 256 {
            let message = format!(
                "heads of {} are not supported on this device: at most 256",
                plan.head_dim
            );
            return Err(ModelError::Input(message));
        }
        let (rank, scale) = match &options.part {
            TrainedPart::Lora(config) => (config.rank, config.scale() as f32),
            TrainedPart::Full => {
                return Err(ModelError::Input(
                    "training all parameters is not supported on this device yet; train adapters or the last layers"
                        .to_owned(),
                ));
            }
            TrainedPart::Nothing | TrainedPart::LastLayers(_) => (0, 1.0),
        };
        let adapted = |name: &str| match &options.part {
            TrainedPart::Lora(config) => {
                let last = name.rsplit('.').next().unwrap_or(name);
                config.targets.iter().any(|target| target == last || target == name)
            }
            _ => false,
        };
        let builder = Builder {
            gpu: &options.gpu,
            element: options.element,
            plan: &plan,
            source,
            scale,
            rank_of: &|name| if adapted(name) { rank } else { 0 },
        };
        let layers: Vec<Layer> = (0..plan.layers)
            .map(|index| builder.layer(index))
            .collect::<Result<_, _>>()?;
        let norm = builder.norm("model.norm")?;
        let embedding = match plan.tied {
            true => None,
            false => Some(builder.embedding()?),
        };
        let head = builder.head()?;
        let mut decoder = Self {
            gpu: options.gpu.clone(),
            element: options.element,
            part: options.part.clone(),
            embedding,
            layers,
            norm,
            head,
            loaded: None,
            trained: Vec::new(),
            specs: Vec::new(),
            first_trained: 0,
            version: 0,
            angles: Mutex::default(),
            sampler: None,
            source: path.to_owned(),
            plan,
        };
        match options.part.clone() {
            TrainedPart::Lora(_) => decoder.start_adapters(source, options.seed)?,
            TrainedPart::LastLayers(count) => decoder.start_last_layers(source, count)?,
            TrainedPart::Nothing | TrainedPart::Full => decoder.first_trained = decoder.plan.layers,
        }
        decoder.specs = decoder.trained.iter().map(|trained| trained.spec.clone()).collect();
        Ok(decoder)
    }

    /// The model's description.
    pub fn plan(&self) -> &DecoderPlan {
        &self.plan
    }

    /// Where it was loaded from.
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// What training changes.
    pub fn part(&self) -> &TrainedPart {
        &self.part
    }

    /// A random as PEFT draws it, B zero.
    fn start_adapters(&mut self, source: &Source, seed: u64) -> Result<(), ModelError> {
        let (gpu, element) = (self.gpu.clone(), self.element);
        let mut stream = 0;
        let stacks = self.layers.iter_mut().flat_map(Layer::stacks_mut);
        for stack in stacks.chain([&mut self.head]) {
            for index in 0..stack.parts.len() {
                let (outputs, rank, inputs) = (stack.parts[index].outputs, stack.parts[index].rank, stack.inputs);
                if rank == 0 {
                    continue;
                }
                stream += 1;
                let bound = 1.0 / (inputs as f32).sqrt();
                let name = stack.parts[index].name.clone();
                let values = match source {
                    Source::Folder(_) => gpu.upload(&uniform_values(seed, stream, rank * inputs, bound))?,
                    Source::Noise(_) => {
                        let buffer = gpu.elements(rank * inputs, Element::F32)?;
                        let at = buffer.matrix(rank, inputs);
                        put(&gpu, at, Element::F32, &Values::Noise(stream, bound / 3.0_f32.sqrt()))?;
                        buffer
                    }
                };
                stack.put(&gpu, stack.a(index), &Values::Card(&values))?;
                let a = trained(
                    &gpu,
                    format!("{name}.lora_A.weight"),
                    &[rank, inputs],
                    values,
                    Some(stack.a(index)),
                )?;
                let zeros = gpu.zeros(outputs * rank, Element::F32)?;
                put(&gpu, stack.b(index), element, &Values::Card(&zeros))?;
                let b = trained(
                    &gpu,
                    format!("{name}.lora_B.weight"),
                    &[outputs, rank],
                    zeros,
                    Some(stack.b(index)),
                )?;
                stack.parts[index].slots = [None, Some(self.trained.len()), Some(self.trained.len() + 1)];
                self.trained.extend([a, b]);
            }
        }
        Ok(())
    }

    fn start_last_layers(&mut self, source: &Source, count: usize) -> Result<(), ModelError> {
        let layers = self.plan.layers;
        if count == 0 || count > layers {
            let message = format!("num_layers_unfrozen: expected 1 to {layers} (the model's blocks), found {count}");
            return Err(ModelError::Input(message));
        }
        self.first_trained = layers - count;
        let gpu = self.gpu.clone();
        let plan = self.plan.clone();
        let builder = Builder {
            gpu: &gpu,
            element: self.element,
            plan: &plan,
            source,
            scale: 1.0,
            rank_of: &|_| 0,
        };
        self.loaded = Some(Loaded {
            layers: (self.first_trained..layers)
                .map(|index| builder.layer(index))
                .collect::<Result<_, _>>()?,
            norm: builder.norm("model.norm")?,
            head: match plan.tied {
                true => None,
                false => Some(builder.head()?),
            },
        });
        let weight = |slots: &mut Vec<Trained>, stack: &mut Stack| -> Result<(), ModelError> {
            for index in 0..stack.parts.len() {
                let (outputs, inputs) = (stack.parts[index].outputs, stack.inputs);
                let name = format!("{}.weight", stack.parts[index].name);
                let values = builder.values(&name, &[outputs, inputs])?;
                let copy = stack.weight(index);
                stack.parts[index].slots[0] = Some(slots.len());
                slots.push(trained(&gpu, name, &[outputs, inputs], values, Some(copy))?);
            }
            Ok(())
        };
        let norm = |slots: &mut Vec<Trained>, norm: &mut Norm| -> Result<(), ModelError> {
            let name = format!("{}.weight", norm.name);
            let values = builder.values(&name, &[plan.hidden])?;
            let copy = norm.weight.matrix(1, plan.hidden);
            norm.slot = Some(slots.len());
            slots.push(trained(&gpu, name, &[plan.hidden], values, Some(copy))?);
            Ok(())
        };
        for layer in &mut self.layers[layers - count..] {
            for stack in layer.stacks_mut() {
                weight(&mut self.trained, stack)?;
            }
            norm(&mut self.trained, &mut layer.input_norm)?;
            norm(&mut self.trained, &mut layer.mlp_norm)?;
        }
        norm(&mut self.trained, &mut self.norm)?;
        if !plan.tied {
            weight(&mut self.trained, &mut self.head)?;
        }
        Ok(())
    }

    /// Runs the blocks that training leaves alone.
    ///
    /// # Errors
    /// A token outside of the vocabulary, or too little memory.
    pub fn trunk(&self, batch: &PackedBatch) -> Result<CudaTrunk, ModelError> {
        check_tokens(&batch.tokens, self.plan.vocabulary, "batch")?;
        let rows = Rows::of(&self.gpu, batch)?;
        let stream = self.embed(&rows.tokens, rows.count)?;
        let range = 0..self.first_trained.min(self.plan.layers);
        // With adapters everything is trained: the trunk is the embedding.
        let range = if matches!(self.part, TrainedPart::Lora(_)) {
            0..0
        } else {
            range
        };
        let (stream, _) = self.blocks(&self.layers[range], &rows, stream, false, false, None)?;
        let hidden = Arc::try_unwrap(stream.hidden).map_err(|_| kept())?;
        Ok(CudaTrunk {
            hidden,
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
        let first = match self.part {
            TrainedPart::Lora(_) => 0,
            _ => self.first_trained,
        };
        let adapted = policy == Policy::Current;
        let (layers, norm, head) = match &self.loaded {
            Some(loaded) if !adapted => (
                &loaded.layers[..],
                &loaded.norm,
                loaded.head.as_ref().unwrap_or(&self.head),
            ),
            _ => (&self.layers[first..], &self.norm, &self.head),
        };
        let copy = |buffer: &Buffer, bytes: usize| -> Result<Buffer, ModelError> {
            let copy = gpu.bytes(bytes)?;
            copy.copy_from(buffer)?;
            Ok(copy)
        };
        let size = rows.count * self.plan.hidden;
        let stream = Stream {
            hidden: Arc::new(copy(&trunk.hidden, size * 4)?),
            pending: match &trunk.pending {
                Some(pending) => Some(copy(pending, size * self.element.bytes())?),
                None => None,
            },
        };
        let (stream, saved) = self.blocks(layers, &rows, stream, adapted, track, None)?;

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
        let [logprobs, entropies, lse] = [
            gpu.elements(count, Element::F32)?,
            gpu.elements(count, Element::F32)?,
            gpu.elements(count, Element::F32)?,
        ];
        let vocabulary = self.plan.vocabulary;
        for part in self.head_chunks(count) {
            let logits = gpu.elements(part.len() * vocabulary, Element::F32)?;
            let rows = out.rows(part.start, part.len(), self.element);
            head.forward_f32(&gpu, 0, rows, logits.matrix(part.len(), vocabulary), adapted)?;
            let at = |buffer: &Buffer| Argument::Address(buffer.pointer() + 4 * part.start as u64);
            // SAFETY: every buffer has `count` numbers, of which `part` are used.
            unsafe {
                let grid = [part.len() as u32, 1, 1];
                let arguments = [
                    at(&logprobs),
                    at(&entropies),
                    at(&lse),
                    (&logits).into(),
                    at(&scored.tokens),
                    vocabulary.into(),
                    (1.0 / temperature as f32).into(),
                ];
                gpu.launch(SCORE, self.element, grid, 1024, 0, &arguments)?;
            }
        }
        Ok(CudaPass {
            scores: Scores {
                logprobs: logprobs.read(0, count)?,
                entropies: entropies.read(0, count)?,
            },
            rows,
            scored,
            temperature,
            version: self.version,
            layers: saved,
            last,
            inverse,
            x,
            lse,
        })
    }

    fn head_chunks(&self, count: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = (LOGIT_BYTES / 4 / self.plan.vocabulary).clamp(1, 4096);
        (0..count)
            .step_by(step)
            .map(move |start| start..(start + step).min(count))
    }

    /// The table of rotary angles for at least so many positions.
    pub(super) fn angles(&self, positions: usize) -> Result<Arc<Buffer>, ModelError> {
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

    /// The rows of the embedding.
    pub(super) fn embed(&self, tokens: &Buffer, count: usize) -> Result<Stream, ModelError> {
        let width = self.plan.hidden;
        let hidden = self.gpu.elements(count * width, Element::F32)?;
        self.embed_into(tokens, count, &hidden)?;
        Ok(Stream {
            hidden: Arc::new(hidden),
            pending: None,
        })
    }

    pub(super) fn embed_into(&self, tokens: &Buffer, count: usize, hidden: &Buffer) -> Result<(), ModelError> {
        let width = self.plan.hidden;
        let table = match &self.embedding {
            Some(table) => table.matrix(self.plan.vocabulary, width),
            None => self.head.weight(0),
        };
        let scale = self.plan.embedding_scale.unwrap_or(1.0);
        let scale = match self.element {
            Element::F32 => scale,
            Element::Bf16 => half::bf16::from_f32(scale).to_f32(),
        };
        // SAFETY: tokens are below the vocabulary: checked where they come in, or drawn from it.
        unsafe {
            let arguments = [
                hidden.into(),
                table.into(),
                table.stride.into(),
                tokens.into(),
                width.into(),
                scale.into(),
            ];
            self.gpu
                .launch(EMBED, self.element, [count as u32, 1, 1], 256, 0, &arguments)
        }
    }

    /// Adds what is pending to the hidden states, and norms them into up to three places.
    #[expect(clippy::too_many_arguments, reason = "the kernel's own")]
    pub(super) fn add_norm(
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
    pub(super) fn add_norm_of(
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

    /// Runs blocks. With `keep` their keys and values are handed on, with `track` all that the way back needs.
    pub(super) fn blocks(
        &self,
        layers: &[Layer],
        rows: &Rows,
        mut stream: Stream,
        adapted: bool,
        track: bool,
        keep: Option<Keep<'_>>,
    ) -> Result<(Stream, Vec<Saved>), ModelError> {
        let mut saved = Vec::new();
        for (index, layer) in layers.iter().enumerate() {
            let (next, block) = self.block(index, layer.weights(), rows, stream, adapted, keep)?;
            stream = next;
            if track {
                saved.push(block);
            }
        }
        Ok((stream, saved))
    }

    pub(super) fn block(
        &self,
        index: usize,
        layer: BlockWeights<'_>,
        rows: &Rows,
        stream: Stream,
        adapted: bool,
        keep: Option<Keep<'_>>,
    ) -> Result<(Stream, Saved), ModelError> {
        let (gpu, plan, element, count) = (&self.gpu, &self.plan, self.element, rows.count);
        let (width, inner) = (plan.hidden, plan.intermediate);
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let inverse_in = gpu.elements(count, Element::F32)?;
        let x = self.inputs(layer.qkv, count, adapted)?;
        let hidden_in = match &stream.pending {
            None => {
                self.add_norm(
                    &stream,
                    None,
                    count,
                    layer.input_norm,
                    None,
                    Some(&inverse_in),
                    &views(layer.qkv, &x, count),
                )?;
                stream.hidden
            }
            Some(_) => {
                let sum = gpu.elements(count * width, Element::F32)?;
                let places = views(layer.qkv, &x, count);
                self.add_norm(
                    &stream,
                    None,
                    count,
                    layer.input_norm,
                    Some(&sum),
                    Some(&inverse_in),
                    &places,
                )?;
                Arc::new(sum)
            }
        };
        let all = queries + 2 * keys;
        let qkv = gpu.elements(count * all, element)?;
        self.project(layer.qkv, &x, count, qkv.matrix(count, all), adapted)?;
        let places = qkv.matrix(count, all);
        let angles = self.angles(rows.longest)?;
        self.rotate(
            places.columns(0, queries + keys, element),
            (&rows.positions, &angles),
            count,
            1.0,
        )?;
        if let Some(keep) = keep {
            keep(index, &qkv)?;
        }
        let mixed = gpu.elements(count * queries, element)?;
        let lse = gpu.elements(count * plan.heads, Element::F32)?;
        self.attend(places, mixed.matrix(count, queries), &lse, rows)?;
        // Room for what goes through the adapter beside it.
        let wide = match adapted && layer.output.parts[0].rank > 0 {
            true => Some(self.widened(mixed.matrix(count, queries), layer.output.input_width(0))?),
            false => None,
        };
        let output_x = match &wide {
            Some(wide) => wide.matrix(count, layer.output.input_width(0)),
            None => mixed.matrix(count, queries),
        };
        let out = gpu.elements(count * width, element)?;
        layer
            .output
            .forward(gpu, 0, output_x, out.matrix(count, width), adapted)?;

        let hidden_mid = gpu.elements(count * width, Element::F32)?;
        let inverse_mid = gpu.elements(count, Element::F32)?;
        let z = self.inputs(layer.gate_up, count, adapted)?;
        let stream = Stream {
            hidden: hidden_in.clone(),
            pending: Some(out),
        };
        let places = views(layer.gate_up, &z, count);
        self.add_norm(
            &stream,
            None,
            count,
            layer.mlp_norm,
            Some(&hidden_mid),
            Some(&inverse_mid),
            &places,
        )?;
        let both = gpu.elements(count * 2 * inner, element)?;
        self.project(layer.gate_up, &z, count, both.matrix(count, 2 * inner), adapted)?;
        let gated_width = layer.down.input_width(0);
        let gated = gpu.elements(count * gated_width, element)?;
        self.gate(both.matrix(count, 2 * inner), gated.matrix(count, gated_width), count)?;
        let down = gpu.elements(count * width, element)?;
        layer.down.forward(
            gpu,
            0,
            gated.matrix(count, gated_width),
            down.matrix(count, width),
            adapted,
        )?;
        let hidden_mid = Arc::new(hidden_mid);
        let stream = Stream {
            hidden: hidden_mid.clone(),
            pending: Some(down),
        };
        let saved = Saved {
            hidden_in,
            inverse_in,
            x,
            qkv,
            mixed,
            wide,
            lse,
            hidden_mid,
            inverse_mid,
            z,
            both,
            gated,
        };
        Ok((stream, saved))
    }

    /// Buffers for the input of each part of a stack: one for all where there are no adapters.
    fn inputs(&self, stack: &Stack, count: usize, adapted: bool) -> Result<Vec<Buffer>, ModelError> {
        let own = adapted && stack.parts.iter().any(|part| part.rank > 0);
        let parts = if own { stack.parts.len() } else { 1 };
        (0..parts)
            .map(|part| self.gpu.elements(count * stack.input_width(part), self.element))
            .collect()
    }

    /// A copy of `from` with rows of `width`, of which only the first columns are written.
    fn widened(&self, from: View, width: usize) -> Result<Buffer, ModelError> {
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
    fn project(&self, stack: &Stack, x: &[Buffer], count: usize, y: View, adapted: bool) -> Result<(), ModelError> {
        if x.len() == 1 && stack.parts.iter().all(|part| part.rank == 0) {
            let x = x[0].matrix(count, stack.inputs);
            let (x, w) = (Factor::Plain(x), Factor::Transposed(stack.weights()));
            return self.gpu.multiply((y, self.element), x, w, self.element, Scale::ONE);
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

    pub(super) fn rotate(
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

    pub(super) fn gate(&self, both: View, out: View, count: usize) -> Result<(), ModelError> {
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

    fn activation(&self) -> Argument {
        Argument::Int(match self.plan.activation {
            Activation::Silu => 0,
            Activation::Gelu => 1,
            Activation::GeluTanh => 2,
        })
    }

    /// Adds the gradients of Σ slopes · logprobs to the sums that are kept.
    ///
    /// # Errors
    /// Slopes of another number than scores, or too little memory.
    pub fn backward(&mut self, pass: CudaPass, slopes: &[f32]) -> Result<(), ModelError> {
        if slopes.len() != pass.scored.count {
            let message = format!("{} slopes for {} scores", slopes.len(), pass.scored.count);
            return Err(ModelError::Input(message));
        }
        if pass.version != self.version {
            return Err(ModelError::Input(
                "a parameter has changed since the pass whose gradients are asked for".to_owned(),
            ));
        }
        let (gpu, element) = (self.gpu.clone(), self.element);
        let (width, count) = (self.plan.hidden, pass.rows.count);
        let slopes = gpu.upload(slopes)?;
        let gradient = gpu.zeros(count * width, Element::F32)?;
        let top = self.layers.last().map_or(0, |layer| layer.down.parts[0].rank);
        let dy = gpu.zeros(count * (width + top), element)?;
        self.head_backward(&pass, &slopes, &gradient, dy.matrix(count, width + top))?;
        let first = self.plan.layers - pass.layers.len();
        let mut saved = pass.layers;
        for index in (first..self.plan.layers).rev() {
            let Some(block) = saved.pop() else { break };
            self.block_backward(index, &block, &pass.rows, &gradient, &dy, index == first)?;
        }
        Ok(())
    }

    fn head_backward(
        &mut self,
        pass: &CudaPass,
        slopes: &Buffer,
        gradient: &Buffer,
        dy: View,
    ) -> Result<(), ModelError> {
        let (gpu, element, vocabulary, width) =
            (self.gpu.clone(), self.element, self.plan.vocabulary, self.plan.hidden);
        let (count, inverse) = (pass.scored.count, 1.0 / pass.temperature as f32);
        let x_width = self.head.input_width(0);
        let x = pass.x.matrix(count, x_width);
        let dx = gpu.elements(count * width, element)?;
        let wide = self.head.gradient_width();
        for part in self.head_chunks(count) {
            let rows = x.rows(part.start, part.len(), element);
            let logits = gpu.elements(part.len() * vocabulary, Element::F32)?;
            self.head
                .forward_f32(&gpu, 0, rows, logits.matrix(part.len(), vocabulary), true)?;
            let d_logits = gpu.elements(part.len() * wide, element)?;
            let d_logits = (d_logits.matrix(part.len(), wide), d_logits);
            let at = |buffer: &Buffer| Argument::Address(buffer.pointer() + 4 * part.start as u64);
            // SAFETY: every buffer has `count` numbers, of which `part` are used.
            unsafe {
                let arguments = [
                    d_logits.0.into(),
                    wide.into(),
                    (&logits).into(),
                    at(&pass.lse),
                    at(&pass.scored.tokens),
                    at(slopes),
                    vocabulary.into(),
                    inverse.into(),
                ];
                let grid = [vocabulary.div_ceil(1024) as u32, part.len() as u32, 1];
                gpu.launch(SCORE_BACKWARD, element, grid, 256, 0, &arguments)?;
            }
            drop(logits);
            self.head.backward_low(&gpu, d_logits.0)?;
            self.head.backward_input(
                &gpu,
                d_logits.0,
                dx.matrix(count, width).rows(part.start, part.len(), element),
            )?;
            add_gradients(&gpu, element, &mut self.trained, &self.head, &[rows], d_logits.0)?;
        }
        let fresh = gpu.elements(count * width, Element::F32)?;
        let slope = dx.matrix(count, width);
        self.norm_backward(&fresh, None, slope, &pass.last, &pass.inverse, &self.norm, count, true)?;
        norm_gradient(
            &gpu,
            element,
            &mut self.trained,
            &self.norm,
            slope,
            &pass.last,
            &pass.inverse,
            count,
        )?;
        // SAFETY: rows of both are `width` wide; the targets are among the tokens.
        unsafe {
            let arguments = [
                gradient.into(),
                dy.into(),
                dy.stride.into(),
                (&fresh).into(),
                (&pass.scored.rows).into(),
                (&pass.scored.order).into(),
                (&pass.scored.starts).into(),
                width.into(),
            ];
            gpu.launch(
                SUM_ROWS,
                element,
                [pass.scored.row_count as u32, 1, 1],
                256,
                0,
                &arguments,
            )
        }
    }

    /// The way back through a block: `gradient` is that of the hidden states, f32, and `dy` the same as `T` with room for an
    /// adapter's inner gradients; both are of the block's output before, of its input afterwards.
    fn block_backward(
        &mut self,
        index: usize,
        saved: &Saved,
        rows: &Rows,
        gradient: &Buffer,
        dy: &Buffer,
        last: bool,
    ) -> Result<(), ModelError> {
        let (gpu, element, count) = (self.gpu.clone(), self.element, rows.count);
        let (width, inner) = (self.plan.hidden, self.plan.intermediate);
        let (queries, keys) = (
            self.plan.heads * self.plan.head_dim,
            self.plan.kv_heads * self.plan.head_dim,
        );
        let layer = &self.layers[index];
        let below = if index > 0 {
            &self.layers[index - 1].down
        } else {
            &layer.down
        };

        // The MLP.
        let down = dy.matrix(count, layer.down.gradient_width());
        layer.down.backward_low(&gpu, down)?;
        let d_gated = gpu.elements(count * inner, element)?;
        let d_gated = (d_gated.matrix(count, inner), d_gated);
        layer.down.backward_input(&gpu, down, d_gated.0)?;
        let gated = saved.gated.matrix(count, layer.down.input_width(0));
        add_gradients(&gpu, element, &mut self.trained, &layer.down, &[gated], down)?;
        let wide = layer.gate_up.gradient_width();
        let d_both = gpu.elements(count * wide, element)?;
        let d_both = (d_both.matrix(count, wide), d_both);
        let part = |index: usize| d_both.0.columns(layer.gate_up.gradient_start(index), inner, element);
        let both = saved.both.matrix(count, 2 * inner);
        // SAFETY: rows are as wide as said.
        unsafe {
            let (d_gate, d_up) = (part(0), part(1));
            let arguments = [
                d_gate.into(),
                d_gate.stride.into(),
                d_up.into(),
                d_up.stride.into(),
                d_gated.0.into(),
                inner.into(),
                both.into(),
                both.stride.into(),
                inner.into(),
                self.activation(),
            ];
            let (kernel, columns) = match eight(inner, &[d_gate, d_up, d_gated.0, both]) {
                true => (GATE_BACKWARD_8, inner / 8),
                false => (GATE_BACKWARD, inner),
            };
            let grid = [blocks(columns), count as u32, 1];
            gpu.launch(kernel, element, grid, 256, 0, &arguments)?;
        }
        drop(d_gated.1);
        layer.gate_up.backward_low(&gpu, d_both.0)?;
        let dz = gpu.elements(count * width, element)?;
        let dz = (dz.matrix(count, width), dz);
        layer.gate_up.backward_input(&gpu, d_both.0, dz.0)?;
        let z = views(&layer.gate_up, &saved.z, count);
        add_gradients(&gpu, element, &mut self.trained, &layer.gate_up, &z, d_both.0)?;
        drop(d_both.1);
        let d_out = gpu.elements(count * layer.output.gradient_width(), element)?;
        let d_out = (d_out.matrix(count, layer.output.gradient_width()), d_out);
        let out = Some(d_out.0);
        self.norm_backward(
            gradient,
            out,
            dz.0,
            &saved.hidden_mid,
            &saved.inverse_mid,
            &layer.mlp_norm,
            count,
            false,
        )?;
        let (hidden, inverse) = (&saved.hidden_mid, &saved.inverse_mid);
        norm_gradient(
            &gpu,
            element,
            &mut self.trained,
            &layer.mlp_norm,
            dz.0,
            hidden,
            inverse,
            count,
        )?;

        // Attention.
        layer.output.backward_low(&gpu, d_out.0)?;
        let d_mixed = gpu.elements(count * queries, element)?;
        let d_mixed = (d_mixed.matrix(count, queries), d_mixed);
        layer.output.backward_input(&gpu, d_out.0, d_mixed.0)?;
        let output_x = match &saved.wide {
            Some(wide) => wide.matrix(count, layer.output.input_width(0)),
            None => saved.mixed.matrix(count, queries),
        };
        add_gradients(&gpu, element, &mut self.trained, &layer.output, &[output_x], d_out.0)?;
        let wide = layer.qkv.gradient_width();
        let d_qkv = gpu.elements(count * wide, element)?;
        let d_qkv = (d_qkv.matrix(count, wide), d_qkv);
        let part = |index: usize, columns: usize| d_qkv.0.columns(layer.qkv.gradient_start(index), columns, element);
        let parts = [part(0, queries), part(1, keys), part(2, keys)];
        let attended = Attended {
            qkv: saved.qkv.matrix(count, queries + 2 * keys),
            mixed: saved.mixed.matrix(count, queries),
            lse: &saved.lse,
        };
        self.attend_backward(attended, d_mixed.0, parts, rows)?;
        let angles = self.angles(rows.longest)?;
        self.rotate(parts[0], (&rows.positions, &angles), count, -1.0)?;
        self.rotate(parts[1], (&rows.positions, &angles), count, -1.0)?;
        layer.qkv.backward_low(&gpu, d_qkv.0)?;
        let x = views(&layer.qkv, &saved.x, count);
        add_gradients(&gpu, element, &mut self.trained, &layer.qkv, &x, d_qkv.0)?;
        // Below the last block is nothing that is trained; the norm's own weight may be.
        if last && layer.input_norm.slot.is_none() {
            return Ok(());
        }
        let dx = dz;
        layer.qkv.backward_input(&gpu, d_qkv.0, dx.0)?;
        let below = dy.matrix(count, below.gradient_width());
        let (hidden, inverse) = (&saved.hidden_in, &saved.inverse_in);
        self.norm_backward(
            gradient,
            Some(below),
            dx.0,
            hidden,
            inverse,
            &layer.input_norm,
            count,
            false,
        )?;
        norm_gradient(
            &gpu,
            element,
            &mut self.trained,
            &layer.input_norm,
            dx.0,
            hidden,
            inverse,
            count,
        )
    }

    #[expect(clippy::too_many_arguments, reason = "the kernel's own")]
    fn norm_backward(
        &self,
        gradient: &Buffer,
        out: Option<View>,
        slope: View,
        hidden: &Buffer,
        inverse: &Buffer,
        norm: &Norm,
        count: usize,
        fresh: bool,
    ) -> Result<(), ModelError> {
        let none = [Argument::Address(0), Argument::Int(0)];
        let [place, stride] = out.map_or(none, |out| [out.into(), out.stride.into()]);
        let offset = if self.plan.norm_adds_one { 1.0_f32 } else { 0.0 };
        // SAFETY: all have `count` rows of the hidden width.
        unsafe {
            let arguments = [
                gradient.into(),
                place,
                stride,
                slope.into(),
                slope.stride.into(),
                hidden.into(),
                Argument::Address(0),
                inverse.into(),
                (&norm.weight).into(),
                offset.into(),
                self.plan.hidden.into(),
                Argument::Int(i32::from(fresh)),
            ];
            let places: Vec<View> = out.into_iter().chain([slope]).collect();
            let eight = by_eight(self.plan.hidden, &places);
            let kernel = if eight { NORM_BACKWARD_8 } else { NORM_BACKWARD };
            self.gpu
                .launch(kernel, self.element, [count as u32, 1, 1], 256, 0, &arguments)
        }
    }

    /// The parameters that training changes, in the order of the burn module.
    pub fn trained(&self) -> &[ParameterSpec] {
        &self.specs
    }

    /// A trained parameter's values, row by row.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn values(&self, index: usize) -> Result<Vec<f32>, ModelError> {
        let trained = &self.trained[index];
        trained.values.read(0, trained.spec.shape.iter().product())
    }

    /// Replaces them.
    ///
    /// # Errors
    /// Values of another number.
    pub fn set_values(&mut self, index: usize, values: &[f32]) -> Result<(), ModelError> {
        let trained = &self.trained[index];
        let count = trained.spec.shape.iter().product::<usize>();
        if values.len() != count {
            let message = format!("{}: {} values for {count}", trained.spec.name, values.len());
            return Err(ModelError::Input(message));
        }
        trained.values.write(0, values)?;
        if let Some(copy) = trained.copy {
            let element = trained.element(self.element);
            put(&self.gpu, copy, element, &Values::Card(&trained.values))?;
        }
        self.version += 1;
        Ok(())
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

    /// Its summed gradient; `None` where none arrived.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn gradient(&self, index: usize) -> Result<Option<Vec<f32>>, ModelError> {
        let trained = &self.trained[index];
        let count = trained.spec.shape.iter().product();
        trained.reached.then(|| trained.gradient.read(0, count)).transpose()
    }

    /// Moves the parameters along the summed gradients times `factor`, and clears the sums.
    ///
    /// # Errors
    /// Too little memory for the moments.
    pub fn step(&mut self, config: &AdamConfig, factor: f64) -> Result<(), ModelError> {
        let gpu = self.gpu.clone();
        for trained in self.trained.iter_mut().filter(|trained| trained.reached) {
            let (rows, columns) = trained.shape();
            let [first, second] = match trained.moments.take() {
                Some(moments) => moments,
                None => [
                    gpu.zeros(rows * columns, Element::F32)?,
                    gpu.zeros(rows * columns, Element::F32)?,
                ],
            };
            trained.steps += 1;
            trained.reached = false;
            let correction = |beta: f64| 1.0 - beta.powi(trained.steps as i32);
            let (beta1, beta2) = config.betas;
            let (shrink, decay) = match config.decoupled {
                true => (1.0 - config.lr * config.weight_decay, 0.0),
                false => (1.0, config.weight_decay),
            };
            // A norm's copy is f32, a matrix' is what the model computes in.
            let element = trained.element(self.element);
            let (copy, stride) = match trained.copy {
                Some(copy) => (copy.into(), copy.stride.into()),
                None => (Argument::Address(0), Argument::Int(0)),
            };
            let mut row = 0;
            while row < rows {
                let part = (rows - row).min(32_768);
                let at = |buffer: &Buffer| Argument::Address(buffer.pointer() + 4 * (row * columns) as u64);
                let copy = match (copy, trained.copy) {
                    (_, Some(view)) => Argument::from(view.rows(row, part, element)),
                    (none, None) => none,
                };
                // SAFETY: all have the parameter's shape.
                unsafe {
                    let arguments = [
                        at(&trained.values),
                        at(&first),
                        at(&second),
                        at(&trained.gradient),
                        copy,
                        stride,
                        columns.into(),
                        (factor as f32).into(),
                        ((config.lr / correction(beta1)) as f32).into(),
                        (beta1 as f32).into(),
                        (beta2 as f32).into(),
                        (config.eps as f32).into(),
                        (shrink as f32).into(),
                        (decay as f32).into(),
                        (correction(beta2).sqrt() as f32).into(),
                    ];
                    gpu.launch(ADAM, element, [blocks(columns), part as u32, 1], 256, 0, &arguments)?;
                }
                row += part;
            }
            trained.moments = Some([first, second]);
        }
        self.changed();
        Ok(())
    }

    fn changed(&mut self) {
        self.version += 1;
    }

    /// Bytes of the parameters that are computed with, adapters included.
    pub fn parameter_bytes(&self) -> usize {
        let stacks = self.layers.iter().flat_map(Layer::stacks).chain([&self.head]);
        let elements = |stack: &Stack| stack.gradient_width() * stack.inputs;
        stacks.map(elements).sum::<usize>() * self.element.bytes()
    }
}

/// Whether rows of `width` can be read eight values at a time.
fn eight(width: usize, views: &[View]) -> bool {
    let aligned = |view: &View| view.pointer.is_multiple_of(16) && view.stride.is_multiple_of(8);
    width.is_multiple_of(8) && views.iter().all(aligned)
}

/// The same, where a block keeps a row in registers.
fn by_eight(width: usize, views: &[View]) -> bool {
    width <= 8192 && eight(width, views)
}

fn kept() -> ModelError {
    ModelError::Gpu {
        what: "hidden states".to_owned(),
        message: "are still in use".to_owned(),
    }
}

/// The inputs of a stack's parts as matrices.
fn views(stack: &Stack, buffers: &[Buffer], count: usize) -> Vec<View> {
    let each = buffers.iter().enumerate();
    each.map(|(part, buffer)| buffer.matrix(count, stack.input_width(part)))
        .collect()
}

/// Adds the gradients of a stack's parameters: `x` are the inputs of its parts (one for all without adapters), `dy` the gradients
/// of its outputs, with those of the adapters' inner values behind each.
fn add_gradients(
    gpu: &Gpu,
    element: Element,
    trained: &mut [Trained],
    stack: &Stack,
    x: &[View],
    dy: View,
) -> Result<(), ModelError> {
    let mut add = |slot: Option<usize>, left: View, right: View| -> Result<(), ModelError> {
        let Some(slot) = slot else { return Ok(()) };
        let trained = &mut trained[slot];
        let scale = if trained.reached { Scale::ADD } else { Scale::ONE };
        trained.reached = true;
        let (left, right) = (Factor::Transposed(left), Factor::Plain(right));
        gpu.multiply((trained.slope(), Element::F32), left, right, element, scale)
    };
    for (index, part) in stack.parts.iter().enumerate() {
        let x = x.get(index).copied().unwrap_or(x[0]);
        let plain = x.columns(0, stack.inputs, element);
        let start = stack.gradient_start(index);
        let own = dy.columns(start, part.outputs, element);
        let [weight, a, b] = part.slots;
        add(weight, own, plain)?;
        if part.rank > 0 {
            let inner = dy.columns(start + part.outputs, part.rank, element);
            add(a, inner, plain)?;
            add(b, own, x.columns(stack.inputs, part.rank, element))?;
        }
    }
    Ok(())
}

#[expect(clippy::too_many_arguments, reason = "the kernel's own")]
fn norm_gradient(
    gpu: &Gpu,
    element: Element,
    trained: &mut [Trained],
    norm: &Norm,
    slope: View,
    hidden: &Buffer,
    inverse: &Buffer,
    count: usize,
) -> Result<(), ModelError> {
    let Some(slot) = norm.slot else { return Ok(()) };
    let trained = &mut trained[slot];
    if !trained.reached {
        trained.gradient.clear()?;
        trained.reached = true;
    }
    let width = slope.columns;
    // SAFETY: all have `count` rows of `width`.
    unsafe {
        let arguments = [
            (&trained.gradient).into(),
            slope.into(),
            slope.stride.into(),
            hidden.into(),
            Argument::Address(0),
            inverse.into(),
            width.into(),
            count.into(),
        ];
        gpu.launch(NORM_WEIGHT_GRADIENT, element, [blocks(width), 1, 1], 256, 0, &arguments)
    }
}

fn trained(
    gpu: &Gpu,
    name: String,
    shape: &[usize],
    values: Buffer,
    copy: Option<View>,
) -> Result<Trained, ModelError> {
    Ok(Trained {
        gradient: gpu.elements(shape.iter().product(), Element::F32)?,
        spec: ParameterSpec {
            name,
            shape: shape.to_vec(),
        },
        values,
        reached: false,
        moments: None,
        steps: 0,
        copy,
    })
}

/// Makes the parts of a decoder.
struct Builder<'a> {
    gpu: &'a Gpu,
    element: Element,
    plan: &'a DecoderPlan,
    source: &'a Source,
    scale: f32,
    rank_of: &'a dyn Fn(&str) -> usize,
}

impl Builder<'_> {
    fn layer(&self, index: usize) -> Result<Layer, ModelError> {
        let plan = self.plan;
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let name = |part: &str| format!("model.layers.{index}.{part}");
        let attention = |part: &str| name(&format!("self_attn.{part}"));
        let mlp = |part: &str| name(&format!("mlp.{part}"));
        Ok(Layer {
            input_norm: self.norm(&name("input_layernorm"))?,
            qkv: self.stack(
                plan.hidden,
                &[
                    (attention("q_proj"), queries),
                    (attention("k_proj"), keys),
                    (attention("v_proj"), keys),
                ],
            )?,
            output: self.stack(queries, &[(attention("o_proj"), plan.hidden)])?,
            mlp_norm: self.norm(&name("post_attention_layernorm"))?,
            gate_up: self.stack(
                plan.hidden,
                &[
                    (mlp("gate_proj"), plan.intermediate),
                    (mlp("up_proj"), plan.intermediate),
                ],
            )?,
            down: self.stack(plan.intermediate, &[(mlp("down_proj"), plan.hidden)])?,
        })
    }

    fn stack(&self, inputs: usize, layers: &[(String, usize)]) -> Result<Stack, ModelError> {
        let parts: Vec<(String, usize, usize)> = layers
            .iter()
            .map(|(name, outputs)| (name.clone(), *outputs, (self.rank_of)(name)))
            .collect();
        let stack = Stack::new(self.gpu, self.element, inputs, &parts, self.scale)?;
        for (index, (name, outputs, _)) in parts.iter().enumerate() {
            self.fill(stack.weight(index), &format!("{name}.weight"), &[*outputs, inputs])?;
        }
        Ok(stack)
    }

    fn head(&self) -> Result<Stack, ModelError> {
        let plan = self.plan;
        let rank = (self.rank_of)("lm_head");
        let layers = [("lm_head".to_owned(), plan.vocabulary, rank)];
        let stack = Stack::new(self.gpu, self.element, plan.hidden, &layers, self.scale)?;
        let name = if plan.tied {
            "model.embed_tokens.weight"
        } else {
            "lm_head.weight"
        };
        self.fill(stack.weight(0), name, &[plan.vocabulary, plan.hidden])?;
        Ok(stack)
    }

    fn embedding(&self) -> Result<Buffer, ModelError> {
        let (rows, columns) = (self.plan.vocabulary, self.plan.hidden);
        let buffer = self.gpu.elements(rows * columns, self.element)?;
        self.fill(
            buffer.matrix(rows, columns),
            "model.embed_tokens.weight",
            &[rows, columns],
        )?;
        Ok(buffer)
    }

    fn norm(&self, name: &str) -> Result<Norm, ModelError> {
        Ok(Norm {
            name: name.to_owned(),
            weight: self.values(&format!("{name}.weight"), &[self.plan.hidden])?,
            slot: None,
        })
    }

    fn fill(&self, at: View, name: &str, shape: &[usize]) -> Result<(), ModelError> {
        match self.source {
            Source::Folder(reader) => {
                let (values, _) = reader.read(name, shape)?;
                put(self.gpu, at, self.element, &Values::Host(&values))
            }
            Source::Noise(seed) => put(self.gpu, at, self.element, &Values::Noise(seed ^ hash(name), 0.02)),
        }
    }

    /// A parameter's values in f32.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Buffer, ModelError> {
        match self.source {
            Source::Folder(reader) => self.gpu.upload(&reader.read(name, shape)?.0),
            Source::Noise(_) if shape.len() == 1 => {
                // Norms.
                let one = if self.plan.norm_adds_one { 0.0 } else { 1.0 };
                self.gpu.upload(&vec![one; shape[0]])
            }
            Source::Noise(seed) => {
                let buffer = self.gpu.elements(shape.iter().product(), Element::F32)?;
                let at = buffer.matrix(shape[0], shape[1]);
                put(self.gpu, at, Element::F32, &Values::Noise(seed ^ hash(name), 0.02))?;
                Ok(buffer)
            }
        }
    }
}

fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}
