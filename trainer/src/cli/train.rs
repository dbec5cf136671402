//! `langptune train`: the declaration of its flags. What they resolve to is [`TrainConfig`]'s.

use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::builder::BoolishValueParser;
use clap::{ArgAction, Args};
use serde::Serialize;

use super::train_sources;
use crate::checkpoint::RunLock;
use crate::config::{
    Collectives, Device, LossReduction, MicroBatch, OptimizerAlgorithm, Pooling, Precision, Preset, Profiles,
    PromptTemplate, Recompute, RewardType, TrainConfig, TrainableKind, flag_name,
};
use crate::dist::{self, Communicator, DistError, Solo};
use crate::train::{self, End, Sharing, Start, Trainer};
use crate::{interrupt, progress};

const EXAMPLES: &str = "\
Examples:
  langptune train --preset gemma --dataset data/movies --output runs/movies
  langptune train --config runs/movies/config.toml --output runs/again --seed 7
  langptune train --resume --output runs/movies
  LANGPTUNE_DEVICE=cuda langptune train --preset llama --dataset data/movies --print-config

Underscores and dashes are the same in a flag's name. A yes-or-no flag reads --whiten-rewards,
--whiten-rewards False or --no-whiten-rewards. Every flag is also an environment variable:
--task.temperature is LANGPTUNE_TASK_TEMPERATURE. The command line goes before the environment,
the environment before --config, and --config before --preset.";

/// Seconds that processes wait for one of them.
const WATCHDOG_SECS: usize = 600;

/// Train a language model and an embedder in turn on a prepared dataset
#[derive(Debug, Clone, Default, Args)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    #[command(flatten)]
    run: RunArgs,
    #[command(flatten)]
    control: ControlArgs,
    #[command(flatten)]
    schedule: ScheduleArgs,
    #[command(flatten)]
    lm: LmArgs,
    #[command(flatten)]
    embedder: EmbedderArgs,
    #[command(flatten)]
    optimizer: OptimizerArgs,
    #[command(flatten)]
    rl: RlArgs,
    #[command(flatten)]
    evaluation: EvaluationArgs,
    #[command(flatten)]
    checkpoint: CheckpointArgs,
}

/// What the run reads and writes.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Run")]
pub(super) struct RunArgs {
    /// Published setting to start from
    #[arg(long)]
    preset: Option<Preset>,
    /// Folder made by `langptune prepare`, or folder or hub id (owner/name[@revision]) of a published set [required here or as --task.query-dataset]
    #[arg(long, value_name = "DIR")]
    dataset: Option<PathBuf>,
    /// The same as --dataset, under the published name
    #[arg(long = "task.query-dataset", alias = "query-dataset", value_name = "DIR")]
    task_query_dataset: Option<PathBuf>,
    /// Folder or hub id of a published set's items [default: where the dataset is]
    #[arg(long = "task.item-dataset", alias = "item-dataset", value_name = "DIR")]
    task_item_dataset: Option<PathBuf>,
    /// Folder of the run [default: runs/<exp-name>]
    #[arg(long, value_name = "RUN")]
    output: Option<PathBuf>,
    /// Name of the run in logs [default: the preset's name]
    #[arg(long, value_name = "NAME")]
    exp_name: Option<String>,
    /// Seed of all draws [default: 555134]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Where models compute: cpu, cuda, cuda:N, wgpu or wgpu:N; without a number each process of a host takes a GPU of its own [default: cpu]
    #[arg(long)]
    device: Option<Device>,
    /// What the language model computes in on an NVIDIA GPU; f32 is there to compare with the processor; sums are f32 either way [default: bf16, with wgpu f32]
    #[arg(long)]
    precision: Option<Precision>,
    /// What the embedder reads: generated profiles, or none for the raw history (a baseline) [default: generated]
    #[arg(long)]
    profiles: Option<Profiles>,
    /// Accepted for the published commands; events are written to the run either way [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    track: Option<bool>,
    /// File for one JSON line an LM update: token ids, log-probabilities, rewards, losses
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
}

/// What holds for this call and is no part of the run's configuration.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "This call")]
pub(super) struct ControlArgs {
    /// TOML file with settings, e.g. the config.toml of another run
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Replace a run that is already in the output folder [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    overwrite: Option<bool>,
    /// Go on with the run in the output folder, from its last checkpoint and with its configuration [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    resume: Option<bool>,
    /// End after this many updates, with a checkpoint [default: the whole schedule]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    stop_after: Option<usize>,
    /// Seconds that processes wait for one of them before all end [default: 600]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true, value_parser = parse_count)]
    watchdog_secs: Option<usize>,
    /// Share the optimizers' state out among the processes (ZeRO-2); it changes no result [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    shard_optimizer: Option<bool>,
    /// What carries gradients between processes: auto is nccl with --device cuda, else tcp [default: auto]
    #[arg(long)]
    collectives: Option<Collectives>,
    /// What gradients travel in over NCCL [default: f32]
    #[arg(long)]
    gradient_precision: Option<Precision>,
    /// Print the resolved configuration and stop [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    print_config: Option<bool>,
}

/// How long each phase trains.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Schedule")]
pub(super) struct ScheduleArgs {
    /// Rounds of an embedder phase and an LM phase [default: 5]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    num_iterations: Option<usize>,
    /// Batches in an embedder phase [default: 800; llama: 2500]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    num_emb_updates: Option<usize>,
    /// Updates in an LM phase [default: 200; llama: 500]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    num_lm_updates: Option<usize>,
}

/// The language model.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Language model")]
pub(super) struct LmArgs {
    /// Folder or hub id of the language model [default: the preset's]
    #[arg(long, alias = "lm", value_name = "MODEL")]
    lm_model: Option<String>,
    /// Branch, tag or commit of a hub id [default: main]
    #[arg(long, value_name = "REVISION")]
    lm_revision: Option<String>,
    /// Prompt form that the dataset must have been prepared with [default: the preset's, else any]
    #[arg(long)]
    template: Option<PromptTemplate>,
    /// What is trained: adapters, the last layers, or every weight [default: lora; llama: last-n]
    #[arg(long)]
    trainable: Option<TrainableKind>,
    /// Rank r of the adapters [default: 1024]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    lora_rank: Option<usize>,
    /// Numerator α of the adapters' scale α/r [default: twice the rank]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lora_alpha: Option<f64>,
    /// Share of the adapters' input that is dropped: 0 only [default: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lora_dropout: Option<f64>,
    /// Layers with adapters [default: q_proj,k_proj,v_proj,o_proj,gate_proj,up_proj,down_proj,lm_head]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    lora_targets: Option<Vec<String>>,
    /// Last blocks that train, with the final norm and an untied head [default: 4]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    num_layers_unfrozen: Option<usize>,
    /// Further tokens that end a profile, e.g. "<end_of_turn>" [default: none]
    #[arg(long, value_name = "TOKENS", value_delimiter = ',')]
    eos: Option<Vec<String>>,
    /// Longest prompt in tokens [default: 1024]
    #[arg(
        long = "task.data-max-length",
        alias = "data-max-length",
        value_name = "N",
        allow_negative_numbers = true, value_parser = parse_count
    )]
    task_data_max_length: Option<usize>,
    /// Users in a micro-batch of a device [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    per_device_train_batch_size: Option<usize>,
    /// Users whose rollouts go through the model together: auto is as many as a GPU's memory takes, on the processor
    /// --per-device-train-batch-size [default: auto]
    #[arg(long, value_name = "auto|N")]
    micro_batch: Option<MicroBatch>,
    /// Whether the model's blocks run again on the way back instead of keeping what they computed, on an NVIDIA GPU: slower, in less
    /// memory; auto is where a user's rollouts do not fit otherwise [default: auto]
    #[arg(long)]
    recompute: Option<Recompute>,
    /// Micro-batches in an optimizer step [default: 16]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    gradient_accumulation_steps: Option<usize>,
    /// Folder that also gets the final model or adapter [default: only the run's checkpoints]
    #[arg(long, value_name = "DIR")]
    output_dir_lm: Option<PathBuf>,
}

/// The embedder.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Embedder")]
pub(super) struct EmbedderArgs {
    /// Folder or hub id of the embedder [default: the preset's]
    #[arg(long, alias = "embedder", value_name = "MODEL")]
    emb_model: Option<String>,
    /// Branch, tag or commit of a hub id [default: main]
    #[arg(long, value_name = "REVISION")]
    emb_revision: Option<String>,
    /// How token vectors become one [default: as the model folder says]
    #[arg(long)]
    emb_pooling: Option<Pooling>,
    /// Text put before every profile [default: none]
    #[arg(long, alias = "prompt", value_name = "TEXT")]
    query_prefix: Option<String>,
    /// Divisor τ of the cosines in the contrastive loss [default: 0.1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    loss_temp: Option<f64>,
    /// Contrast with the items of all processes' batches instead of the own one's [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    global_negatives: Option<bool>,
    /// Users in a batch of a device [default: 32]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    emb_per_device_train_batch_size: Option<usize>,
    /// Batches in an optimizer step [default: --gradient-accumulation-steps]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    emb_gradient_accumulation_steps: Option<usize>,
    /// Texts embedded at once without gradient [default: 32]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    emb_batch_size: Option<usize>,
    /// Folder that also gets the final embedder [default: only the run's checkpoints]
    #[arg(long, value_name = "DIR")]
    output_dir_emb: Option<PathBuf>,
}

/// The optimizers.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Optimizers")]
pub(super) struct OptimizerArgs {
    /// Learning rate of the language model [default: 1e-7; llama: 3e-7]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    lr: Option<f64>,
    /// Learning rate of the embedder [default: 1e-7; llama: 3e-7]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    emb_lr: Option<f64>,
    /// Optimizer of both models [default: adamw]
    #[arg(long)]
    optimizer: Option<OptimizerAlgorithm>,
    /// Decay of both moments, of both models [default: 0.9,0.999; llama: 0.9,0.95]
    #[arg(long, value_name = "B1,B2", value_parser = parse_betas)]
    betas: Option<[f64; 2]>,
    /// Denominator's guard ε, of both models [default: 1e-6]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    eps: Option<f64>,
    /// Weight decay of both models [default: 0.01; llama: 1e-6]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    weight_decay: Option<f64>,
    /// What trained parameters of both models are kept in; bf16 is rounded stochastically, and saves a GPU's memory [default: f32]
    #[arg(long)]
    master_weights: Option<Precision>,
}

/// The reinforcement phase.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Reinforcement")]
pub(super) struct RlArgs {
    /// Scale η of the reward difference in the loss [default: 1]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    eta: Option<f64>,
    /// Weight of the KL term in the reward [default: 0.2; llama: 0]
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    kl_coef: Option<f64>,
    /// Shift and scale rewards to mean 0 and variance 1 [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    whiten_rewards: Option<bool>,
    /// Whiten over the rewards of all processes instead of each over its own [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    global_whitening: Option<bool>,
    /// Passes over an update's rollouts [default: 4]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    noptepochs: Option<usize>,
    /// Ranking metric that is the reward [default: ndcg]
    #[arg(long)]
    reward_type: Option<RewardType>,
    /// Reward of a profile that fills the embedder's limit [default: 0]
    #[arg(
        long = "task.penalty-reward-value",
        alias = "penalty-reward-value",
        value_name = "X",
        allow_negative_numbers = true
    )]
    task_penalty_reward_value: Option<f64>,
    /// Longest profile, in new tokens and in the embedder's tokens [default: 512]
    #[arg(
        long = "task.response-length",
        alias = "response-length",
        value_name = "N",
        allow_negative_numbers = true, value_parser = parse_count
    )]
    task_response_length: Option<usize>,
    /// Divisor of the logits when sampling and scoring [default: 1]
    #[arg(
        long = "task.temperature",
        alias = "temperature",
        value_name = "X",
        allow_negative_numbers = true
    )]
    task_temperature: Option<f64>,
    /// Profiles a user: 2 only [default: 2]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    num_gens: Option<usize>,
    /// Mean or sum over pairs [default: mean]
    #[arg(long)]
    loss_reduction: Option<LossReduction>,
    /// Profiles sampled at once [default: 32]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    rollout_batch: Option<usize>,
    /// Rollouts scored at once without gradient [default: 8]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    local_rollout_forward_batch_size: Option<usize>,
}

/// Evaluation during training.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Evaluation")]
pub(super) struct EvaluationArgs {
    /// Evaluate val users while training [default: true]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    run_eval: Option<bool>,
    /// Updates from one evaluation and checkpoint to the next [default: 100; llama: 500]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    print_sample_output_freq: Option<usize>,
    /// Largest cutoff, halved until odd for the others [default: 20]
    #[arg(long, value_name = "K", allow_negative_numbers = true, value_parser = parse_count)]
    topk: Option<usize>,
    /// Users evaluated at once [default: 32]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    per_device_eval_batch_size: Option<usize>,
    /// Profiles ranked at once [default: 64]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    score_batch_size: Option<usize>,
    /// Keep the embeddings of every checkpoint in the report [default: false]
    #[arg(long, num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set, value_parser = BoolishValueParser::new(), value_name = "BOOL")]
    report_embeddings: Option<bool>,
}

/// Checkpoints. They change no result.
#[derive(Debug, Clone, Default, Args, Serialize)]
#[command(next_help_heading = "Checkpoints")]
pub(super) struct CheckpointArgs {
    /// Updates from one checkpoint to the next, beside those of evaluations [default: 0, none beside them]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    save_every: Option<usize>,
    /// Newest checkpoints that stay [default: 0, all]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    keep_last: Option<usize>,
    /// Best evaluated checkpoints that stay beside the newest [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_parser = parse_count)]
    keep_best: Option<usize>,
}

/// What holds for one call of `langptune train` beside the configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RunControl {
    /// Whether a run in the output folder may be replaced.
    pub overwrite: bool,
    /// Whether the run in the output folder is gone on with.
    pub resume: bool,
    /// Updates after which the call ends, with a checkpoint.
    pub stop_after: Option<usize>,
    /// Seconds that processes wait for one of them; `None` for the default.
    pub watchdog_secs: Option<usize>,
    /// How processes share what they keep.
    pub sharing: Sharing,
    /// Whether the configuration is only printed.
    pub print_config: bool,
}

impl TrainArgs {
    /// The flags that were given, by field (`task_response_length`).
    pub(super) fn given(&self) -> Result<toml::Table, toml::ser::Error> {
        let mut given = toml::Table::try_from(&self.run)?;
        given.extend(toml::Table::try_from(&self.control)?);
        given.extend(toml::Table::try_from(&self.schedule)?);
        given.extend(toml::Table::try_from(&self.lm)?);
        given.extend(toml::Table::try_from(&self.embedder)?);
        given.extend(toml::Table::try_from(&self.optimizer)?);
        given.extend(toml::Table::try_from(&self.rl)?);
        given.extend(toml::Table::try_from(&self.evaluation)?);
        given.extend(toml::Table::try_from(&self.checkpoint)?);
        Ok(given)
    }
}

fn parse_count(text: &str) -> Result<usize, String> {
    text.parse()
        .map_err(|_| "expected a whole number, 0 or more".to_owned())
}

fn parse_betas(text: &str) -> Result<[f64; 2], String> {
    let numbers: Result<Vec<f64>, _> = text.split(',').map(|number| number.trim().parse()).collect();
    let numbers = numbers.map_err(|error| format!("expected two numbers, e.g. 0.9,0.999: {error}"))?;
    numbers
        .try_into()
        .map_err(|found: Vec<f64>| format!("expected two numbers, e.g. 0.9,0.999, found {}", found.len()))
}

/// Resolves the configuration and trains.
pub(super) fn run(arguments: &TrainArgs) -> anyhow::Result<()> {
    let (mut config, control) = train_sources::resolve(arguments, std::env::vars())?;
    if control.print_config {
        return super::print(&config.to_toml()?);
    }
    config.make_paths_absolute()?;
    execute(&config, &control)
}

fn execute(config: &TrainConfig, control: &RunControl) -> anyhow::Result<()> {
    let output = &config.run.output;
    let mut comm = join(config, control)?;
    let root = comm.rank() == 0;
    // Rank 0 looks after the folder: the others would see what it has begun to write.
    let start = if root {
        begin(config, control)
    } else {
        Ok(Start::Afresh)
    };
    let start = start.inspect_err(|error| comm.abort(&format!("{error:#}")))?;
    let stop_after = control.stop_after.map(|updates| updates as u64);
    interrupt::install();
    let outcome = Trainer::join(config.clone(), start, stop_after, comm, control.sharing)?.run()?;
    if !root {
        return Ok(());
    }
    let place = outcome.checkpoint.as_ref().unwrap_or(output).display();
    match outcome.end {
        End::Finished => eprintln!("trained; the last checkpoint is {place}"),
        End::Stopped => eprintln!(
            "stopped as asked, with checkpoint {place}; go on with {}",
            resume_command(output)
        ),
        End::Interrupted => anyhow::bail!(
            "interrupted, with checkpoint {place}; go on with {}",
            resume_command(output)
        ),
    }
    Ok(())
}

/// What rank 0 begins with.
fn begin(config: &TrainConfig, control: &RunControl) -> anyhow::Result<Start> {
    let output = &config.run.output;
    if control.resume && output.join(TrainConfig::FILE_NAME).is_file() {
        same_run(config, &output.join(TrainConfig::FILE_NAME))?;
        return Ok(Start::Resume);
    }
    make_room(output, control.overwrite)?;
    Ok(Start::Afresh)
}

/// Joins the other processes of the run, if the environment says that there are some.
fn join(config: &TrainConfig, control: &RunControl) -> anyhow::Result<Box<dyn Communicator>> {
    let variable = |name: &str| std::env::var(name).ok();
    dist::end_with_launcher(variable);
    let Some(place) = dist::place(&variable)? else {
        return Ok(Box::new(Solo));
    };
    let watchdog = Duration::from_secs(control.watchdog_secs.unwrap_or(WATCHDOG_SECS) as u64);
    let identity = train::identity(config, control.sharing)?;
    let Some(tcp) = dist::join(variable, &identity, watchdog, end_unnoticed)? else {
        return Ok(Box::new(Solo));
    };
    if tcp.rank() == 0 {
        eprintln!("{} processes have joined, by {}", tcp.world(), place.launcher);
    } else {
        progress::silence();
    }
    Ok(train::join_devices(tcp, config.run.device, control.sharing)?)
}

/// Ends a process whose training computes on though the run has failed.
fn end_unnoticed(error: &DistError) {
    eprintln!("error: {error}");
    std::process::exit(1);
}

fn resume_command(output: &Path) -> String {
    format!("langptune train --resume --output {}", output.display())
}

/// Refuses to replace a run unasked; says what goes where it was asked.
fn make_room(output: &Path, overwrite: bool) -> anyhow::Result<()> {
    let mut names = Vec::new();
    if output.is_dir() {
        for entry in std::fs::read_dir(output)? {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
    }
    names.retain(|name| name != RunLock::FILE);
    names.sort();
    if names.is_empty() {
        return Ok(());
    }
    if !overwrite {
        anyhow::bail!(
            "{}: there is a run already; --resume to go on with it, --overwrite to replace it, or give another --output",
            output.display()
        );
    }
    let (ours, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| train::OUTPUTS.contains(&name.as_str()));
    let list = |names: &[&String]| names.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
    if !ours.is_empty() {
        eprintln!("{}: replacing {}", output.display(), list(&ours));
    }
    if !others.is_empty() {
        eprintln!("{}: leaving {}", output.display(), list(&others));
    }
    Ok(())
}

/// Refuses settings that would make another run of the one that is gone on with.
fn same_run(config: &TrainConfig, saved: &Path) -> anyhow::Result<()> {
    let differing = config.differing_keys(&TrainConfig::load(saved)?)?;
    if differing.is_empty() {
        return Ok(());
    }
    let flags: Vec<String> = differing.iter().map(|key| flag_name(key)).collect();
    anyhow::bail!(
        "{}: the run was started with another {}; drop the flag, or start another run with --output",
        saved.display(),
        flags.join(", ")
    );
}
