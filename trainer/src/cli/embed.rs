//! `langptune embed`: texts to vectors.

use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use models::EncoderOptions;

use super::UsageError;
use crate::config::{Device, Pooling, Precision};
use crate::hub::resolve_model;
use crate::{npy, train};

/// Vectors of texts, as a NumPy file.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  langptune embed --model models/all-MiniLM-L6-v2 --input texts.txt --output vectors.npy --normalize")]
pub struct EmbedArgs {
    /// Hugging Face folder or hub id of a text encoder.
    #[arg(long)]
    model: String,
    /// A text a line.
    #[arg(long)]
    input: PathBuf,
    /// The NumPy file to write: float32, [lines, dimension].
    #[arg(long)]
    output: PathBuf,
    /// How token vectors become one; default: as the model folder says.
    #[arg(long, value_enum)]
    pooling: Option<Pooling>,
    /// Scale every vector to length 1.
    #[arg(long)]
    normalize: bool,
    /// Most tokens of a text; what is longer is cut. Default: what the model takes, at most 512.
    #[arg(long)]
    max_tokens: Option<usize>,
    /// Where the model computes: cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, default_value_t = Device::Cpu)]
    device: Device,
    /// What an NVIDIA GPU computes in; all else computes in f32 [default: bf16].
    #[arg(long, value_enum)]
    precision: Option<Precision>,
}

/// Texts longer than this are cut unless asked otherwise.
const DEFAULT_LIMIT: usize = 512;

/// Runs the command.
pub fn run(args: &EmbedArgs) -> anyhow::Result<()> {
    let precision = args.device.precision(args.precision).map_err(UsageError::new)?;
    let folder = resolve_model(&args.model, None)?;
    let options = EncoderOptions {
        device: train::device(args.device)?,
        pooling: args.pooling.map(train::pooling),
        train: false,
    };
    let (encoder, tokenizer) = train::open_any_encoder(&folder, &options, args.device, precision)?;
    let text = std::fs::read_to_string(&args.input).with_context(|| args.input.display().to_string())?;
    let lines: Vec<&str> = text.lines().collect();
    let limit = args.max_tokens.unwrap_or(DEFAULT_LIMIT).min(encoder.max_tokens());
    let tokens = tokenizer.encode_batch_limited(&lines, limit)?;
    let tokens: Vec<&[u32]> = tokens.iter().map(Vec::as_slice).collect();
    let mut vectors = encoder.embed(&tokens)?;
    if args.normalize {
        for vector in vectors.chunks_exact_mut(encoder.dimension()) {
            let length = vector.iter().map(|value| value * value).sum::<f32>().sqrt().max(1e-12);
            vector.iter_mut().for_each(|value| *value /= length);
        }
    }
    npy::write(&args.output, &vectors, encoder.dimension())?;
    eprintln!(
        "wrote {} vectors of {} to {}",
        lines.len(),
        encoder.dimension(),
        args.output.display()
    );
    Ok(())
}
