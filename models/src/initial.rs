//! Fresh parameters for a model that is to be pretrained: a folder with a `config.json` becomes one that can be loaded.

use std::path::Path;

use crate::ModelError;
use crate::decoder::decoder_specs;
use crate::encoder::encoder_specs;
use crate::files::{Dtype, NamedTensor, write_safetensors};
use crate::plan::ConfigFile;
use crate::random::normal_values;
use crate::weights::ParameterSpec;

/// Writes `model.safetensors` for the decoder that `folder/config.json` describes: matrices normal with standard deviation
/// `deviation`, those that end a residual branch smaller by √(2 · layers) (Radford et al., 2019), norms 1, biases 0.
///
/// # Errors
/// When the config is not a decoder's, or the file cannot be written.
pub fn write_initial_decoder(folder: &Path, seed: u64, deviation: f64) -> Result<(), ModelError> {
    let plan = ConfigFile::open(&folder.join("config.json"))?.decoder()?;
    write(folder, decoder_specs(&plan), plan.layers, seed, deviation)
}

/// As [`write_initial_decoder`], for an encoder.
///
/// # Errors
/// When the config is not an encoder's, or the file cannot be written.
pub fn write_initial_encoder(folder: &Path, seed: u64, deviation: f64) -> Result<(), ModelError> {
    let plan = ConfigFile::open(&folder.join("config.json"))?.encoder()?;
    write(folder, encoder_specs(&plan), plan.layers, seed, deviation)
}

fn write(folder: &Path, specs: Vec<ParameterSpec>, layers: usize, seed: u64, deviation: f64) -> Result<(), ModelError> {
    let tensors = specs.into_iter().zip(0..).map(|(spec, stream)| {
        let count = spec.shape.iter().product();
        let data = if spec.name.ends_with(".bias") {
            vec![0.0; count]
        } else if spec.shape.len() == 1 {
            vec![1.0; count]
        } else {
            let shrink = if ends_branch(&spec.name) {
                (2.0 * layers as f64).sqrt()
            } else {
                1.0
            };
            normal_values(seed, stream, count, (deviation / shrink) as f32)
        };
        NamedTensor {
            name: spec.name,
            shape: spec.shape,
            data,
        }
    });
    write_safetensors(&folder.join("model.safetensors"), tensors.collect(), Dtype::F32)
}

/// Whether the layer's output is added to the residual stream.
fn ends_branch(name: &str) -> bool {
    ["o_proj.weight", "down_proj.weight", "output.dense.weight"]
        .iter()
        .any(|end| name.ends_with(end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::{Bert, Decoder, DecoderOptions, Device, EncoderOptions, Weights};

    fn spread(weights: &Weights, name: &str) -> f64 {
        let values = weights.to_vec(weights.find(name).unwrap()).unwrap();
        let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
        (squares / values.len() as f64).sqrt()
    }

    #[test]
    fn a_fresh_decoder_loads_with_the_spread_that_was_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let config = r#"{"model_type": "llama", "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "hidden_act": "silu", "rms_norm_eps": 1e-6}"#;
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        write_initial_decoder(folder.path(), 1, 0.1).unwrap();
        let decoder = Decoder::load(folder.path(), &DecoderOptions::inference(Device::flex())).unwrap();
        let weights = decoder.weights();
        assert!((spread(weights, "model.layers.1.self_attn.q_proj.weight") - 0.1).abs() < 0.01);
        assert!((spread(weights, "model.layers.1.mlp.down_proj.weight") - 0.05).abs() < 0.005);
        assert_eq!(spread(weights, "model.norm.weight"), 1.0);
    }

    #[test]
    fn a_fresh_encoder_loads() {
        let folder = tempfile::tempdir().unwrap();
        let config = r#"{"model_type": "bert", "vocab_size": 100, "hidden_size": 32, "intermediate_size": 64,
            "num_hidden_layers": 2, "num_attention_heads": 2, "max_position_embeddings": 64}"#;
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        write_initial_encoder(folder.path(), 1, 0.1).unwrap();
        let options = EncoderOptions {
            device: Device::flex(),
            pooling: None,
            train: false,
        };
        let bert = Bert::load(folder.path(), &options).unwrap();
        assert_eq!(spread(bert.weights(), "embeddings.LayerNorm.weight"), 1.0);
        assert_eq!(spread(bert.weights(), "embeddings.LayerNorm.bias"), 0.0);
    }
}
