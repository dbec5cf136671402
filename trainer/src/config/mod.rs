//! The one configuration value of a training run.
//!
//! Three layers make it: flags are *declared* in [`crate::cli::train`], *resolved* here (preset, then TOML file, then
//! environment, then command line; a later one wins), and *executed* by training, which sees nothing but a
//! [`TrainConfig`]. The resolved value is saved into the run as `config.toml`; `langptune train --config` of that file
//! repeats the run.

mod error;
mod keys;
mod layer;
mod resolve;
mod validate;
mod values;

use std::path::{Path, PathBuf};

use crate::hub::dataset_id;

use serde::{Deserialize, Serialize};

pub use error::ConfigError;
pub use keys::{FlagKey, KEYS, flag_name, key_of_flag, variable_name};
pub use layer::{Layer, Source};
pub use resolve::resolve;
pub(crate) use validate::FEWEST_WHITENED;
pub use values::{
    Collectives, Device, LoraConfig, LossReduction, MicroBatch, OptimizerAlgorithm, Pooling, Precision, Preset,
    Profiles, PromptTemplate, Recompute, RewardType, Trainable, TrainableKind,
};

/// Everything that decides what a training run does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// The published setting that the defaults came from; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preset: Option<Preset>,
    /// What the run reads, where it writes, where it computes.
    pub run: RunConfig,
    /// How long each phase trains, and how often.
    pub schedule: ScheduleConfig,
    /// The reinforcement phase: sampling, reward and loss.
    pub rl: RlConfig,
    /// When and how the run is evaluated.
    pub evaluation: EvaluationConfig,
    /// What is saved beside evaluations, and how long it stays.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// The language model, which writes profiles.
    pub lm: LmConfig,
    /// The embedder, which ranks items by a profile.
    pub embedder: EmbedderConfig,
}

/// What the run reads, where it writes, where it computes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunConfig {
    /// Folder made by `langptune prepare`, or folder or hub id of a published set; required.
    pub dataset: PathBuf,
    /// Folder or hub id of a published set's items; default where `dataset` is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_dataset: Option<PathBuf>,
    /// Folder of the run; default `runs/<exp_name>`.
    pub output: PathBuf,
    /// Name of the run in logs; default the preset's name, or `langptune`.
    pub exp_name: String,
    /// Seed of all draws; device `r` uses `seed + 100003·r`; default 555134.
    pub seed: u64,
    /// Where models compute; default `cpu`.
    pub device: Device,
    /// What the language model computes in on a GPU of NVIDIA's; default `bf16`, with the device `wgpu` `f32`, which is all there is
    /// there. Sums and the optimizer are f32 either way, and so is everything on the processor; trained parameters are what
    /// `master_weights` says.
    pub precision: Precision,
    /// What the embedder reads about a user; default `generated`. With `none` the language model is not used.
    pub profiles: Profiles,
    /// The published flag for Weights & Biases; default false. TensorBoard events are written either way.
    pub track: bool,
    /// File that gets one JSON line for each update of the language model; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<PathBuf>,
}

/// How long each phase trains, and how often.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScheduleConfig {
    /// Rounds of an embedder phase followed by a language model phase; default 5.
    pub num_iterations: usize,
    /// Batches an embedder phase reads (not optimizer steps, see `embedder.gradient_accumulation_steps`); default 800.
    pub num_emb_updates: usize,
    /// Updates in a language model phase, each of fresh rollouts and `rl.noptepochs` optimizer steps; default 200.
    pub num_lm_updates: usize,
}

/// The reinforcement phase: sampling, reward and loss.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RlConfig {
    /// Scale η of the reward difference in the loss; default 1.
    pub eta: f64,
    /// Weight of log π_old − log π_ref in the reward; default 0.2.
    pub kl_coef: f64,
    /// Whether rewards are shifted and scaled to mean 0 and variance 1 over the device's values; default true.
    pub whiten_rewards: bool,
    /// Whether rewards are whitened over the values of all devices instead of each over its own; default false.
    pub global_whitening: bool,
    /// Passes over the rollouts of an update, one optimizer step each; default 4.
    pub noptepochs: usize,
    /// The ranking metric that is the reward; default `ndcg`.
    pub reward_type: RewardType,
    /// Reward of a profile that fills the embedder's limit; default 0.
    pub penalty_reward_value: f64,
    /// Longest profile, in new tokens of the language model, and in tokens of the embedder; default 512.
    pub response_length: usize,
    /// Divisor of the logits when sampling and when scoring; default 1.
    pub temperature: f64,
    /// Profiles sampled for a user; the loss compares a pair, so 2.
    pub num_gens: usize,
    /// Whether the loss is the mean or the sum over pairs; default `mean`.
    pub loss_reduction: LossReduction,
    /// Profiles sampled at once; default 32. Costs memory, changes no result.
    pub rollout_batch: usize,
    /// Rollouts scored at once without gradient; default 8. Costs memory, changes no result.
    pub local_rollout_forward_batch_size: usize,
}

/// When and how the run is evaluated.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvaluationConfig {
    /// Whether val users are evaluated at all; default true.
    pub run_eval: bool,
    /// Updates (of both phases) from one evaluation and checkpoint to the next; default 100.
    pub print_sample_output_freq: usize,
    /// Largest cutoff; the others halve it until it is odd; default 20.
    pub topk: usize,
    /// Users evaluated at once; default 32. Costs memory, changes no result.
    pub per_device_eval_batch_size: usize,
    /// Profiles ranked against the catalogue at once; default 64. Costs memory, changes no result.
    pub score_batch_size: usize,
    /// Whether the report keeps the embeddings of every checkpoint, not only of the best and the last; default false.
    pub report_embeddings: bool,
}

/// What is saved beside evaluations, and how long it stays. Changes no result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointConfig {
    /// Updates from one checkpoint to the next, beside those of evaluations; default 0: none beside them.
    pub save_every: usize,
    /// Newest checkpoints that stay; default 0: all.
    pub keep_last: usize,
    /// Best evaluated checkpoints that stay beside the newest; default 1.
    pub keep_best: usize,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        Self {
            save_every: 0,
            keep_last: 0,
            keep_best: 1,
        }
    }
}

/// The language model, which writes profiles.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LmConfig {
    /// A Hugging Face folder or a hub id; required unless `run.profiles` is `none`, then it may be empty.
    pub model: String,
    /// Branch, tag or commit of a hub id; default `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// The prompt form that the dataset must have been prepared with; default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<PromptTemplate>,
    /// Further tokens that end a profile, beside the tokenizer's `eos_token`; default none.
    pub extra_eos: Vec<String>,
    /// Longest prompt, in tokens; default 1024.
    pub data_max_length: usize,
    /// Users in a micro-batch of a device; default 1.
    pub per_device_train_batch_size: usize,
    /// Users whose rollouts go through the model together, `"auto"` or a number in quotes; default `"auto"`. Changes the speed, and the
    /// last bits of sums.
    pub micro_batch: MicroBatch,
    /// Whether blocks run again on the way back instead of keeping what they computed, on an NVIDIA GPU: `auto` where a user's rollouts
    /// do not fit otherwise, `never` or `always`; default `auto`. Costs time, changes no result.
    pub recompute: Recompute,
    /// Micro-batches in an optimizer step; default 16. An update reads this many times the batch of users.
    pub gradient_accumulation_steps: usize,
    /// Folder that also gets the final model or adapter, beside the run's own checkpoints; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_dir: Option<PathBuf>,
    /// Optimizer of the trained parameters.
    pub optimizer: OptimizerConfig,
    /// What is trained; default LoRA.
    pub trainable: Trainable,
}

/// The embedder, which ranks items by a profile. All its weights train.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EmbedderConfig {
    /// A Hugging Face folder or a hub id; required.
    pub model: String,
    /// Branch, tag or commit of a hub id; default `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// How token vectors become one; default: as the model folder says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pooling: Option<Pooling>,
    /// Text put before every profile (not before items); default empty.
    pub query_prefix: String,
    /// Divisor τ of the cosines in the contrastive loss; default 0.1.
    pub loss_temp: f64,
    /// Whether a profile is contrasted with the items of all devices' batches instead of its own device's; default false.
    pub global_negatives: bool,
    /// Users in a batch of a device, hence the number of items a profile is contrasted with; default 32.
    pub per_device_train_batch_size: usize,
    /// Batches in an optimizer step; default `lm.gradient_accumulation_steps`, as under DeepSpeed.
    pub gradient_accumulation_steps: usize,
    /// Texts embedded at once without gradient; default 32. Costs memory, changes no result.
    pub batch_size: usize,
    /// Folder that also gets the final embedder, beside the run's own checkpoints; default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_dir: Option<PathBuf>,
    /// Optimizer of all weights.
    pub optimizer: OptimizerConfig,
}

/// An optimizer with a constant rate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptimizerConfig {
    /// Default `adamw`.
    pub algorithm: OptimizerAlgorithm,
    /// Learning rate; default 1e-7.
    pub lr: f64,
    /// Decay of the first and the second moment; default 0.9 and 0.999.
    pub betas: [f64; 2],
    /// Denominator's guard ε; default 1e-6.
    pub eps: f64,
    /// Share of a weight that a step at rate 1 takes away (decoupled in `adamw`); default 0.01.
    pub weight_decay: f64,
    /// What trained parameters are kept in between steps; default `f32`. With `bf16` a step's results are rounded at random
    /// (stochastically) to bf16 numbers, and on an NVIDIA GPU take no memory beside the weights that the model computes with.
    pub master_weights: Precision,
}

impl TrainConfig {
    /// The name of the saved configuration in a run.
    pub const FILE_NAME: &str = "config.toml";

    /// Users whose rollouts make one update of the language model on one device (`n` of the method).
    pub fn users_per_update(&self) -> usize {
        self.lm.per_device_train_batch_size * self.lm.gradient_accumulation_steps
    }

    /// Updates of the whole run, both phases, all iterations.
    pub fn total_updates(&self) -> usize {
        self.schedule.num_iterations * (self.schedule.num_emb_updates + self.schedule.num_lm_updates)
    }

    /// The configuration as TOML text, every value spelled out.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        toml::to_string(self).map_err(|source| ConfigError::Write {
            reason: source.to_string(),
        })
    }

    /// Writes the configuration to `folder/config.toml`, under a temporary name first.
    pub fn save(&self, folder: &Path) -> Result<(), ConfigError> {
        let path = folder.join(Self::FILE_NAME);
        let text = self.to_toml()?;
        models::replace_file(&path, |out| out.write_all(text.as_bytes())).map_err(|error| ConfigError::Write {
            reason: format!("{}: {error}", path.display()),
        })
    }

    /// Reads a saved configuration back, with the checks of a resolved one.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        resolve(&[Layer::from_file(path)?])
    }

    /// Reads a configuration (whole or partial: defaults fill it) from TOML text.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        resolve(&[Layer::from_toml(text, Path::new("<text>"))?])
    }

    /// The keys in which this configuration is another run than `other`: those that change no result, and the schedule's
    /// number of iterations, by which a run can be prolonged, are left out.
    ///
    /// # Errors
    /// When a configuration has no TOML form.
    pub fn differing_keys(&self, other: &Self) -> Result<Vec<&'static str>, ConfigError> {
        const FREE: [&str; 12] = [
            "run.output",
            "run.device",
            "run.trace",
            "run.track",
            "schedule.num_iterations",
            "rl.rollout_batch",
            "rl.local_rollout_forward_batch_size",
            "evaluation.per_device_eval_batch_size",
            "evaluation.score_batch_size",
            "evaluation.report_embeddings",
            "embedder.batch_size",
            "preset",
        ];
        let table = |config: &Self| {
            toml::Table::try_from(config).map_err(|source| ConfigError::Write {
                reason: source.to_string(),
            })
        };
        let (ours, theirs) = (table(self)?, table(other)?);
        let keys = KEYS.iter().flat_map(|entry| entry.keys).copied();
        Ok(keys
            .filter(|key| !FREE.contains(key) && !key.starts_with("checkpoint."))
            .filter(|key| layer::get(&ours, key) != layer::get(&theirs, key))
            .collect())
    }

    /// Makes paths that lead to existing folders absolute, so that the saved file works from any folder.
    pub fn make_paths_absolute(&mut self) -> std::io::Result<()> {
        let optional = [
            &mut self.run.trace,
            &mut self.lm.output_dir,
            &mut self.embedder.output_dir,
        ];
        let given = optional.into_iter().flatten();
        for path in given.chain([&mut self.run.output]) {
            *path = std::path::absolute(&*path)?;
        }
        for place in [&mut self.run.dataset].into_iter().chain(&mut self.run.item_dataset) {
            let on_hub = !place.is_dir() && place.to_str().and_then(dataset_id).is_some();
            if !on_hub {
                *place = std::path::absolute(&*place)?;
            }
        }
        for model in [&mut self.lm.model, &mut self.embedder.model] {
            if Path::new(&*model).is_dir() {
                *model = std::path::absolute(&*model)?.to_string_lossy().into_owned();
            }
        }
        Ok(())
    }
}

impl EvaluationConfig {
    /// The cutoffs of every table, largest first: `topk`, halved until it is odd (20, 10, 5).
    pub fn cutoffs(&self) -> Vec<usize> {
        let mut cutoffs = vec![self.topk];
        let mut cutoff = self.topk;
        while cutoff > 0 && cutoff.is_multiple_of(2) {
            cutoff /= 2;
            cutoffs.push(cutoff);
        }
        cutoffs
    }
}

#[cfg(test)]
mod tests;
