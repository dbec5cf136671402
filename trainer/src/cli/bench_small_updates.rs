//! `langptune bench --small-updates`: whether steps at a small rate survive the precision that a model computes in.

use std::path::Path;

use models::{AdamConfig, Decoder, DecoderOptions, LanguageModel};
use serde_json::json;

use super::UsageError;
use super::bench::BenchArgs;
use crate::config::{Device, Precision};
use crate::train::{self, PUBLISHED_ADAM, read_sloped_rollouts, small_updates};

/// Trains the adapter in `folder` and prints one JSON object with the rollouts' log-probabilities.
pub(super) fn run(arguments: &BenchArgs, folder: &Path) -> anyhow::Result<()> {
    let mut counts = arguments.steps.clone();
    counts.sort_unstable();
    counts.dedup();
    if counts.first().is_none_or(|&first| first == 0) {
        return Err(UsageError::new("--steps: expected numbers from 1").into());
    }
    let adam = AdamConfig {
        lr: arguments.lr,
        ..PUBLISHED_ADAM
    };
    let rollouts = read_sloped_rollouts(&folder.join("rollouts.jsonl"))?;
    let (mut lm, precision) = open(folder, arguments.device, arguments.precision)?;
    if arguments.master_weights == Precision::Bf16 {
        lm.trainable().keep_bf16(0)?;
    }
    let after = small_updates(lm.as_mut(), &rollouts, &adam, &counts)?;
    let line = json!({
        "device": arguments.device.to_string(),
        "precision": precision,
        "master_weights": arguments.master_weights,
        "lr": adam.lr,
        "after": after,
    });
    super::print(&format!("{line}\n"))
}

/// The model with its adapter, and what it computes in.
fn open(folder: &Path, device: Device, precision: Precision) -> anyhow::Result<(Box<dyn LanguageModel>, Precision)> {
    let (model, adapter) = (folder.join("model"), folder.join("adapter"));
    #[cfg(feature = "engine")]
    if let Device::Cuda(_) = device {
        use models::cuda::{CudaDecoder, CudaDecoderOptions};
        let options = CudaDecoderOptions {
            gpu: train::gpu(device)?,
            element: train::element(precision),
            part: models::TrainedPart::Nothing,
            seed: 0,
        };
        let decoder = CudaDecoder::load_with_adapter(&model, &adapter, &options)?;
        return Ok((Box::new(decoder), precision));
    }
    let _ = precision;
    let mut decoder = Decoder::load(&model, &DecoderOptions::inference(train::device(device)?))?;
    decoder.load_adapter(&adapter)?;
    Ok((Box::new(decoder), Precision::F32))
}
