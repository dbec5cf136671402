//! `langptune bench`: how fast this machine samples and embeds.

use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use models::{DecoderOptions, Draws, EncoderOptions, LanguageModel, Prompt};
use serde::Deserialize;
use serde_json::json;

use crate::config::{Collectives, Device, Precision};
use crate::hub::resolve_model;
use crate::train::{self, Stage};

/// Time sampling and embedding; one JSON object a line, with the names of bench/peer_cpu.py.
#[derive(Debug, Args)]
#[command(after_help = "Example, beside transformers on the same inputs:
  python bench/peer_cpu.py models --threads 2 --inputs bench-inputs
  langptune bench --lm models/SmolLM2-135M-Instruct --embedder models/all-MiniLM-L6-v2 --inputs bench-inputs

Example, whether updates at a rate of 1e-7 survive bf16, beside PyTorch:
  python tests/reference/small_updates.py make small
  langptune bench --small-updates small --device cuda --precision bf16 > small/ours-bf16.json")]
pub struct BenchArgs {
    /// Language model to sample with: a Hugging Face folder or hub id.
    #[arg(long)]
    lm: Option<String>,
    /// Encoder to embed with: a Hugging Face folder or hub id.
    #[arg(long)]
    embedder: Option<String>,
    /// Folder with prompts.jsonl ({"tokens": […]}) and texts.jsonl ({"text": …}).
    #[arg(long, required_unless_present_any = ["gpu", "updates", "small_updates"])]
    inputs: Option<PathBuf>,
    /// Time the work of a training run on the first NVIDIA GPU instead, with random weights of the published models' shapes.
    #[arg(long, conflicts_with_all = ["lm", "embedder", "inputs"])]
    gpu: bool,
    /// With --gpu: JSON lines.
    #[arg(long, requires = "gpu")]
    json: bool,
    /// With --gpu: only this work; several times for more.
    #[arg(long, value_enum, value_name = "WORK", requires = "gpu")]
    only: Vec<Work>,
    /// Time so many updates of training instead, after one to warm up, alone or as a rank of `langptune launch`: of tiny models on
    /// processors and with --device wgpu, of the published runs' shapes and load with --device cuda. Prints one JSON object.
    #[arg(long, value_name = "N", conflicts_with_all = ["lm", "embedder", "inputs", "gpu"])]
    updates: Option<usize>,
    /// With --updates: whether ranks share the optimizer's state out.
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set, requires = "updates")]
    pub(super) shard_optimizer: bool,
    /// With --updates: what carries gradients; nccl with --device cuda, else tcp.
    #[arg(long, requires = "updates")]
    pub(super) collectives: Option<Collectives>,
    /// With --updates: whether every rank has as much work as one alone, or a share of it; both, one after the other, by default where
    /// there are several.
    #[arg(long, value_enum, value_delimiter = ',', requires = "updates")]
    pub(super) scaling: Vec<Scaling>,
    /// With --updates: what is timed; all by default.
    #[arg(long, value_enum, value_delimiter = ',', requires = "updates")]
    pub(super) stages: Vec<Stage>,
    /// With --updates and --device cuda: the language model's shapes [default: gemma-2b].
    #[arg(long, value_enum, requires = "updates")]
    pub(super) shapes: Option<LmShapes>,
    /// Time nothing, but train the adapter in this folder and print the log-probabilities of its rollouts before and after: one JSON
    /// object. DIR has `model`, a Hugging Face folder; `adapter`, a PEFT folder; and `rollouts.jsonl`, lines of {"prompt": [tokens],
    /// "responses": [[tokens], …], "slopes": [of each response's log-probability in what is minimised]}.
    #[arg(long, value_name = "DIR", conflicts_with_all = ["lm", "embedder", "inputs", "gpu", "updates"])]
    small_updates: Option<PathBuf>,
    /// With --small-updates: optimizer steps after which log-probabilities are printed.
    #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 1000], requires = "small_updates")]
    pub(super) steps: Vec<usize>,
    /// With --small-updates: the rate of AdamW, whose other settings are the published run's for Gemma.
    #[arg(long, default_value = "1e-7", requires = "small_updates")]
    pub(super) lr: f64,
    /// With --small-updates and --device cuda: what the model computes in; processors compute in f32.
    #[arg(long, value_enum, default_value_t = Precision::Bf16, requires = "small_updates")]
    pub(super) precision: Precision,
    /// With --small-updates: what the adapter is kept in between steps; bf16 is rounded stochastically, under seed 0.
    #[arg(long, value_enum, default_value_t = Precision::F32, requires = "small_updates")]
    pub(super) master_weights: Precision,
    /// Timed runs, after one to warm up; rates are of the median.
    #[arg(long, default_value_t = 5)]
    runs: usize,
    /// New tokens of a prompt; no token ends a response.
    #[arg(long, default_value_t = 64)]
    new_tokens: usize,
    /// Where the models compute.
    #[arg(long, default_value_t = Device::Cpu)]
    pub(super) device: Device,
}

/// How work grows with the ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scaling {
    /// Every rank has as much as one alone.
    Weak,
    /// All ranks together have as much as one alone.
    Strong,
}

/// Language models of the published runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LmShapes {
    /// Gemma-2B with adapters of rank 1024.
    #[value(name = "gemma-2b")]
    Gemma2b,
    /// Llama-3-8B with its last four blocks trained.
    #[value(name = "llama-3-8b")]
    Llama8b,
}

/// Work of a training run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Work {
    /// Rollouts, scores and pairs of a language model of Gemma-2B's shape.
    #[value(name = "gemma-2b")]
    Gemma2b,
    /// The same of Llama-3-8B's.
    #[value(name = "llama-3-8b")]
    Llama8b,
    /// The embedder's steps and items, of BERT-large's shape.
    Embedder,
    /// Where targets stand in a catalogue.
    Ranking,
}

#[derive(Deserialize)]
struct PromptLine {
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct TextLine {
    text: String,
}

/// Runs the command.
pub fn run(args: &BenchArgs) -> anyhow::Result<()> {
    if args.gpu {
        return super::gpu::bench(args.json, &args.only);
    }
    if let Some(updates) = args.updates {
        ensure!(updates > 0, "--updates: expected at least 1");
        return super::bench_updates::run(args, updates);
    }
    if let Some(folder) = &args.small_updates {
        return super::bench_small_updates::run(args, folder);
    }
    ensure!(
        args.runs > 0 && args.new_tokens > 0,
        "--runs and --new-tokens: expected at least 1"
    );
    if let Some(lm) = &args.lm {
        sampling(args, lm)?;
    }
    if let Some(embedder) = &args.embedder {
        embedding(args, embedder)?;
    }
    Ok(())
}

impl BenchArgs {
    fn input(&self, name: &str) -> PathBuf {
        self.inputs.clone().unwrap_or_default().join(name)
    }
}

fn sampling(args: &BenchArgs, lm: &str) -> anyhow::Result<()> {
    let options = DecoderOptions::inference(train::device(args.device)?);
    let (mut decoder, _) = train::open_decoder(&resolve_model(lm, None)?, &options)?;
    let lines: Vec<PromptLine> = read(&args.input("prompts.jsonl"))?;
    let prompts: Vec<Prompt<'_>> = lines
        .iter()
        .zip(0..)
        .map(|(line, user)| Prompt {
            tokens: &line.tokens,
            user,
            sample: 0,
        })
        .collect();
    let read_tokens: usize = lines.iter().map(|line| line.tokens.len()).sum();
    for (name, limit, tokens) in [
        ("sample", args.new_tokens, prompts.len() * args.new_tokens),
        ("prefill", 1, read_tokens),
    ] {
        let draws = Draws {
            seed: 0,
            update: 0,
            temperature: 1.0,
            limit,
            end_tokens: Vec::new(),
            slots: prompts.len(),
        };
        timed(name, args.runs, &[("tokens_per_s", tokens)], || {
            Ok(decoder.sample(&prompts, &draws)?)
        })?;
    }
    Ok(())
}

fn embedding(args: &BenchArgs, embedder: &str) -> anyhow::Result<()> {
    const LIMIT: usize = 512;
    let options = EncoderOptions {
        device: train::device(args.device)?,
        pooling: None,
        train: false,
    };
    let (encoder, tokenizer) =
        train::open_any_encoder(&resolve_model(embedder, None)?, &options, args.device, Precision::Bf16)?;
    let lines: Vec<TextLine> = read(&args.input("texts.jsonl"))?;
    let texts: Vec<&str> = lines.iter().map(|line| line.text.as_str()).collect();
    let tokenise = || tokenizer.encode_batch_limited(&texts, LIMIT.min(encoder.max_tokens()));
    let embed = |rows: &[Vec<u32>]| encoder.embed(&rows.iter().map(Vec::as_slice).collect::<Vec<_>>());
    let rows = tokenise()?;
    let rates = [
        ("texts_per_s", texts.len()),
        ("tokens_per_s", rows.iter().map(Vec::len).sum()),
    ];
    timed("embed", args.runs, &rates, || Ok(embed(&rows)?))?;
    timed("embed_with_tokenizer", args.runs, &rates[..1], || {
        Ok(embed(&tokenise()?)?)
    })
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> anyhow::Result<Vec<T>> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let lines = text.lines().enumerate();
    lines
        .map(|(index, line)| serde_json::from_str(line).with_context(|| format!("{}:{}", path.display(), index + 1)))
        .collect()
}

/// Calls `call` once, then `runs` times, and prints the median time and what it did in a second.
fn timed<T>(
    name: &str,
    runs: usize,
    rates: &[(&str, usize)],
    mut call: impl FnMut() -> anyhow::Result<T>,
) -> anyhow::Result<()> {
    call()?;
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        call()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let mut sorted = seconds.clone();
    sorted.sort_by(f64::total_cmp);
    let median = (sorted[(runs - 1) / 2] + sorted[runs / 2]) / 2.0;
    let mut line = json!({"name": name, "median_s": median, "seconds": seconds});
    for (rate, count) in rates {
        line[*rate] = json!(*count as f64 / median);
    }
    super::print(&format!("{line}\n"))
}
