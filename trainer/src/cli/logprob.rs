//! `langptune logprob`: how likely a language model finds given texts.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::Args;
use models::text::{SpecialTokens, Tokenizer};
use models::{Decoder, DecoderOptions, LanguageModel, PackedBatch, Policy};
use serde::{Deserialize, Serialize};

use crate::config::Device;
use crate::hub::resolve_model;
use crate::train;

/// Log-probability of each token of texts under a language model.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  echo '{\"text\": \"A film about the sea.\"}' > texts.jsonl
  langptune logprob --model models/SmolLM2-135M-Instruct --input texts.jsonl")]
pub struct LogprobArgs {
    /// Hugging Face folder or hub id of a causal language model, or a PEFT adapter folder.
    #[arg(long)]
    model: String,
    /// JSON lines, each {"text": …} (special tokens are added) or {"tokens": […]} (taken as they are).
    #[arg(long)]
    input: PathBuf,
    /// Divides the logits.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Where the model computes: cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, default_value_t = Device::Cpu)]
    device: Device,
}

/// One line of the input.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    text: Option<String>,
    tokens: Option<Vec<u32>>,
}

/// One line of the output.
#[derive(Debug, Serialize)]
struct Scored {
    tokens: Vec<u32>,
    /// In nats; nothing predicts the first token.
    logprobs: Vec<Option<f32>>,
}

/// Runs the command.
pub fn run(args: &LogprobArgs) -> anyhow::Result<()> {
    let folder = resolve_model(&args.model, None)?;
    let options = DecoderOptions::inference(train::device(args.device)?);
    let (decoder, tokenizer) = train::open_decoder(&folder, &options)?;
    let file = File::open(&args.input).with_context(|| args.input.display().to_string())?;
    let mut out = std::io::stdout().lock();
    for (index, line) in BufReader::new(file).lines().enumerate() {
        let place = || format!("{}:{}", args.input.display(), index + 1);
        let line = line.with_context(place)?;
        if line.trim().is_empty() {
            continue;
        }
        let parsed: Line = serde_json::from_str(&line).with_context(place)?;
        let tokens = tokens_of(parsed, &tokenizer).with_context(place)?;
        let scored = score(&decoder, tokens, args.temperature).with_context(place)?;
        serde_json::to_writer(&mut out, &scored)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

fn tokens_of(line: Line, tokenizer: &Tokenizer) -> anyhow::Result<Vec<u32>> {
    match (line.text, line.tokens) {
        (Some(text), None) => Ok(tokenizer.encode(&text, SpecialTokens::Add)?),
        (None, Some(tokens)) => Ok(tokens),
        _ => bail!("expected either the field `text` or the field `tokens`"),
    }
}

fn score(decoder: &Decoder, tokens: Vec<u32>, temperature: f64) -> anyhow::Result<Scored> {
    if tokens.is_empty() {
        return Ok(Scored {
            tokens,
            logprobs: Vec::new(),
        });
    }
    let batch = PackedBatch::sequences(&[&tokens]);
    let trunk = LanguageModel::trunk(decoder, &batch)?;
    let scores = decoder.score(&batch, &trunk, Policy::Current, temperature)?;
    let logprobs = std::iter::once(None)
        .chain(scores.logprobs.into_iter().map(Some))
        .collect();
    Ok(Scored { tokens, logprobs })
}
