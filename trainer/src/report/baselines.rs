//! What a run's profiles must beat: rankings of its val users that need no model.

use eval_core::metrics::MetricTable;
use eval_core::report::{self, Chunks, Found, ResultChunk, UserResult};

use super::{ReportWriter, USERS_PER_FILE, create_folder};
use crate::TrainError;
use crate::config::TrainConfig;
use crate::data::Dataset;
use crate::evaluation::{Baseline, bootstrap, cutoffs, metrics, recommender};
use crate::train::Split;

/// In the order of the manifest.
const BASELINES: [Baseline; 5] = [
    Baseline::Random,
    Baseline::Popular,
    Baseline::ItemKnn,
    Baseline::Bm25,
    Baseline::Ease,
];

/// EASE is left out of reports above this many items. It inverts a matrix of items × items, which takes time by the cube of
/// their number, and training waits for it; `langptune evaluate` measures it for somewhat larger catalogues.
const EASE_MAX_ITEMS: usize = 4_000;

impl ReportWriter {
    /// Ranks the val users by each baseline and writes what was found; nothing for a run that is not evaluated.
    pub(super) fn write_baselines(&mut self, config: &TrainConfig, dataset: &Dataset) -> Result<(), TrainError> {
        if !config.evaluation.run_eval || dataset.val.is_empty() {
            return Ok(());
        }
        for baseline in BASELINES {
            let (name, items) = (baseline.name(), dataset.items.len());
            if baseline == Baseline::Ease && items > EASE_MAX_ITEMS {
                eprintln!("note: ease is left out of the report: {items} items are above {EASE_MAX_ITEMS}");
                continue;
            }
            eprintln!("the baseline {name} ranks {} val users", dataset.val.len());
            self.write_baseline(baseline, config, dataset)?;
        }
        Ok(())
    }

    fn write_baseline(
        &mut self,
        baseline: Baseline,
        config: &TrainConfig,
        dataset: &Dataset,
    ) -> Result<(), TrainError> {
        let Some(recommender) = recommender(baseline, dataset, config.run.seed)? else {
            return Ok(());
        };
        let cutoffs = cutoffs(&config.evaluation.cutoffs())?;
        let first_user = Split::Val.first_user(dataset);
        let ranked = crate::baselines::rank(recommender.as_ref(), &dataset.val, first_user, cutoffs[0])?;
        let (name, table) = (baseline.name(), ranked.table(metrics(&cutoffs))?);
        let results: Vec<UserResult> = ranked
            .found
            .iter()
            .map(|found| UserResult {
                generated: vec![Found::new(None, found)],
                reference: None,
            })
            .collect();
        let stem = format!("baselines/{name}");
        create_folder(&self.folder.join(&stem))?;
        let chunks = Chunks::in_files(&format!("{stem}/results"), results.len(), USERS_PER_FILE);
        self.write_chunks(&chunks, &results, |first, results| ResultChunk {
            first,
            results: results.to_vec(),
        })?;
        let exposure = self.write_exposure(&stem, &cutoffs, &results)?;
        self.manifest.baselines.push(report::Baseline {
            name: name.to_owned(),
            metrics: table.summary(&bootstrap(self.seed)),
            ties: ranked.ties(),
            results: Some(chunks),
            exposure: Some(exposure),
        });
        self.baselines.push((name.to_owned(), table));
        Ok(())
    }

    /// The baselines' metrics a user, from their recorded ranks: ranking anew would take as long as at the beginning, and
    /// give another answer where this program has changed since.
    pub(super) fn read_baselines(&self, config: &TrainConfig) -> Result<Vec<(String, MetricTable)>, TrainError> {
        let baselines = self.manifest.baselines.iter();
        let recorded = baselines.filter_map(|baseline| Some((baseline, baseline.results.as_ref()?)));
        recorded
            .map(|(baseline, results)| Ok((baseline.name.clone(), self.read_table(results, config)?)))
            .collect()
    }
}
