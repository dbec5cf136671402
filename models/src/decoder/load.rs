//! A decoder from a Hugging Face folder.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::Path;

use burn::tensor::Device;

use super::{Decoder, DecoderParameters, TrainedPart};
use crate::ModelError;
use crate::files::CheckpointReader;
use crate::plan::{ConfigFile, DecoderPlan};
use crate::tuned::Tuned;
use crate::weights::{ParameterId, ParameterSpec, Weights, check_size, matrix};

/// How a decoder is loaded.
#[derive(Debug, Clone)]
pub struct DecoderOptions {
    /// Where its parameters live and its work is done.
    pub device: Device,
    /// What training will change.
    pub part: TrainedPart,
    /// Seeds the first values of a new adapter.
    pub seed: u64,
}

impl DecoderOptions {
    /// For inference alone.
    pub fn inference(device: Device) -> Self {
        Self {
            device,
            part: TrainedPart::Nothing,
            seed: 0,
        }
    }
}

impl Decoder {
    /// Loads `config.json` and the parameters of `folder`, all of which are checked for name, shape and type. A PEFT
    /// adapter in the same folder is not looked for: see [`Decoder::load_adapter`].
    pub fn load(folder: &Path, options: &DecoderOptions) -> Result<Self, ModelError> {
        let plan = ConfigFile::open(&folder.join("config.json"))?.decoder()?;
        let reader = CheckpointReader::open(folder)?;
        let specs = decoder_specs(&plan);
        check_names(&reader, &specs, |name| {
            name.ends_with("rotary_emb.inv_freq") || (plan.tied && name == "lm_head.weight")
        })?;
        let mut weights = Weights::default();
        let parameters = DecoderParameters::lay_out(&plan, &mut |spec| {
            read_parameter(&reader, &spec.name.clone(), spec, &mut weights, &options.device)
        })?;
        let mut decoder = Self {
            plan,
            parameters,
            tuned: Tuned::new(weights, Vec::new()),
            device: options.device.clone(),
            part: TrainedPart::Nothing,
            loaded: BTreeMap::new(),
            engine: None,
            source: folder.to_owned(),
        };
        decoder.train(options.part.clone(), options.seed)?;
        Ok(decoder)
    }

    /// Says what training may change from now on; new adapters start as no change at all.
    fn train(&mut self, part: TrainedPart, seed: u64) -> Result<(), ModelError> {
        let base: Vec<ParameterId> = self.weights().ids().collect();
        let trained = match &part {
            TrainedPart::Nothing => Vec::new(),
            TrainedPart::Full => base,
            TrainedPart::LastLayers(count) => self.last_layers(*count)?,
            TrainedPart::Lora(config) => self.add_adapters(config, seed)?,
        };
        self.loaded = match part {
            TrainedPart::Lora(_) => BTreeMap::new(),
            _ => trained.iter().map(|&id| (id, self.weights().get(id))).collect(),
        };
        self.part = part;
        self.tuned.train(trained);
        Ok(())
    }

    fn last_layers(&self, count: usize) -> Result<Vec<ParameterId>, ModelError> {
        let layers = self.plan.layers;
        if count == 0 || count > layers {
            let message = format!("num_layers_unfrozen: expected 1 to {layers} (the model's blocks), found {count}");
            return Err(ModelError::Input(message));
        }
        let mut trained = BTreeSet::from([self.parameters.norm]);
        // A tied head is the embedding, which lies below the frozen blocks: it stays frozen.
        if !self.plan.tied {
            trained.insert(self.parameters.head.weight);
        }
        for layer in &self.parameters.layers[layers - count..] {
            trained.extend([layer.input_norm, layer.mlp_norm]);
            for linear in layer.linears() {
                trained.insert(linear.weight);
                trained.extend(linear.bias);
            }
        }
        Ok(trained.into_iter().collect())
    }

    /// Refuses a tokenizer whose ids the embedding does not cover.
    pub fn check_tokenizer(&self, vocabulary_size: usize) -> Result<(), ModelError> {
        check_vocabulary(&self.source, vocabulary_size, self.plan.vocabulary)
    }

    /// Number of scalars that training changes, and of all.
    pub fn parameter_counts(&self) -> (usize, usize) {
        let (weights, all) = (self.weights(), self.weights().ids().collect::<Vec<_>>());
        (weights.count(self.tuned.ids()), weights.count(&all))
    }
}

/// Refuses a tokenizer with `tokenizer_size` ids over an embedding of `vocabulary` rows.
pub(crate) fn check_vocabulary(folder: &Path, tokenizer_size: usize, vocabulary: usize) -> Result<(), ModelError> {
    if tokenizer_size > vocabulary {
        let largest = tokenizer_size - 1;
        return Err(ModelError::TokenizerTooLarge {
            path: folder.to_owned(),
            largest,
            vocabulary,
        });
    }
    Ok(())
}

/// Every parameter of the plan.
pub(crate) fn decoder_specs(plan: &DecoderPlan) -> Vec<ParameterSpec> {
    let mut specs = Vec::new();
    let laid_out = DecoderParameters::lay_out::<Infallible>(plan, &mut |spec| {
        specs.push(spec);
        Ok(ParameterId(specs.len() - 1))
    });
    match laid_out {
        Ok(_) => specs,
    }
}

/// Checks that the files hold every parameter of `specs` and none that has no place; `ignore` names the harmless ones.
pub(crate) fn check_names(
    reader: &CheckpointReader,
    specs: &[ParameterSpec],
    ignore: impl Fn(&str) -> bool,
) -> Result<(), ModelError> {
    let known: BTreeSet<&str> = specs.iter().map(|spec| spec.name.as_str()).collect();
    let missing: Vec<String> = known
        .iter()
        .filter(|name| !reader.contains(name))
        .map(|&name| name.to_owned())
        .collect();
    if !missing.is_empty() {
        let path = reader.folder().to_owned();
        return Err(ModelError::MissingParameters {
            path,
            names: missing,
            expected: specs.len(),
        });
    }
    let unexpected: Vec<String> = reader
        .names()
        .filter(|name| !known.contains(name) && !ignore(name))
        .map(str::to_owned)
        .collect();
    if !unexpected.is_empty() {
        return Err(ModelError::UnexpectedParameters {
            path: reader.folder().to_owned(),
            names: unexpected,
        });
    }
    Ok(())
}

/// Reads the parameter that files call `name` into `weights`.
pub(crate) fn read_parameter(
    reader: &CheckpointReader,
    name: &str,
    spec: ParameterSpec,
    weights: &mut Weights,
    device: &Device,
) -> Result<ParameterId, ModelError> {
    check_size(&spec, device)?;
    let (data, _) = reader.read(name, &spec.shape)?;
    let (rows, columns) = match spec.shape[..] {
        [columns] => (1, columns),
        [rows, columns] => (rows, columns),
        _ => {
            return Err(ModelError::Input(format!(
                "parameter `{name}` has neither one nor two dimensions"
            )));
        }
    };
    Ok(weights.push(spec, matrix(data, rows, columns, device)))
}
