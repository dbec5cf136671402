//! Low-rank adapters (Hu et al., 2021), in PEFT's names.

use std::path::Path;

use serde_json::Value;

use super::parameters::{Adapter, Linear};
use super::{Decoder, TrainedPart};
use crate::ModelError;
use crate::files::CheckpointReader;
use crate::random::uniform_values;
use crate::weights::{ParameterId, ParameterSpec, check_size, matrix};

/// A linear layer that an adapter can stand beside, by the last part of its name, such as `q_proj` or `lm_head`.
pub type LoraTarget = String;

/// Shape of the adapters.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraConfig {
    /// Inner width.
    pub rank: usize,
    /// The update is scaled by `alpha / rank`.
    pub alpha: f64,
    /// Which layers have one.
    pub targets: Vec<LoraTarget>,
}

impl LoraConfig {
    /// The seven linear layers of a block and the head.
    pub const ALL_TARGETS: [&str; 8] = [
        "q_proj",
        "k_proj",
        "v_proj",
        "o_proj",
        "gate_proj",
        "up_proj",
        "down_proj",
        "lm_head",
    ];

    /// The factor of the update.
    pub fn scale(&self) -> f64 {
        self.alpha / self.rank as f64
    }
}

impl Decoder {
    /// Puts adapters beside the layers that `config` names: A random as PEFT draws it, B zero.
    pub(super) fn add_adapters(&mut self, config: &LoraConfig, seed: u64) -> Result<Vec<ParameterId>, ModelError> {
        check(config)?;
        let mut stream = 0;
        self.place_adapters(config, |_, shape_a, shape_b| {
            stream += 1;
            // PEFT's kaiming_uniform with a = √5: uniform within ±1/√inputs.
            let bound = 1.0 / (shape_a[1] as f32).sqrt();
            let a = uniform_values(seed, stream, shape_a[0] * shape_a[1], bound);
            Ok((a, vec![0.0; shape_b[0] * shape_b[1]]))
        })
    }

    /// Loads a PEFT adapter folder beside the layers it names; they become what training changes.
    ///
    /// # Errors
    /// When the folder is no LoRA adapter, uses a variant that is not supported, or does not fit this model.
    pub fn load_adapter(&mut self, folder: &Path) -> Result<(), ModelError> {
        let path = folder.join("adapter_config.json");
        let config = read_adapter_config(&path)?;
        let file = folder.join("adapter_model.safetensors");
        let reader = CheckpointReader::open_file(&file)?;
        self.remove_adapters();
        let trained = self.place_adapters(&config, |name, shape_a, shape_b| {
            let read = |part: &str, shape: &[usize]| {
                reader
                    .read(&format!("base_model.model.{name}.{part}.weight"), shape)
                    .map(|(data, _)| data)
            };
            Ok((read("lora_A", &shape_a)?, read("lora_B", &shape_b)?))
        })?;
        self.tuned.train(trained);
        self.loaded.clear();
        self.part = TrainedPart::Lora(config);
        Ok(())
    }

    fn remove_adapters(&mut self) {
        for layer in &mut self.parameters.layers {
            layer.linears_mut().into_iter().for_each(|linear| linear.adapter = None);
        }
        self.parameters.head.adapter = None;
    }

    /// Adds A and B of `values(layer name, shape of A, shape of B)` beside every named layer.
    fn place_adapters(
        &mut self,
        config: &LoraConfig,
        mut values: impl FnMut(&str, [usize; 2], [usize; 2]) -> Result<(Vec<f32>, Vec<f32>), ModelError>,
    ) -> Result<Vec<ParameterId>, ModelError> {
        let scale = config.scale() as f32;
        let (weights, device) = (self.tuned.weights_mut(), &self.device);
        let mut trained = Vec::new();
        let layers = self.parameters.layers.iter_mut().flat_map(|layer| layer.linears_mut());
        for linear in layers.chain([&mut self.parameters.head]) {
            if !is_target(linear, &config.targets) {
                continue;
            }
            let [outputs, inputs] = weights.get(linear.weight).dims();
            let (shape_a, shape_b) = ([config.rank, inputs], [outputs, config.rank]);
            let (a, b) = values(&linear.name, shape_a, shape_b)?;
            let mut add = |part: &str, data: Vec<f32>, shape: [usize; 2]| {
                let name = format!("{}.{part}.weight", linear.name);
                let spec = ParameterSpec {
                    name,
                    shape: shape.to_vec(),
                };
                check_size(&spec, device)?;
                Ok::<_, ModelError>(weights.push(spec, matrix(data, shape[0], shape[1], device)))
            };
            let (a, b) = (add("lora_A", a, shape_a)?, add("lora_B", b, shape_b)?);
            trained.extend([a, b]);
            linear.adapter = Some(Adapter { a, b, scale });
        }
        Ok(trained)
    }
}

fn is_target(linear: &Linear, targets: &[LoraTarget]) -> bool {
    let last = linear.name.rsplit('.').next().unwrap_or(&linear.name);
    targets.iter().any(|target| target == last || *target == linear.name)
}

fn check(config: &LoraConfig) -> Result<(), ModelError> {
    if config.rank == 0 {
        return Err(ModelError::Input("lora_rank: expected at least 1, found 0".to_owned()));
    }
    if let Some(unknown) = config
        .targets
        .iter()
        .find(|target| !LoraConfig::ALL_TARGETS.contains(&target.as_str()))
    {
        let message = format!(
            "lora_targets: `{unknown}` is no linear layer; known are {}",
            LoraConfig::ALL_TARGETS.join(", ")
        );
        return Err(ModelError::Input(message));
    }
    if config.targets.is_empty() {
        return Err(ModelError::Input(
            "lora_targets: expected at least one layer, found none".to_owned(),
        ));
    }
    Ok(())
}

/// Reads PEFT's `adapter_config.json`.
pub(crate) fn read_adapter_config(path: &Path) -> Result<LoraConfig, ModelError> {
    let text = std::fs::read_to_string(path).map_err(|source| ModelError::io(path, source))?;
    let value: Value = serde_json::from_str(&text).map_err(|error| ModelError::config(path, error.to_string()))?;
    let refuse = |message: String| Err(ModelError::config(path, message));
    if value["peft_type"].as_str() != Some("LORA") {
        return refuse(format!(
            "field `peft_type`: expected LORA, found {}",
            value["peft_type"]
        ));
    }
    for field in ["use_rslora", "use_dora"] {
        if value[field].as_bool() == Some(true) {
            return refuse(format!("field `{field}`: this variant is not supported"));
        }
    }
    if value["bias"].as_str().is_some_and(|bias| bias != "none") {
        return refuse(format!("field `bias`: expected none, found {}", value["bias"]));
    }
    for field in ["rank_pattern", "alpha_pattern"] {
        if value[field].as_object().is_some_and(|pattern| !pattern.is_empty()) {
            return refuse(format!("field `{field}`: one rank for all layers is supported"));
        }
    }
    let Some(rank) = value["r"].as_u64().filter(|&rank| rank > 0) else {
        return refuse("field `r`: expected a positive whole number".to_owned());
    };
    let Some(alpha) = value["lora_alpha"].as_f64() else {
        return refuse("field `lora_alpha`: expected a number".to_owned());
    };
    let Some(targets) = value["target_modules"].as_array() else {
        return refuse("field `target_modules`: expected a list of layer names".to_owned());
    };
    let targets = targets
        .iter()
        .filter_map(|target| target.as_str().map(str::to_owned))
        .collect();
    let config = LoraConfig {
        rank: rank as usize,
        alpha,
        targets,
    };
    check(&config)?;
    Ok(config)
}
