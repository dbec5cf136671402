//! From rankings to what is reported: means with intervals, ties, and paired tests between rows.

use eval_core::metrics::{MetricTable, Summary};
use eval_core::report::Comparison;
use eval_core::scores::TieSummary;
use eval_core::significance::{Bootstrap, paired_randomisation};
use serde::Serialize;

use super::measure::{Measured, Row, RowName, Skipped, Written};
use super::plan::{Baseline, EvaluationPlan, Sampling, Version, Versions, split_name};
use crate::TrainError;
use crate::train::Split;

/// Sign patterns drawn by a paired test of more users than can be enumerated.
const PERMUTATIONS: usize = 10_000;

/// What `evaluation.json` and `--json` hold; `docs/evaluation.md` describes it.
#[derive(Debug, Clone, Serialize)]
pub struct Evaluation {
    /// Always [`Evaluation::FORMAT`].
    pub format: &'static str,
    /// Always [`Evaluation::VERSION`].
    pub version: u32,
    /// The dataset's folder.
    pub dataset: String,
    /// `val` or `test`.
    pub split: &'static str,
    /// Whether the split is the one that is kept for the end.
    pub sealed: bool,
    /// Users of the split.
    pub users: usize,
    /// Users whose history ends at the very time of their target, so that file order decided between them.
    pub users_with_tied_target_time: usize,
    /// Items of the catalogue.
    pub items: usize,
    /// The language models' folders.
    pub lm: Option<Versions>,
    /// The embedders' folders.
    pub embedder: Option<Versions>,
    /// How profiles were written.
    pub sampling: Sampling,
    /// What each language model wrote.
    pub written: Vec<WrittenSummary>,
    /// The tables.
    pub rows: Vec<RowSummary>,
    /// Baselines that were left out.
    pub skipped: Vec<Skipped>,
}

impl Evaluation {
    /// The name of the format.
    pub const FORMAT: &'static str = "langptune-evaluation";
    /// The version of the format.
    pub const VERSION: u32 = 1;

    /// A row by its name.
    pub fn row(&self, name: &RowName) -> Option<&RowSummary> {
        self.rows.iter().find(|row| row.parts == *name)
    }
}

/// What one language model wrote, in numbers.
#[derive(Debug, Clone, Serialize)]
pub struct WrittenSummary {
    /// Which one.
    pub lm: Version,
    /// Profiles.
    pub profiles: usize,
    /// Mean length, in tokens of the language model.
    pub mean_tokens: f64,
    /// Share that ended by itself rather than at the limit.
    pub ended_share: f64,
}

/// A row of the tables.
#[derive(Debug, Clone, Serialize)]
pub struct RowSummary {
    /// For example `generated/base/tuned`.
    pub name: String,
    /// The name in parts.
    #[serde(flatten)]
    pub parts: RowName,
    /// Profiles a user; a user's value is the mean over them.
    pub profiles_per_user: usize,
    /// Means over users, with 95 % intervals.
    #[serde(flatten)]
    pub summary: Summary,
    /// How much ties matter.
    pub ties: TieSummary,
    /// Paired tests, metric by metric, of this row against others; the difference is this row's mean less the other's.
    pub comparisons: Vec<Comparison>,
}

/// Sums up what was measured.
///
/// # Errors
/// When rows do not hold the same users, which would be a fault of this program.
pub fn compare(plan: &EvaluationPlan, measured: &Measured) -> Result<Evaluation, TrainError> {
    let users = plan.split.users(&measured.dataset);
    let rows = measured
        .rows
        .iter()
        .map(|row| summarise(row, &measured.rows, plan.sampling.seed));
    Ok(Evaluation {
        format: Evaluation::FORMAT,
        version: Evaluation::VERSION,
        dataset: plan.dataset.display().to_string(),
        split: split_name(plan.split),
        sealed: plan.split == Split::Test,
        users: users.len(),
        users_with_tied_target_time: users.iter().filter(|user| user.tied_target_time).count(),
        items: measured.dataset.items.len(),
        lm: plan.lm.clone(),
        embedder: plan.embedder.clone(),
        sampling: plan.sampling.clone(),
        written: measured.written.iter().map(written_summary).collect(),
        rows: rows.collect::<Result<_, _>>()?,
        skipped: measured.skipped.clone(),
    })
}

fn written_summary(written: &Written) -> WrittenSummary {
    let responses = || written.profiles.iter().map(|profile| &profile.response);
    let count = written.profiles.len().max(1) as f64;
    WrittenSummary {
        lm: written.version,
        profiles: written.profiles.len(),
        mean_tokens: responses().map(|response| response.tokens.len() as f64).sum::<f64>() / count,
        ended_share: responses().filter(|response| response.ended).count() as f64 / count,
    }
}

/// The intervals of every table.
pub fn bootstrap(seed: u64) -> Bootstrap {
    Bootstrap {
        seed,
        ..Bootstrap::default()
    }
}

/// Paired tests of `ours` against `theirs`, which is called `with`, for each metric that both hold.
///
/// # Errors
/// When the tables do not hold the same number of users.
pub fn paired_tests(
    ours: &MetricTable,
    with: &str,
    theirs: &MetricTable,
    seed: u64,
) -> Result<Vec<Comparison>, TrainError> {
    let columns = |&metric: &_| Some((metric, ours.column(metric)?, theirs.column(metric)?));
    let in_both = ours.metrics().iter().filter_map(columns);
    in_both
        .map(|(metric, ours, theirs)| {
            Ok(Comparison {
                with: with.to_owned(),
                metric,
                test: paired_randomisation(ours, theirs, PERMUTATIONS, seed)?,
            })
        })
        .collect()
}

fn summarise(row: &Row, rows: &[Row], seed: u64) -> Result<RowSummary, TrainError> {
    let mut comparisons = Vec::new();
    for other in partners(&row.name) {
        let Some(other) = rows.iter().find(|row| row.name == other) else {
            continue;
        };
        comparisons.extend(paired_tests(&row.table, &other.name.to_string(), &other.table, seed)?);
    }
    Ok(RowSummary {
        name: row.name.to_string(),
        parts: row.name.clone(),
        profiles_per_user: row.ranked.samples,
        summary: row.table.summary(&bootstrap(seed)),
        ties: row.ranked.ties(),
        comparisons,
    })
}

/// What a row is compared with: zero-shot, the reference profile under the embedder as loaded, and, for a tuned language
/// model under a tuned embedder, the untuned language model under the same embedder: what the reinforcement phase alone
/// earned.
fn partners(name: &RowName) -> Vec<RowName> {
    let mut partners = vec![
        RowName::zero_shot(),
        RowName::baseline(Baseline::Reference, Some(Version::Base)),
    ];
    if *name == RowName::generated(Version::Tuned, Version::Tuned) {
        partners.push(RowName::generated(Version::Base, Version::Tuned));
    }
    partners.retain(|partner| partner != name);
    partners
}
