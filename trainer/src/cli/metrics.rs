//! `langptune metrics`: what a TREC run is worth under qrels.

use std::fmt::Write;
use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Args;
use eval_core::Cutoff;
use eval_core::metrics::{Metric, MetricSummary};
use eval_core::significance::{Bootstrap, PairedTest, paired_randomisation};
use eval_core::trec::{Qrels, Run, RunEvaluation, evaluate_run};
use serde::Serialize;
use serde_json::Value;

/// Sign patterns drawn by a paired test of more users than can be enumerated.
const PERMUTATIONS: usize = 10_000;

const EXAMPLES: &str = "\
Examples:
  langptune metrics --run ours.trec --qrels qrels.trec
  langptune metrics --run ours.trec --qrels qrels.trec --baseline popular.trec --cutoffs 10 --json

A run has lines `query Q0 document rank score tag`, qrels have `query iteration document relevance`.
Documents rank by descending score, equal scores by the order of their lines. Means are over all
queries with a relevant document; one that the run does not have counts 0.";

/// Compute ranking metrics of a TREC run, with confidence intervals
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct MetricsArgs {
    /// The run, in TREC's format
    #[arg(long, value_name = "RUN")]
    run: PathBuf,
    /// What is relevant, in TREC's format
    #[arg(long, value_name = "QRELS")]
    qrels: PathBuf,
    /// How many places of a ranking count
    #[arg(long, value_name = "K", value_delimiter = ',', default_value = "5,10,20")]
    cutoffs: Vec<Cutoff>,
    /// Another run of the same queries, to compare with in paired tests
    #[arg(long, value_name = "RUN")]
    baseline: Option<PathBuf>,
    /// Seed of the bootstrap and of the paired tests
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// A metric of the run, and how it compares.
#[derive(Debug, Serialize)]
struct Row {
    #[serde(flatten)]
    summary: MetricSummary,
    #[serde(skip_serializing_if = "Option::is_none")]
    baseline: Option<Comparison>,
}

/// The other run's mean, and the paired test of run − baseline.
#[derive(Debug, Serialize)]
struct Comparison {
    mean: f64,
    difference: f64,
    p_value: f64,
}

/// Computes and prints the metrics.
pub(super) fn run(arguments: &MetricsArgs) -> anyhow::Result<()> {
    let qrels = read(&arguments.qrels, Qrels::read)?;
    let metrics = Metric::all_at(&arguments.cutoffs);
    let evaluation = evaluate(&arguments.run, &qrels, &metrics, arguments)?;
    let baseline = arguments.baseline.as_deref();
    let baseline = baseline
        .map(|path| evaluate(path, &qrels, &metrics, arguments))
        .transpose()?;
    let rows = rows(&evaluation, baseline.as_ref(), arguments.seed)?;
    let text = match arguments.json {
        true => json(&rows)?,
        false => table(&rows, evaluation.table.users()),
    };
    super::print(&text)
}

fn evaluate(path: &Path, qrels: &Qrels, metrics: &[Metric], arguments: &MetricsArgs) -> anyhow::Result<RunEvaluation> {
    let run = read(path, Run::read)?;
    let evaluation = evaluate_run(&run, qrels, metrics).with_context(|| arguments.qrels.display().to_string())?;
    let counts = [
        (evaluation.queries_not_in_run, "queries not in the run (they count 0)"),
        (evaluation.queries_not_in_qrels, "queries not in the qrels (left out)"),
        (
            evaluation.queries_without_relevant,
            "queries with nothing relevant (left out)",
        ),
    ];
    for (count, what) in counts.into_iter().filter(|(count, _)| *count > 0) {
        eprintln!("note: {}: {what}: {count}", path.display());
    }
    Ok(evaluation)
}

fn read<T>(path: &Path, read: impl FnOnce(BufReader<File>) -> Result<T, eval_core::Error>) -> anyhow::Result<T> {
    let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    read(BufReader::new(file)).with_context(|| path.display().to_string())
}

fn rows(
    evaluation: &RunEvaluation,
    baseline: Option<&RunEvaluation>,
    seed: u64,
) -> Result<Vec<(Metric, Row)>, eval_core::Error> {
    let bootstrap = Bootstrap {
        seed,
        ..Bootstrap::default()
    };
    let summary = evaluation.table.summary(&bootstrap);
    let compared = |metric: Metric| -> Result<Option<Comparison>, eval_core::Error> {
        let columns = baseline.map(|baseline| (evaluation.table.column(metric), baseline.table.column(metric)));
        // Both tables have a row for each query of the qrels, in their order.
        let Some((Some(ours), Some(theirs))) = columns else {
            return Ok(None);
        };
        let PairedTest {
            mean_difference,
            p_value,
            ..
        } = paired_randomisation(ours, theirs, PERMUTATIONS, seed)?;
        let mean = eval_core::significance::mean(theirs);
        Ok(Some(Comparison {
            mean,
            difference: mean_difference,
            p_value,
        }))
    };
    summary
        .metrics
        .into_iter()
        .map(|(metric, summary)| {
            Ok((
                metric,
                Row {
                    summary,
                    baseline: compared(metric)?,
                },
            ))
        })
        .collect()
}

fn json(rows: &[(Metric, Row)]) -> serde_json::Result<String> {
    let mut object = serde_json::Map::new();
    for (metric, row) in rows {
        object.insert(metric.to_string(), serde_json::to_value(row)?);
    }
    Ok(format!("{}\n", serde_json::to_string_pretty(&Value::Object(object))?))
}

fn table(rows: &[(Metric, Row)], queries: usize) -> String {
    let compared = rows.iter().any(|(_, row)| row.baseline.is_some());
    let mut text = format!("{:<14} {:>8}  {:<18}", "metric", "mean", "95 % interval");
    if compared {
        text.push_str(&format!("{:>8}  {:>10}  {:>7}", "baseline", "difference", "p"));
    }
    for (metric, Row { summary, baseline }) in rows {
        let [low, high] = summary.ci95;
        let interval = format!("[{low:.4}, {high:.4}]");
        text.truncate(text.trim_end().len());
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n{:<14} {:>8.4}  {interval:<18}",
            metric.to_string(),
            summary.mean
        );
        if let Some(Comparison {
            mean,
            difference,
            p_value,
        }) = baseline
        {
            let _ = write!(text, "{mean:>8.4}  {difference:>+10.4}  {p_value:>7.4}");
        }
    }
    text.truncate(text.trim_end().len());
    text.push_str(&format!("\n{queries} queries\n"));
    text
}
