//! Decoders from folders, or of random weights.

use std::path::Path;
use std::sync::Mutex;

use super::{CudaDecoder, CudaDecoderOptions, Layer, Loaded, Norm};
use crate::cuda::gpu::{Buffer, Element, Gpu, View};
use crate::cuda::layers::{Stack, Values, put};
use crate::cuda::parameters::Parameters;
use crate::decoder::{ADAPTER_PREFIX, check_names, decoder_specs, read_adapter_config};
use crate::files::CheckpointReader;
use crate::plan::{ConfigFile, DecoderPlan};
use crate::random::uniform_values;
use crate::weights::ParameterSpec;
use crate::{ModelError, Trainable, TrainedPart};

/// The embedding's name in files.
const EMBEDDING: &str = "model.embed_tokens.weight";

/// Where a model's parameters come from.
#[derive(Debug)]
enum Source {
    Folder(CheckpointReader),
    /// Normal values under a seed: for timings.
    Noise(u32),
}

impl CudaDecoder {
    /// Loads a Hugging Face folder.
    ///
    /// # Errors
    /// As [`crate::Decoder::load`]; where the GPU's memory is too small.
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
        for (index, spec) in decoder.parameters.trained().to_vec().iter().enumerate() {
            let (values, _) = reader.read(&format!("{ADAPTER_PREFIX}{}", spec.name), &spec.shape)?;
            decoder.parameters.set_values(index, values)?;
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
        if plan.head_dim > 256 {
            let message = format!(
                "heads of {} are not supported on this device: at most 256",
                plan.head_dim
            );
            return Err(ModelError::Input(message));
        }
        let (rank, scale) = match &options.part {
            TrainedPart::Lora(config) => (config.rank, config.scale() as f32),
            TrainedPart::Nothing | TrainedPart::LastLayers(_) | TrainedPart::Full => (0, 1.0),
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
            embedding_slot: None,
            layers,
            norm,
            head,
            loaded: None,
            parameters: Parameters::new(&options.gpu),
            first_trained: 0,
            recompute_above: usize::MAX,
            angles: Mutex::default(),
            sampler: None,
            source: path.to_owned(),
            plan,
        };
        match options.part.clone() {
            TrainedPart::Lora(_) => decoder.start_adapters(source, options.seed)?,
            TrainedPart::LastLayers(count) => {
                let layers = decoder.plan.layers;
                if count == 0 || count > layers {
                    let message =
                        format!("num_layers_unfrozen: expected 1 to {layers} (the model's blocks), found {count}");
                    return Err(ModelError::Input(message));
                }
                decoder.start_training(source, layers - count, false)?;
            }
            TrainedPart::Full => decoder.start_training(source, 0, true)?,
            TrainedPart::Nothing => decoder.first_trained = decoder.plan.layers,
        }
        let all: usize = decoder_specs(&decoder.plan).iter().map(ParameterSpec::scalars).sum();
        let trained: usize = decoder.parameters.trained().iter().map(ParameterSpec::scalars).sum();
        decoder.parameters.set_frozen(match decoder.part {
            TrainedPart::Lora(_) => all,
            _ => all - trained,
        });
        Ok(decoder)
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
                let copy = (stack.a(index), element);
                let a = self
                    .parameters
                    .add(format!("{name}.lora_A.weight"), &[rank, inputs], values, copy)?;
                let zeros = gpu.zeros(outputs * rank, Element::F32)?;
                put(&gpu, stack.b(index), element, &Values::Card(&zeros))?;
                let copy = (stack.b(index), element);
                let b = self
                    .parameters
                    .add(format!("{name}.lora_B.weight"), &[outputs, rank], zeros, copy)?;
                stack.parts[index].slots = [None, Some(a), Some(b)];
            }
        }
        Ok(())
    }

    /// Trains the blocks from `first` on, the norm and the head, unless that is the embedding; with `all` the embedding too.
    fn start_training(&mut self, source: &Source, first: usize, all: bool) -> Result<(), ModelError> {
        self.first_trained = first;
        let (gpu, plan) = (self.gpu.clone(), self.plan.clone());
        let builder = Builder {
            gpu: &gpu,
            element: self.element,
            plan: &plan,
            source,
            scale: 1.0,
            rank_of: &|_| 0,
        };
        let (table, head) = (all && !plan.tied, all || !plan.tied);
        self.loaded = Some(Loaded {
            embedding: table.then(|| builder.embedding()).transpose()?,
            layers: (first..plan.layers)
                .map(|index| builder.layer(index))
                .collect::<Result<_, _>>()?,
            norm: builder.norm("model.norm")?,
            head: head.then(|| builder.head()).transpose()?,
        });
        let parameters = &mut self.parameters;
        if all {
            let at = match &self.embedding {
                Some(table) => table.matrix(plan.vocabulary, plan.hidden),
                None => self.head.weight(0),
            };
            let shape = [plan.vocabulary, plan.hidden];
            let slot = builder.train(parameters, EMBEDDING.to_owned(), &shape, (at, self.element))?;
            self.embedding_slot = Some(slot);
        }
        for layer in &mut self.layers[first..] {
            for stack in layer.stacks_mut() {
                builder.train_stack(parameters, stack)?;
            }
            builder.train_norm(parameters, &mut layer.input_norm)?;
            builder.train_norm(parameters, &mut layer.mlp_norm)?;
        }
        builder.train_norm(parameters, &mut self.norm)?;
        match plan.tied {
            true => self.head.parts[0].slots[0] = self.embedding_slot,
            false => builder.train_stack(parameters, &mut self.head)?,
        }
        Ok(())
    }
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
                plan.attention_bias,
            )?,
            output: self.stack(queries, &[(attention("o_proj"), plan.hidden)], plan.attention_bias)?,
            mlp_norm: self.norm(&name("post_attention_layernorm"))?,
            gate_up: self.stack(
                plan.hidden,
                &[
                    (mlp("gate_proj"), plan.intermediate),
                    (mlp("up_proj"), plan.intermediate),
                ],
                plan.mlp_bias,
            )?,
            down: self.stack(plan.intermediate, &[(mlp("down_proj"), plan.hidden)], plan.mlp_bias)?,
        })
    }

    fn stack(&self, inputs: usize, layers: &[(String, usize)], biased: bool) -> Result<Stack, ModelError> {
        let parts: Vec<(String, usize, usize)> = layers
            .iter()
            .map(|(name, outputs)| (name.clone(), *outputs, (self.rank_of)(name)))
            .collect();
        let mut stack = Stack::new(self.gpu, self.element, inputs, &parts, self.scale)?;
        if biased {
            stack.add_bias(self.gpu)?;
        }
        for (index, (name, outputs, _)) in parts.iter().enumerate() {
            self.fill(stack.weight(index), &format!("{name}.weight"), &[*outputs, inputs])?;
            if let Some(bias) = stack.bias(index) {
                self.fill(bias, &format!("{name}.bias"), &[*outputs])?;
            }
        }
        Ok(stack)
    }

    fn head(&self) -> Result<Stack, ModelError> {
        let plan = self.plan;
        let rank = (self.rank_of)("lm_head");
        let layers = [("lm_head".to_owned(), plan.vocabulary, rank)];
        let stack = Stack::new(self.gpu, self.element, plan.hidden, &layers, self.scale)?;
        let name = if plan.tied { EMBEDDING } else { "lm_head.weight" };
        self.fill(stack.weight(0), name, &[plan.vocabulary, plan.hidden])?;
        Ok(stack)
    }

    fn embedding(&self) -> Result<Buffer, ModelError> {
        let (rows, columns) = (self.plan.vocabulary, self.plan.hidden);
        let buffer = self.gpu.elements(rows * columns, self.element)?;
        self.fill(buffer.matrix(rows, columns), EMBEDDING, &[rows, columns])?;
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

    /// Trains the parameter of this name, of which the model computes with the copy at `at`. Returns its number.
    fn train(
        &self,
        parameters: &mut Parameters,
        name: String,
        shape: &[usize],
        (at, element): (View, Element),
    ) -> Result<usize, ModelError> {
        let values = self.values(&name, shape)?;
        parameters.add(name, shape, values, (at, element))
    }

    fn train_stack(&self, parameters: &mut Parameters, stack: &mut Stack) -> Result<(), ModelError> {
        for index in 0..stack.parts.len() {
            let (name, outputs) = (stack.parts[index].name.clone(), stack.parts[index].outputs);
            let at = (stack.weight(index), self.element);
            let weight = self.train(parameters, format!("{name}.weight"), &[outputs, stack.inputs], at)?;
            stack.parts[index].slots[0] = Some(weight);
            if let Some(bias) = stack.bias(index) {
                let bias = self.train(parameters, format!("{name}.bias"), &[outputs], (bias, self.element))?;
                stack.parts[index].bias_slot = Some(bias);
            }
        }
        Ok(())
    }

    fn train_norm(&self, parameters: &mut Parameters, norm: &mut Norm) -> Result<(), ModelError> {
        let width = self.plan.hidden;
        let at = (norm.weight.matrix(1, width), Element::F32);
        norm.slot = Some(self.train(parameters, format!("{}.weight", norm.name), &[width], at)?);
        Ok(())
    }

    /// A parameter's values in f32.
    fn values(&self, name: &str, shape: &[usize]) -> Result<Buffer, ModelError> {
        match self.source {
            Source::Folder(reader) => self.gpu.upload(&reader.read(name, shape)?.0),
            Source::Noise(_) if name.ends_with("norm.weight") => {
                let one = if self.plan.norm_adds_one { 0.0 } else { 1.0 };
                self.gpu.upload(&vec![one; shape[0]])
            }
            Source::Noise(seed) => {
                let buffer = self.gpu.elements(shape.iter().product(), Element::F32)?;
                let (rows, columns) = match shape[..] {
                    [rows, columns] => (rows, columns),
                    _ => (1, shape.iter().product()),
                };
                let at = buffer.matrix(rows, columns);
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
