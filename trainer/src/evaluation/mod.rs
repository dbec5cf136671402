//! Evaluation: profiles to rankings to tables, over the users of one split.
//!
//! Vectors are rounded to f16 first and ranked by eval-core with sums in a fixed order: what a report records is what a
//! browser recomputes.

mod checkpoint;
mod comparison;
mod measure;
mod output;
mod plan;
mod recommender;
mod text;

use eval_core::metrics::{Measure, Metric, MetricTable};
use eval_core::retrieval::{EmbeddingStore, Found, Query, Retriever};
use eval_core::scores::TieSummary;
use eval_core::{Cutoff, TargetRanks};
use models::Encoder;

use crate::TrainError;
use crate::reward;

pub use checkpoint::{CheckpointChoice, checkpoint_folder};
pub use comparison::{Evaluation, RowSummary, WrittenSummary, bootstrap, compare, paired_tests};
pub use measure::{Measured, Row, RowName, Skipped, Written, measure};
pub use output::{EVALUATION_FILE, write_files};
pub use plan::{Baseline, EvaluationPlan, Sampling, Version, Versions, split_name};
pub use recommender::recommender;
pub use text::tables;

/// Measures of every table, in its order.
pub const MEASURES: [Measure; 4] = [Measure::Recall, Measure::Precision, Measure::Mrr, Measure::Ndcg];

/// Rankings of one kind of profile, several a user perhaps.
#[derive(Debug, Clone)]
pub struct Ranked {
    /// User by user, each with all of its profiles.
    pub found: Vec<Found>,
    /// Profiles a user.
    pub samples: usize,
}

impl Ranked {
    /// Metrics of each user: the mean over the user's profiles.
    ///
    /// # Errors
    /// When a user's targets were ranked twice.
    pub fn table(&self, metrics: Vec<Metric>) -> Result<MetricTable, TrainError> {
        let mut table = MetricTable::new(metrics);
        for found in self.found.chunks(self.samples.max(1)) {
            let ranks: Vec<TargetRanks> = found
                .iter()
                .map(|found| TargetRanks::from_ranked(&found.targets))
                .collect::<Result<_, _>>()?;
            table.push_mean(&ranks);
        }
        Ok(table)
    }

    /// How much ties matter.
    pub fn ties(&self) -> TieSummary {
        TieSummary::of(self.found.iter().flat_map(|found| &found.targets))
    }
}

/// Every measure of [`MEASURES`] at every cutoff.
pub fn metrics(cutoffs: &[Cutoff]) -> Vec<Metric> {
    cutoffs
        .iter()
        .flat_map(|&cutoff| MEASURES.map(|measure| Metric::at(measure, cutoff)))
        .collect()
}

/// Cutoffs from numbers.
///
/// # Errors
/// For a cutoff of 0.
pub fn cutoffs(places: &[usize]) -> Result<Vec<Cutoff>, TrainError> {
    Ok(places
        .iter()
        .map(|&places| Cutoff::new(places))
        .collect::<Result<_, _>>()?)
}

/// Embeds texts as a report stores them: rounded to f16.
pub fn embed_rounded(encoder: &dyn Encoder, texts: &[&[u32]]) -> Result<EmbeddingStore, TrainError> {
    Ok(reward::embed(encoder, texts)?.to_f16()?)
}

/// Ranks profiles; `wanted` has one entry a user, `profiles` has `samples` rows for each of them.
pub fn rank(
    items: &Retriever,
    profiles: &EmbeddingStore,
    wanted: &[Query<'_>],
    samples: usize,
    top: Cutoff,
) -> Result<Ranked, TrainError> {
    let repeated: Vec<Query<'_>> = wanted
        .iter()
        .flat_map(|&query| std::iter::repeat_n(query, samples))
        .collect();
    Ok(Ranked {
        found: items.search(profiles, &repeated, Some(top))?,
        samples,
    })
}
