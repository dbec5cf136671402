//! `langptune evaluate`: the tables of generated profiles and baselines.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use eval_core::Cutoff;

use super::UsageError;
use crate::config::{Device, Pooling, Profiles, TrainConfig};
use crate::data::{DatasetSource, UnfinishedFolder};
use crate::evaluation::{
    self, Baseline, CheckpointChoice, EVALUATION_FILE, EvaluationPlan, Sampling, Versions, checkpoint_folder,
};
use crate::hub::resolve_model;
use crate::train::Split;

const EXAMPLES: &str = "\
Examples:
  langptune evaluate --run runs/gemma --checkpoint best --samples 4 --output evaluation
  langptune evaluate --dataset dataset --lm models/SmolLM2-135M-Instruct \\
      --embedder models/all-MiniLM-L6-v2 --cutoffs 5,10,20
  langptune evaluate --dataset dataset --baselines popular,ease --json

With tuned models (a run's, or --lm-tuned and --embedder-tuned) every language model is paired with
every embedder. A row `generated/base/tuned` is the language model as loaded, ranked by the tuned
embedder. Profiles of all language models are drawn alike, so that rows can be tested in pairs.";

/// Compare generated profiles and baselines, with intervals and paired tests
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct EvaluateArgs {
    /// Folder of a training run: dataset, models and settings are taken from its config.toml
    #[arg(long, value_name = "RUN", conflicts_with_all = ["dataset", "lm", "lm_tuned", "embedder", "embedder_tuned"])]
    run: Option<PathBuf>,
    /// The run's checkpoint: last, best, or a name such as update-000100
    #[arg(long, value_name = "NAME", requires = "run", default_value = "last")]
    checkpoint: CheckpointChoice,
    /// Folder that `langptune prepare` wrote, or folder or hub id (owner/name[@revision]) of a published set
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "run",
        alias = "task.query-dataset"
    )]
    dataset: Option<PathBuf>,
    /// Folder or hub id of a published set's items [default: where the dataset is]
    #[arg(long, value_name = "DIR", requires = "dataset", alias = "task.item-dataset")]
    item_dataset: Option<PathBuf>,
    /// Whose users: val, or test, which is sealed until the end
    #[arg(long, value_enum, default_value_t = SplitChoice::Val)]
    split: SplitChoice,
    /// Language model that writes profiles: a Hugging Face folder or hub id
    #[arg(long, value_name = "DIR", requires = "embedder", alias = "lm-model")]
    lm: Option<String>,
    /// The same language model, trained: a model or adapter folder, such as a checkpoint's `lm`
    #[arg(long, value_name = "DIR", requires = "lm")]
    lm_tuned: Option<String>,
    /// Embedder that ranks: a Hugging Face folder or hub id
    #[arg(long, value_name = "DIR", alias = "emb-model")]
    embedder: Option<String>,
    /// The same embedder, trained, such as a checkpoint's `embedder`
    #[arg(long, value_name = "DIR", requires = "embedder")]
    embedder_tuned: Option<String>,
    /// Profiles a user; a user's value is the mean over them [default: 1]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    samples: Option<u32>,
    /// What is ranked beside generated profiles [default: all]
    #[arg(long, value_enum, value_delimiter = ',')]
    baselines: Option<Vec<Baseline>>,
    /// How many places of a ranking count [default: the run's, or 5,10,20]
    #[arg(long, value_name = "K", value_delimiter = ',')]
    cutoffs: Option<Vec<Cutoff>>,
    /// Seed of profiles, of the random baseline, of intervals and tests [default: the run's, or 555134]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Most new tokens of a profile [default: the run's, or 512]
    #[arg(long, value_name = "N")]
    response_length: Option<usize>,
    /// Divisor of the logits [default: the run's, or 1]
    #[arg(long, value_name = "X")]
    temperature: Option<f64>,
    /// Further tokens that end a profile [default: the run's, or none]
    #[arg(long, value_name = "TOKEN", value_delimiter = ',')]
    eos: Option<Vec<String>>,
    /// Text before a profile when it is embedded [default: the run's, or none]
    #[arg(long, value_name = "TEXT")]
    query_prefix: Option<String>,
    /// How token vectors become one [default: the run's, or as the embedder's folder says]
    #[arg(long, value_enum)]
    pooling: Option<Pooling>,
    /// Profiles decoded at once; changes no result [default: the run's, or 32]
    #[arg(long, value_name = "N")]
    rollout_batch: Option<usize>,
    /// Where models compute [default: the run's, or cpu]
    #[arg(long, value_enum)]
    device: Option<Device>,
    /// Folder for evaluation.json, TREC files and the profiles; it must not exist, or be empty
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Replace an earlier evaluation in --output
    #[arg(long, requires = "output")]
    overwrite: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The splits that can be evaluated on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum SplitChoice {
    /// Users that training is watched on
    Val,
    /// Users kept for the end
    Test,
}

/// Evaluates, writes the files and prints the tables.
pub(super) fn run(arguments: &EvaluateArgs) -> anyhow::Result<()> {
    let plan = plan(arguments)?;
    if plan.split == Split::Test {
        eprintln!("note: the test split is sealed: look at it once, at the end, and choose nothing by it");
    }
    // Begun before the work, so that a folder that cannot be written is found out at once.
    let begin = |output: &PathBuf| UnfinishedFolder::begin(output, arguments.overwrite, EVALUATION_FILE);
    let output = arguments.output.as_ref().map(begin).transpose()?;
    let measured = evaluation::measure(&plan)?;
    let result = evaluation::compare(&plan, &measured)?;
    if let Some(output) = output {
        evaluation::write_files(output.path(), &plan, &measured, &result)?;
        output.publish()?;
    }
    let text = match arguments.json {
        true => serde_json::to_string_pretty(&result)? + "\n",
        false => evaluation::tables(&result, &plan.cutoffs),
    };
    super::print(&text)
}

/// Flags, then the run's settings, then defaults.
fn plan(arguments: &EvaluateArgs) -> anyhow::Result<EvaluationPlan> {
    let mut plan = match (&arguments.run, &arguments.dataset) {
        (Some(run), _) => of_run(run, &arguments.checkpoint)?,
        (None, Some(dataset)) => of_flags(dataset, arguments)?,
        (None, None) => return Err(UsageError::new("give --run, or --dataset with models or baselines").into()),
    };
    plan.split = match arguments.split {
        SplitChoice::Val => Split::Val,
        SplitChoice::Test => Split::Test,
    };
    replace(&mut plan.baselines, &arguments.baselines);
    replace(&mut plan.cutoffs, &arguments.cutoffs);
    replace(&mut plan.device, &arguments.device);
    replace(&mut plan.sampling.samples, &arguments.samples);
    replace(&mut plan.sampling.seed, &arguments.seed);
    replace(&mut plan.sampling.response_length, &arguments.response_length);
    replace(&mut plan.sampling.temperature, &arguments.temperature);
    replace(&mut plan.sampling.extra_eos, &arguments.eos);
    replace(&mut plan.sampling.query_prefix, &arguments.query_prefix);
    replace(&mut plan.sampling.slots, &arguments.rollout_batch);
    plan.pooling = arguments.pooling.or(plan.pooling);
    check(&plan)?;
    Ok(plan)
}

fn replace<T: Clone>(value: &mut T, given: &Option<T>) {
    if let Some(given) = given {
        *value = given.clone();
    }
}

/// Values that no evaluation can be made with.
fn check(plan: &EvaluationPlan) -> Result<(), UsageError> {
    let sampling = &plan.sampling;
    let positive = [
        ("response-length", sampling.response_length),
        ("rollout-batch", sampling.slots),
    ];
    if let Some((flag, _)) = positive.iter().find(|(_, value)| *value == 0) {
        return Err(UsageError::new(format!("--{flag}: expected 1 or more, found 0")));
    }
    if !(sampling.temperature.is_finite() && sampling.temperature > 0.0) {
        let message = format!(
            "--temperature: expected a number above 0, found {}",
            sampling.temperature
        );
        return Err(UsageError::new(message));
    }
    Ok(())
}

fn of_flags(dataset: &Path, arguments: &EvaluateArgs) -> anyhow::Result<EvaluationPlan> {
    let versions = |base: &Option<String>, tuned: &Option<String>| -> anyhow::Result<Option<Versions>> {
        let Some(base) = base else { return Ok(None) };
        let tuned = tuned.as_ref().map(|tuned| resolve_model(tuned, None)).transpose()?;
        Ok(Some(Versions {
            base: resolve_model(base, None)?,
            tuned,
        }))
    };
    Ok(EvaluationPlan {
        dataset: dataset.to_owned(),
        item_dataset: arguments.item_dataset.clone(),
        template: None,
        split: Split::Val,
        lm: versions(&arguments.lm, &arguments.lm_tuned)?,
        embedder: versions(&arguments.embedder, &arguments.embedder_tuned)?,
        pooling: None,
        baselines: Baseline::ALL.to_vec(),
        cutoffs: [5, 10, 20].into_iter().map(Cutoff::new).collect::<Result<_, _>>()?,
        sampling: Sampling::default(),
        device: Device::Cpu,
    })
}

fn of_run(run: &Path, checkpoint: &CheckpointChoice) -> anyhow::Result<EvaluationPlan> {
    let config = TrainConfig::load(&run.join(TrainConfig::FILE_NAME))?;
    let checkpoint = checkpoint_folder(run, checkpoint)?;
    let template = DatasetSource::of_config(&config).template;
    let (lm, embedder) = (&config.lm, &config.embedder);
    let lm = match config.run.profiles {
        Profiles::None => None,
        Profiles::Generated => Some(Versions {
            base: resolve_model(&lm.model, lm.revision.as_deref())?,
            tuned: Some(checkpoint.join("lm")),
        }),
    };
    let embedder = Versions {
        base: resolve_model(&embedder.model, embedder.revision.as_deref())?,
        tuned: Some(checkpoint.join("embedder")),
    };
    let cutoffs = evaluation::cutoffs(&config.evaluation.cutoffs())?;
    Ok(EvaluationPlan {
        split: Split::Val,
        lm,
        embedder: Some(embedder),
        pooling: config.embedder.pooling,
        baselines: Baseline::ALL.to_vec(),
        cutoffs,
        sampling: Sampling {
            samples: 1,
            seed: config.run.seed,
            temperature: config.rl.temperature,
            response_length: config.rl.response_length,
            extra_eos: config.lm.extra_eos,
            slots: config.rl.rollout_batch,
            query_prefix: config.embedder.query_prefix,
        },
        device: config.run.device,
        template,
        item_dataset: config.run.item_dataset,
        dataset: config.run.dataset,
    })
}
