//! Decoders as Hugging Face folders, adapters as PEFT folders.

use std::path::Path;

use serde_json::json;

use super::{Decoder, LoraConfig, TrainedPart};
use crate::files::{Dtype, NamedTensor, write_safetensors};
use crate::folder::{copy_companions, create, write_config, write_json};
use crate::weights::ParameterId;
use crate::{ModelError, Trainable};

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
        let base: Vec<ParameterId> = self.weights.ids().filter(|&id| !self.is_adapter(id)).collect();
        let tensors = base
            .into_iter()
            .map(|id| self.named(id, ""))
            .collect::<Result<Vec<_>, _>>()?;
        write_safetensors(&folder.join("model.safetensors"), tensors, Dtype::F32)?;
        copy_companions(&self.source, folder)?;
        write_config(&self.source, folder)
    }

    fn save_adapter(&self, config: &LoraConfig, folder: &Path) -> Result<(), ModelError> {
        create(folder)?;
        let tensors = self
            .trained()
            .iter()
            .map(|&id| self.named(id, "base_model.model."))
            .collect::<Result<Vec<_>, _>>()?;
        write_safetensors(&folder.join("adapter_model.safetensors"), tensors, Dtype::F32)?;
        copy_companions(&self.source, folder)?;
        let mut targets = config.targets.clone();
        targets.sort();
        let value = json!({
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "base_model_name_or_path": self.source,
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

    fn is_adapter(&self, id: ParameterId) -> bool {
        let layers = self.parameters.layers.iter().flat_map(|layer| layer.linears());
        layers
            .chain([&self.parameters.head])
            .filter_map(|linear| linear.adapter)
            .any(|a| a.a == id || a.b == id)
    }

    fn named(&self, id: ParameterId, prefix: &str) -> Result<NamedTensor, ModelError> {
        let spec = self.weights.spec(id);
        let data = self.weights.to_vec(id)?;
        Ok(NamedTensor {
            name: format!("{prefix}{}", spec.name),
            shape: spec.shape.clone(),
            data,
        })
    }
}
