//! Encoders from folders, or of random weights.

use std::path::Path;

use super::{CudaEncoder, CudaEncoderOptions, Layer, Linear, Norm, Table};
use crate::cuda::gpu::{Buffer, Element, Gpu, View};
use crate::cuda::layers::{Values, put};
use crate::cuda::parameters::Parameters;
use crate::encoder::{EncoderFolder, encoder_specs};
use crate::plan::{Activation, EncoderPlan};
use crate::weights::ParameterSpec;
use crate::{ModelError, Pooling};

/// Where a model's parameters come from.
#[derive(Debug)]
enum Source<'a> {
    Folder(&'a EncoderFolder),
    /// Normal values under a seed: for timings.
    Noise(u32),
}

impl CudaEncoder {
    /// Loads a Hugging Face or sentence-transformers folder.
    ///
    /// # Errors
    /// As [`crate::Bert::load`]; where the GPU's memory is too small.
    pub fn load(folder: &Path, options: &CudaEncoderOptions) -> Result<Self, ModelError> {
        let files = EncoderFolder::open(folder, options.pooling)?;
        let mut encoder = Self::build(files.plan.clone(), &Source::Folder(&files), options, folder)?;
        encoder.pooling = files.pooling;
        encoder.carried = files.carried;
        Ok(encoder)
    }

    /// A model of this plan with random weights: for timings.
    ///
    /// # Errors
    /// As [`CudaEncoder::load`].
    pub fn random(plan: EncoderPlan, options: &CudaEncoderOptions) -> Result<Self, ModelError> {
        Self::build(plan, &Source::Noise(1), options, Path::new("random weights"))
    }

    fn build(
        plan: EncoderPlan,
        source: &Source<'_>,
        options: &CudaEncoderOptions,
        path: &Path,
    ) -> Result<Self, ModelError> {
        if plan.head_dim() > 256 {
            return Err(ModelError::Input(format!(
                "heads of {} are not supported on this device: at most 256",
                plan.head_dim()
            )));
        }
        // The tensor cores' products take GELU in its tanh form; in bf16 that is as good as the other.
        let fused = options.element == Element::Bf16
            && matches!(plan.activation, Activation::Gelu | Activation::GeluTanh)
            && plan.hidden.is_multiple_of(8)
            && plan.intermediate.is_multiple_of(8);
        let inner_bias = if fused { options.element } else { Element::F32 };
        let mut builder = Builder {
            gpu: &options.gpu,
            element: options.element,
            source,
            train: options.train,
            parameters: Parameters::new(&options.gpu),
        };
        let (hidden, inner) = (plan.hidden, plan.intermediate);
        let words = builder.table("word_embeddings", plan.vocabulary, hidden)?;
        let positions = builder.table("position_embeddings", plan.max_positions, hidden)?;
        let segments = builder.table("token_type_embeddings", plan.segment_types, hidden)?;
        let norm = builder.norm("embeddings.LayerNorm", hidden)?;
        let mut layers = Vec::with_capacity(plan.layers);
        for index in 0..plan.layers {
            let name = |part: &str| format!("encoder.layer.{index}.{part}");
            let qkv = ["query", "key", "value"].map(|part| name(&format!("attention.self.{part}")));
            let own = options.element;
            layers.push(Layer {
                qkv: builder.linear(&qkv, hidden, hidden, own)?,
                output: builder.linear(&[name("attention.output.dense")], hidden, hidden, Element::F32)?,
                attention_norm: builder.norm(&name("attention.output.LayerNorm"), hidden)?,
                up: builder.linear(&[name("intermediate.dense")], inner, hidden, inner_bias)?,
                down: builder.linear(&[name("output.dense")], hidden, inner, Element::F32)?,
                mlp_norm: builder.norm(&name("output.LayerNorm"), hidden)?,
            });
        }
        let mut parameters = builder.parameters;
        if !options.train {
            parameters.set_frozen(encoder_specs(&plan).iter().map(ParameterSpec::scalars).sum());
        }
        Ok(Self {
            gpu: options.gpu.clone(),
            element: options.element,
            pooling: options.pooling.unwrap_or(Pooling::Cls),
            fused,
            words,
            positions,
            segments,
            norm,
            layers,
            parameters,
            carried: Vec::new(),
            source: path.to_owned(),
            plan,
        })
    }
}

/// Makes the parts of an encoder, whose trained parameters are counted in the order in which they are made.
struct Builder<'a> {
    gpu: &'a Gpu,
    element: Element,
    source: &'a Source<'a>,
    train: bool,
    parameters: Parameters,
}

impl Builder<'_> {
    fn table(&mut self, name: &str, rows: usize, columns: usize) -> Result<Table, ModelError> {
        let buffer = self.gpu.elements(rows * columns, self.element)?;
        let at = buffer.matrix(rows, columns);
        let slot = self.fill(format!("embeddings.{name}.weight"), &[rows, columns], at, self.element)?;
        Ok(Table { rows: buffer, slot })
    }

    fn norm(&mut self, name: &str, width: usize) -> Result<Norm, ModelError> {
        let (weight, weight_slot) = self.row(format!("{name}.weight"), width)?;
        let (bias, bias_slot) = self.row(format!("{name}.bias"), width)?;
        Ok(Norm {
            weight,
            bias,
            slots: [weight_slot, bias_slot],
        })
    }

    fn row(&mut self, name: String, width: usize) -> Result<(Buffer, Option<usize>), ModelError> {
        let buffer = self.gpu.elements(width, Element::F32)?;
        let slot = self.fill(name, &[width], buffer.matrix(1, width), Element::F32)?;
        Ok((buffer, slot))
    }

    /// Layers of `outputs` rows each over one input.
    fn linear(
        &mut self,
        names: &[String],
        outputs: usize,
        inputs: usize,
        bias_element: Element,
    ) -> Result<Linear, ModelError> {
        let all = outputs * names.len();
        let weight = self.gpu.elements(all * inputs, self.element)?;
        let bias = self.gpu.elements(all, bias_element)?;
        let mut slots = Vec::with_capacity(names.len());
        for (index, name) in names.iter().enumerate() {
            let first = index * outputs;
            let rows = weight.matrix(all, inputs).rows(first, outputs, self.element);
            let columns = bias.matrix(1, all).columns(first, outputs, bias_element);
            slots.push([
                self.fill(format!("{name}.weight"), &[outputs, inputs], rows, self.element)?,
                self.fill(format!("{name}.bias"), &[outputs], columns, bias_element)?,
            ]);
        }
        let trained: Option<Vec<usize>> = slots.iter().map(|slots| slots[0]).collect();
        if let Some(weights) = trained.filter(|weights| weights.len() > 1) {
            self.parameters.join_gradients(&weights)?;
        }
        Ok(Linear {
            weight,
            bias,
            inputs,
            outputs: all,
            slots,
        })
    }

    /// Puts a parameter at `at`; where it is trained, returns its number.
    fn fill(&mut self, name: String, shape: &[usize], at: View, element: Element) -> Result<Option<usize>, ModelError> {
        let values = match self.source {
            Source::Folder(files) => {
                let spec = ParameterSpec {
                    name: name.clone(),
                    shape: shape.to_vec(),
                };
                self.gpu.upload(&files.read(&spec)?)?
            }
            Source::Noise(seed) => self.random(&name, shape, *seed)?,
        };
        put(self.gpu, at, element, &Values::Card(&values))?;
        if !self.train {
            return Ok(None);
        }
        self.parameters.add(name, shape, values, (at, element)).map(Some)
    }

    fn random(&self, name: &str, shape: &[usize], seed: u32) -> Result<Buffer, ModelError> {
        if let [width] = shape {
            let one = if name.ends_with("LayerNorm.weight") { 1.0 } else { 0.0 };
            return self.gpu.upload(&vec![one; *width]);
        }
        let count = shape.iter().product();
        let buffer = self.gpu.elements(count, Element::F32)?;
        let seed = seed + self.parameters.version() as u32 + count as u32;
        put(
            self.gpu,
            buffer.matrix(shape[0], shape[1]),
            Element::F32,
            &Values::Noise(seed, 0.02),
        )?;
        Ok(buffer)
    }
}
