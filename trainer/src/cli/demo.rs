//! `langptune demo`.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use clap::Args;

use super::UsageError;
use crate::TrainError;
use crate::config::{Device, Precision};
use crate::demo::{Demo, Example, Pretraining, Scale, Summary, WorldSize};
use crate::interrupt;
use crate::site::{Site, SiteError, find_reports};

const EXAMPLES: &str = "\
Examples:
  langptune demo --out demo
  langptune demo --out demo-2 --seed 2 --no-serve
  langptune demo --pretrain --out assets/demo-models

Films and people are made up from the seed; docs/demo.md explains how.";

/// See it all work: a made-up world, tiny models, prepare, train and evaluate
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct DemoArgs {
    /// Folder for everything; it must not exist, or be empty, but for --resume
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Makes the world, and all draws of training
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// End when the results are there; on a terminal, a langptune with the viewer inside shows the run in the browser
    #[arg(long)]
    no_serve: bool,
    /// Where models compute; --device cuda needs a langptune with the feature `engine`, --device wgpu one with `wgpu`
    #[arg(long, default_value_t = Device::Cpu, conflicts_with = "pretrain")]
    device: Device,
    /// What an NVIDIA GPU computes in; all else computes in f32 [default: bf16]
    #[arg(long, value_enum, conflicts_with = "pretrain")]
    precision: Option<Precision>,
    /// Go on with the demo in --out, from its last checkpoint
    #[arg(long, conflicts_with = "pretrain")]
    resume: bool,
    /// Folder with `lm` and `embedder` to be used in place of the models in this program
    #[arg(long, value_name = "DIR", conflicts_with = "pretrain")]
    models: Option<PathBuf>,
    /// Pretrain the models on other worlds instead, and write them to --out
    #[arg(long)]
    pretrain: bool,
    /// Worlds to pretrain on
    #[arg(long, value_name = "N", default_value_t = 16, requires = "pretrain")]
    pretrain_worlds: usize,
    /// Optimizer steps of the language model
    #[arg(long, value_name = "N", default_value_t = 700, requires = "pretrain")]
    pretrain_lm_steps: usize,
    /// Optimizer steps of the embedder
    #[arg(long, value_name = "N", default_value_t = 520, requires = "pretrain")]
    pretrain_embedder_steps: usize,
    /// Threads that share every batch of pretraining [default: the machine's]
    #[arg(long, value_name = "N", requires = "pretrain")]
    pretrain_threads: Option<usize>,
    /// Print the summary as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the demo, or the pretraining of its models.
pub(super) fn run(arguments: &DemoArgs) -> anyhow::Result<()> {
    if arguments.pretrain {
        return pretrain(arguments);
    }
    let demo = Demo {
        output: arguments.out.clone(),
        seed: arguments.seed,
        models: arguments.models.clone(),
        resume: arguments.resume,
        scale: Scale::Whole,
        device: arguments.device,
        precision: arguments
            .device
            .precision(arguments.precision)
            .map_err(UsageError::new)?,
    };
    interrupt::install();
    let summary = match demo.run() {
        Err(TrainError::Interrupted) => anyhow::bail!(
            "interrupted; go on with langptune demo --out {} --seed {} --resume",
            demo.output.display(),
            demo.seed
        ),
        ended => ended?,
    };
    eprintln!(
        "the run is {}, its report {}, the summary {}",
        arguments.out.join("run").display(),
        arguments.out.join("run").join("report").display(),
        arguments.out.join("summary.json").display()
    );
    if arguments.json {
        return super::print(&(serde_json::to_string_pretty(&summary)? + "\n"));
    }
    super::print(&table(&summary))?;
    if arguments.no_serve || !std::io::stdout().is_terminal() {
        return Ok(());
    }
    look(&arguments.out.join("run"))
}

/// Shows the run in the browser; nothing where this program has no viewer.
fn look(run: &Path) -> anyhow::Result<()> {
    match Site::built_in() {
        Ok(site) => {
            interrupt::end_at_once();
            super::view::show(site, find_reports(&[run.to_owned()])?, None, true)
        }
        Err(SiteError::NoViewer) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn pretrain(arguments: &DemoArgs) -> anyhow::Result<()> {
    let threads = match arguments.pretrain_threads {
        Some(0) => return Err(UsageError::new("--pretrain-threads: expected 1 or more, found 0").into()),
        Some(threads) => threads,
        None => std::thread::available_parallelism()?.get(),
    };
    let plan = Pretraining {
        output: arguments.out.clone(),
        worlds: arguments.pretrain_worlds,
        size: WorldSize::default(),
        lm_steps: arguments.pretrain_lm_steps,
        embedder_steps: arguments.pretrain_embedder_steps,
        threads,
    };
    plan.run()?;
    eprintln!("pretrained; the models are in {}", arguments.out.display());
    Ok(())
}

/// The summary for people: some profiles, then the table.
fn table(summary: &Summary) -> String {
    let mut text = String::from(
        "What the first people of the test split were told, and the place of the film that they saw next:\n\n",
    );
    for Example {
        history,
        target,
        before,
        after,
        ..
    } in &summary.examples
    {
        text.push_str(&format!("  {} → {target}\n", history.join(", ")));
        for (when, told) in [("untrained", before), ("trained", after)] {
            text.push_str(&format!("    {when:<10} {:>4}  {}\n", told.rank, told.profile));
        }
        text.push('\n');
    }
    let means = &summary.ndcg;
    let rows = [
        ("random", means.random),
        ("popular", means.popular),
        ("the last film's text as the profile", means.reference_profile),
        ("both models untrained", means.untrained),
        ("embedder trained (zero-shot profile)", means.zero_shot),
        ("language model trained", means.tuned_lm_only),
        ("both trained", means.trained),
    ];
    text.push_str(&format!(
        "NDCG@10 of {} users of a made-up world, {} profiles each\n",
        summary.users, summary.profiles_per_user
    ));
    let largest = rows.iter().map(|(_, value)| *value).fold(f64::MIN_POSITIVE, f64::max);
    for (name, value) in rows {
        let bar = "█".repeat((value / largest * BAR).round() as usize);
        text.push_str(&format!("  {name:<38}{value:.4}  {bar}\n"));
    }
    text.push_str(&format!(
        "both trained against zero-shot: p = {:.1e}, against untrained: p = {:.1e}; {:.0} s\n",
        summary.p_value_trained_vs_zero_shot, summary.p_value_trained_vs_untrained, summary.seconds
    ));
    text
}

/// Characters of the longest bar.
const BAR: f64 = 40.0;
