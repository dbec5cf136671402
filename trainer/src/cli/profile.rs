//! `langptune profile`: what a language model writes about a user.

use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, ValueEnum};
use models::{DecoderOptions, Draws, Prompt};
use serde::Serialize;

use crate::config::{Device, Precision};
use crate::data::DatasetSource;
use crate::hub::resolve_model;
use crate::train::{self, Split};

/// Profiles of one user of a dataset, as a language model writes them.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  langptune profile --lm models/SmolLM2-135M-Instruct --dataset dataset --user 3 --samples 2")]
pub struct ProfileArgs {
    /// Hugging Face folder or hub id of a causal language model, or a checkpoint's `lm` folder.
    #[arg(long, alias = "lm_model", alias = "lm-model")]
    lm: String,
    /// Folder that `langptune prepare` wrote, or folder or hub id (owner/name[@revision]) of a published set.
    #[arg(long, alias = "task.query-dataset")]
    dataset: PathBuf,
    /// Folder or hub id of a published set's items [default: where the dataset is].
    #[arg(long, alias = "task.item-dataset")]
    item_dataset: Option<PathBuf>,
    /// The user: a number from 0 within the split, or a user id.
    #[arg(long)]
    user: String,
    /// Where the user is looked for.
    #[arg(long, value_enum, default_value_t = SplitName::Val)]
    split: SplitName,
    /// How many profiles.
    #[arg(long, default_value_t = 1)]
    samples: u32,
    /// Most new tokens of a profile.
    #[arg(long, default_value_t = 512)]
    response_length: usize,
    /// Divides the logits.
    #[arg(long, default_value_t = 1.0)]
    temperature: f64,
    /// Further tokens that end a profile, beside the tokenizer's EOS.
    #[arg(long)]
    eos: Vec<String>,
    /// Seed of the draws.
    #[arg(long, default_value_t = 555_134)]
    seed: u64,
    /// Where the model computes: cpu, cuda, cuda:N, wgpu or wgpu:N.
    #[arg(long, default_value_t = Device::Cpu)]
    device: Device,
    /// One JSON object a profile instead of text.
    #[arg(long)]
    json: bool,
}

/// A split as named on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SplitName {
    /// Users that are trained on.
    Train,
    /// Users that training is watched on.
    Val,
    /// Users kept for the end.
    Test,
}

impl SplitName {
    /// The split.
    pub fn split(self) -> Split {
        match self {
            Self::Train => Split::Train,
            Self::Val => Split::Val,
            Self::Test => Split::Test,
        }
    }
}

/// One profile.
#[derive(Debug, Serialize)]
struct Written<'a> {
    user: &'a str,
    sample: usize,
    tokens: usize,
    ended: bool,
    profile: String,
}

impl Written<'_> {
    fn text(&self) -> String {
        let end = if self.ended { "" } else { ", cut at the limit" };
        let head = format!(
            "— user {}, profile {} ({} tokens{end})",
            self.user,
            self.sample + 1,
            self.tokens
        );
        format!("{head}\n{}\n\n", self.profile.trim())
    }
}

/// Runs the command.
pub fn run(args: &ProfileArgs) -> anyhow::Result<()> {
    let folder = resolve_model(&args.lm, None)?;
    let source = DatasetSource {
        dataset: args.dataset.clone(),
        items: args.item_dataset.clone(),
        lm: Some(folder.as_path().into()),
        embedder: None,
        template: None,
    };
    let dataset = source.open()?;
    let split = args.split.split();
    let users = split.users(&dataset);
    let index = find(users, &args.user).with_context(|| format!("{}", args.dataset.display()))?;
    let user = &users[index];
    let options = DecoderOptions::inference(train::device(args.device)?);
    let (mut decoder, tokenizer) = train::open_language_model(&folder, &options, args.device, Precision::Bf16)?;
    let draws = Draws {
        seed: args.seed,
        update: 0,
        temperature: args.temperature,
        limit: args.response_length,
        end_tokens: train::end_tokens(&tokenizer, &args.eos)?,
        slots: args.samples as usize,
    };
    let number = split.first_user(&dataset) + index as u32;
    let prompts: Vec<Prompt<'_>> = (0..args.samples)
        .map(|sample| Prompt {
            tokens: &user.prompt_tokens,
            user: number,
            sample,
        })
        .collect();
    for (sample, response) in decoder.sample(&prompts, &draws)?.into_iter().enumerate() {
        let profile = tokenizer.decode(&response.tokens)?;
        let (tokens, ended) = (response.tokens.len(), response.ended);
        let written = Written {
            user: &user.id,
            sample,
            tokens,
            ended,
            profile,
        };
        super::print(&if args.json {
            format!("{}\n", serde_json::to_string(&written)?)
        } else {
            written.text()
        })?;
    }
    Ok(())
}

fn find(users: &[crate::data::User], wanted: &str) -> anyhow::Result<usize> {
    if let Some(index) = users.iter().position(|user| user.id == wanted) {
        return Ok(index);
    }
    match wanted.parse::<usize>() {
        Ok(index) if index < users.len() => Ok(index),
        _ => bail!(
            "user {wanted}: this split has the users 0 to {} and no such id",
            users.len().saturating_sub(1)
        ),
    }
}
