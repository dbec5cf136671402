//! Decoders as Hugging Face folders, adapters as PEFT folders.

use std::path::Path;

use serde_json::json;

use super::parameters::{Adapter, Linear};
use super::{Decoder, LoraConfig, TrainedPart};
use crate::ModelError;
use crate::files::{Dtype, NamedTensor, write_parameters, write_safetensors};
use crate::folder::{copy_companions, create, write_config, write_json};
use crate::weights::{ParameterId, ParameterSpec, tensor_to_vec};

/// What merging a model's adapters did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Merged {
    /// Layers that had an adapter.
    pub adapters: usize,
    /// Whether a tied head got a weight of its own.
    pub untied: bool,
}

impl Decoder {
    /// Writes the adapter where one is trained, else the whole model.
    pub fn save_trained(&self, folder: &Path) -> Result<(), ModelError> {
        match &self.part {
            TrainedPart::Lora(config) => self.save_adapter(config, folder),
            _ => self.save_model(folder),
        }
    }

    fn save_model(&self, folder: &Path) -> Result<(), ModelError> {
        create(folder)?;
        let base: Vec<ParameterId> = self.weights().ids().filter(|&id| !self.is_adapter(id)).collect();
        let specs: Vec<_> = base.iter().map(|&id| self.weights().spec(id).clone()).collect();
        write_parameters(folder, &specs, Dtype::F32, |place| self.weights().to_vec(base[place]))?;
        copy_companions(&self.source, folder)?;
        write_config(&self.source, folder, Dtype::F32, &[])
    }

    /// Writes one whole model without adapters, as transformers loads it: `W + s · B · A` in place of a layer with an
    /// adapter, in `dtype`. A tied head that has an adapter gets a weight of its own, and the configuration says so: the
    /// adapter changed the head alone, not the embedding that it shared.
    ///
    /// Sums are f32; `dtype` other than [`Dtype::F32`] rounds them, and small changes of a large weight are lost then.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn save_merged(&self, folder: &Path, dtype: Dtype) -> Result<Merged, ModelError> {
        create(folder)?;
        let blocks = self.parameters.layers.iter().flat_map(|layer| layer.linears());
        let linears: Vec<&Linear> = blocks.chain([&self.parameters.head]).collect();
        let untied = self.plan.tied && self.parameters.head.adapter.is_some();
        let head = self.parameters.head.weight;
        let mut sources: Vec<(ParameterId, Option<Adapter>)> = Vec::new();
        let mut specs = Vec::new();
        for id in self.weights().ids().filter(|&id| !self.is_adapter(id)) {
            let shares = |linear: &&&Linear| linear.weight == id && !(self.plan.tied && id == head);
            let adapter = linears.iter().find(shares).and_then(|linear| linear.adapter);
            sources.push((id, adapter));
            specs.push(self.weights().spec(id).clone());
        }
        if untied {
            sources.push((head, self.parameters.head.adapter));
            let name = format!("{}.weight", self.parameters.head.name);
            let shape = self.weights().spec(head).shape.clone();
            specs.push(ParameterSpec { name, shape });
        }
        write_parameters(folder, &specs, dtype, |place| {
            let (weight, adapter) = sources[place];
            self.merged(weight, adapter)
        })?;
        copy_companions(&self.source, folder)?;
        let untie = [("tie_word_embeddings", json!(false))];
        write_config(&self.source, folder, dtype, if untied { &untie } else { &[] })?;
        Ok(Merged {
            adapters: linears.iter().filter(|linear| linear.adapter.is_some()).count(),
            untied,
        })
    }

    fn merged(&self, weight: ParameterId, adapter: Option<Adapter>) -> Result<Vec<f32>, ModelError> {
        let Some(Adapter { a, b, scale }) = adapter else {
            return self.weights().to_vec(weight);
        };
        let change = self.weights().get(b).matmul(self.weights().get(a)).mul_scalar(scale);
        tensor_to_vec(self.weights().get(weight) + change)
    }

    fn save_adapter(&self, config: &LoraConfig, folder: &Path) -> Result<(), ModelError> {
        let tensors = self
            .tuned
            .ids()
            .iter()
            .map(|&id| self.named(id, ADAPTER_PREFIX))
            .collect::<Result<Vec<_>, _>>()?;
        write_adapter(folder, &self.source, config, tensors)
    }

    fn is_adapter(&self, id: ParameterId) -> bool {
        let layers = self.parameters.layers.iter().flat_map(|layer| layer.linears());
        layers
            .chain([&self.parameters.head])
            .filter_map(|linear| linear.adapter)
            .any(|a| a.a == id || a.b == id)
    }

    fn named(&self, id: ParameterId, prefix: &str) -> Result<NamedTensor, ModelError> {
        let spec = self.weights().spec(id);
        let data = self.weights().to_vec(id)?;
        Ok(NamedTensor {
            name: format!("{prefix}{}", spec.name),
            shape: spec.shape.clone(),
            data,
        })
    }
}

/// What PEFT puts before the names of an adapter's tensors.
pub(crate) const ADAPTER_PREFIX: &str = "base_model.model.";

/// Writes a PEFT folder for an adapter on the model of `source`.
pub(crate) fn write_adapter(
    folder: &Path,
    source: &Path,
    config: &LoraConfig,
    tensors: Vec<NamedTensor>,
) -> Result<(), ModelError> {
    create(folder)?;
    write_safetensors(&folder.join("adapter_model.safetensors"), tensors, Dtype::F32)?;
    copy_companions(source, folder)?;
    let mut targets = config.targets.clone();
    targets.sort();
    let value = json!({
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": source,
        "r": config.rank,
        "lora_alpha": config.alpha,
        "lora_dropout": 0.0,
        "target_modules": targets,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "modules_to_save": null,
    });
    write_json(&folder.join("adapter_config.json"), &value)
}
