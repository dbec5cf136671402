//! The report of a run, in [`eval_core::report`]'s schema, written while the run goes.
//!
//! `RUN/report/` is readable at any time: the manifest is replaced, whole, after the files that it names are there. Ranks are
//! those of the recorded f16 vectors, so whoever reads them ranks the same.

mod aggregates;
mod baselines;
mod describe;
#[cfg(test)]
mod tests;
mod text_index;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use eval_core::metrics::{Measure, MetricTable};
use eval_core::report::{
    Checkpoint, Chunks, Comparison, Embeddings, F16File, Found, ItemChunk, Manifest, Model, ResultChunk, UserChunk,
    UserResult, write_json,
};
use eval_core::retrieval::EmbeddingStore;
use eval_core::{Cutoff, TargetRanks};
use models::write_atomically;
use serde::Serialize;

use crate::TrainError;
use crate::checkpoint::read_json;
use crate::config::TrainConfig;
use crate::data::Dataset;
use crate::evaluation::{Ranked, bootstrap, cutoffs, metrics, paired_tests};
use crate::log::{Logger, read_curves};
use crate::rollout::Profile;

pub use describe::describe_model;

/// Records in a file: so that one loads in a moment over a slow line.
const ITEMS_PER_FILE: usize = 500;
const USERS_PER_FILE: usize = 100;

/// Writes the report of a run on its val users.
#[derive(Debug)]
pub struct ReportWriter {
    folder: PathBuf,
    /// What the run logs, of which the report keeps the curves.
    log: PathBuf,
    manifest: Manifest,
    seed: u64,
    keeps_embeddings: bool,
    /// The first checkpoint's generated profiles, which later ones are tested against.
    first: Option<(String, MetricTable)>,
    /// The baselines, which all checkpoints are tested against.
    baselines: Vec<(String, MetricTable)>,
}

/// What was found at a checkpoint.
#[derive(Debug, Clone, Copy)]
pub struct Evaluated<'a> {
    /// The checkpoint's name: that of its folder.
    pub name: &'a str,
    /// The global update before which it was taken.
    pub update: u64,
    /// `embedder`, `lm` or `end`.
    pub phase: &'static str,
    /// The generated profiles, user by user.
    pub profiles: &'a [Profile],
    /// Their rankings and metrics.
    pub generated: (&'a Ranked, &'a MetricTable),
    /// Those of the reference profiles.
    pub reference: (&'a Ranked, &'a MetricTable),
    /// The vectors that were ranked, in f16: items, generated profiles, reference profiles.
    pub vectors: [&'a EmbeddingStore; 3],
}

impl ReportWriter {
    /// The report's folder in a run.
    pub const FOLDER: &'static str = "report";
    /// The file that names all others.
    pub const MANIFEST: &'static str = "manifest.json";
    /// The file of what was logged by update.
    const CURVES: &'static str = "curves.json";

    /// Starts the report of `run` with its data and the baselines' rankings, in place of an earlier one; `[language model, embedder]` are described by
    /// [`describe_model`].
    ///
    /// # Errors
    /// When a file cannot be written, or a baseline cannot be computed.
    pub fn create(run: &Path, config: &TrainConfig, dataset: &Dataset, models: [Model; 2]) -> Result<Self, TrainError> {
        let folder = run.join(Self::FOLDER);
        if folder.exists() {
            fs::remove_dir_all(&folder).map_err(|source| TrainError::io(&folder, source))?;
        }
        create_folder(&folder)?;
        let manifest = Self::describe(config, dataset, models)?;
        let mut report = Self::open(run, config, manifest);
        report.write_data(dataset)?;
        report.write_catalogue(dataset)?;
        report.manifest.history_index = Some(report.write_history_index(dataset)?);
        report.write_baselines(config, dataset)?;
        report.write_manifest()?;
        Ok(report)
    }

    /// Goes on with the report of an interrupted run, which is brought back to the checkpoints of `manifest`, and to curves of what
    /// the log still has.
    ///
    /// # Errors
    /// When a file of it is missing, or one cannot be written.
    pub fn resume(
        run: &Path,
        config: &TrainConfig,
        dataset: &Dataset,
        models: [Model; 2],
        manifest: Manifest,
    ) -> Result<Self, TrainError> {
        let mut report = Self::open(run, config, manifest);
        let described = Self::describe(config, dataset, models)?;
        report.manifest = Manifest {
            history_index: report.manifest.history_index.take(),
            curves: report.manifest.curves.take(),
            catalogue: report.manifest.catalogue.take(),
            baselines: std::mem::take(&mut report.manifest.baselines),
            checkpoints: std::mem::take(&mut report.manifest.checkpoints),
            ..described
        };
        report.first = report.read_first(config)?;
        report.baselines = report.read_baselines(config)?;
        if report.manifest.curves.is_some() {
            report.write_curves()?;
        }
        report.write_manifest()?;
        report.sweep()?;
        Ok(report)
    }

    fn open(run: &Path, config: &TrainConfig, manifest: Manifest) -> Self {
        Self {
            folder: run.join(Self::FOLDER),
            log: run.join(Logger::METRICS),
            manifest,
            seed: config.run.seed,
            keeps_embeddings: config.evaluation.report_embeddings,
            first: None,
            baselines: Vec::new(),
        }
    }

    fn describe(
        config: &TrainConfig,
        dataset: &Dataset,
        [language_model, embedder]: [Model; 2],
    ) -> Result<Manifest, TrainError> {
        Ok(Manifest {
            run: config.run.exp_name.clone(),
            generator: concat!("langptune ", env!("CARGO_PKG_VERSION")).to_owned(),
            language_model,
            embedder,
            dataset: describe::dataset(config, dataset),
            config: describe::settings(config)?,
            items: Chunks::in_files("items", dataset.items.len(), ITEMS_PER_FILE),
            users: Chunks::in_files("users", dataset.val.len(), USERS_PER_FILE),
            ..Manifest::default()
        })
    }

    /// The first checkpoint's metrics, from its recorded ranks.
    fn read_first(&self, config: &TrainConfig) -> Result<Option<(String, MetricTable)>, TrainError> {
        let Some(checkpoint) = self.manifest.checkpoints.first() else {
            return Ok(None);
        };
        let results = checkpoint.results.clone().unwrap_or_default();
        Ok(Some((checkpoint.name.clone(), self.read_table(&results, config)?)))
    }

    /// The metrics a user of what was recorded.
    fn read_table(&self, results: &Chunks, config: &TrainConfig) -> Result<MetricTable, TrainError> {
        let mut table = MetricTable::new(metrics(&cutoffs(&config.evaluation.cutoffs())?));
        for file in &results.files {
            let chunk: ResultChunk = read_json(&self.folder.join(file))?;
            for result in &chunk.results {
                let ranks = result
                    .generated
                    .iter()
                    .map(|found| TargetRanks::from_ranked(&found.targets));
                table.push_mean(&ranks.collect::<Result<Vec<_>, _>>()?);
            }
        }
        Ok(table)
    }

    /// The report as it stands.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The names of the `count` best checkpoints, best first; see [`best`].
    pub fn best_names(&self, count: usize) -> Vec<String> {
        let mut left = self.manifest.checkpoints.clone();
        let mut names = Vec::new();
        while names.len() < count
            && let Some(place) = best(&left)
        {
            names.push(left.remove(place).name);
        }
        names
    }

    fn write_data(&self, dataset: &Dataset) -> Result<(), TrainError> {
        let items: Vec<_> = dataset.items.iter().map(describe::item).collect();
        self.write_chunks(&self.manifest.items, &items, |first, items| ItemChunk {
            first,
            items: items.to_vec(),
        })?;
        let users: Vec<_> = dataset.val.iter().map(|user| describe::user(user, dataset)).collect();
        self.write_chunks(&self.manifest.users, &users, |first, users| UserChunk {
            first,
            users: users.to_vec(),
        })
    }

    /// Adds a checkpoint: its metrics, profiles, ranks, top lists and how often they show each item, and its vectors with a map
    /// of them, which stay while it is the last or the best one. A checkpoint of the same name is replaced.
    ///
    /// # Errors
    /// When a file cannot be written, or what was found is not of the report's users.
    pub fn add_checkpoint(&mut self, evaluated: &Evaluated<'_>) -> Result<(), TrainError> {
        let name = evaluated.name;
        let stem = format!("checkpoints/{name}");
        create_folder(&self.folder.join(&stem))?;
        let results = results(evaluated);
        let chunks = Chunks::in_files(&format!("{stem}/results"), results.len(), USERS_PER_FILE);
        self.write_chunks(&chunks, &results, |first, results| ResultChunk {
            first,
            results: results.to_vec(),
        })?;
        let profile_index = self.write_profile_index(&stem, evaluated)?;
        let exposure = self.write_exposure(&stem, &cutoffs_of(evaluated.generated.1), &results)?;
        let embeddings = self.write_embeddings(&stem, evaluated.vectors)?;
        let map = self.write_map(&stem, evaluated.vectors)?;
        let bootstrap = bootstrap(self.seed);
        let checkpoint = Checkpoint {
            name: name.to_owned(),
            update: evaluated.update,
            phase: evaluated.phase.to_owned(),
            profiles_per_user: evaluated.generated.0.samples,
            generated: evaluated.generated.1.summary(&bootstrap),
            reference: Some(evaluated.reference.1.summary(&bootstrap)),
            ties: evaluated.generated.0.ties(),
            comparisons: self.comparisons(evaluated)?,
            results: Some(chunks),
            profile_index: Some(profile_index),
            exposure: Some(exposure),
            embeddings: Some(embeddings),
            map: Some(map),
        };
        self.manifest.checkpoints.retain(|other| other.name != name);
        self.manifest.checkpoints.push(checkpoint);
        self.manifest.checkpoints.sort_by_key(|checkpoint| checkpoint.update);
        if self.first.is_none() {
            self.first = Some((name.to_owned(), evaluated.generated.1.clone()));
        }
        self.drop_embeddings();
        self.write_curves()?;
        self.write_manifest()
    }

    /// Writes the curves of what the run has logged so far.
    fn write_curves(&mut self) -> Result<(), TrainError> {
        self.write(Self::CURVES, &read_curves(&self.log)?)?;
        self.manifest.curves = Some(Self::CURVES.to_owned());
        Ok(())
    }

    /// Removes files of checkpoints that the manifest does not name: vectors that were dropped, and what an interruption
    /// left. To be called once no checkpoint of the run can bring them back.
    ///
    /// # Errors
    /// When a file cannot be removed.
    pub fn sweep(&self) -> Result<(), TrainError> {
        let files = self.manifest.files().into_iter();
        let named: BTreeSet<PathBuf> = files.map(|file| self.folder.join(file)).collect();
        remove_others(&self.folder.join("checkpoints"), &named)
    }

    /// Paired tests of the generated profiles with the reference profiles, with the first checkpoint's and with the baselines.
    fn comparisons(&self, evaluated: &Evaluated<'_>) -> Result<Vec<Comparison>, TrainError> {
        let table = evaluated.generated.1;
        let mut partners = vec![("reference", evaluated.reference.1)];
        if let Some((name, first)) = self.first.as_ref().filter(|(name, _)| name != evaluated.name) {
            partners.push((name, first));
        }
        partners.extend(self.baselines.iter().map(|(name, table)| (name.as_str(), table)));
        let mut comparisons = Vec::new();
        for (with, other) in partners {
            comparisons.extend(paired_tests(table, with, other, self.seed)?);
        }
        Ok(comparisons)
    }

    fn write_embeddings(&self, stem: &str, stores: [&EmbeddingStore; 3]) -> Result<Embeddings, TrainError> {
        let write = |name: &str, store: &EmbeddingStore| -> Result<F16File, TrainError> {
            let file = format!("{stem}/{name}.f16");
            write_atomically(&self.folder.join(&file), |out| {
                store.write_f16(out).map_err(std::io::Error::other)
            })?;
            Ok(F16File {
                file,
                rows: store.rows(),
                dims: store.dims(),
            })
        };
        let [items, profiles, references] = stores;
        Ok(Embeddings {
            items: write("items", items)?,
            profiles: write("profiles", profiles)?,
            references: Some(write("references", references)?),
        })
    }

    /// Forgets the vectors of checkpoints that are neither the last nor the best.
    fn drop_embeddings(&mut self) {
        if self.keeps_embeddings {
            return;
        }
        let last = self.manifest.checkpoints.len().saturating_sub(1);
        let best = best(&self.manifest.checkpoints);
        let others = self.manifest.checkpoints.iter_mut().enumerate();
        let others = others.filter(|&(place, _)| place != last && Some(place) != best);
        others.for_each(|(_, checkpoint)| (checkpoint.embeddings, checkpoint.map) = (None, None));
    }

    fn write_chunks<T, C: Serialize>(
        &self,
        chunks: &Chunks,
        records: &[T],
        chunk: impl Fn(usize, &[T]) -> C,
    ) -> Result<(), TrainError> {
        for (number, (file, records)) in chunks
            .files
            .iter()
            .zip(records.chunks(chunks.per_file.max(1)))
            .enumerate()
        {
            self.write(file, &chunk(number * chunks.per_file, records))?;
        }
        Ok(())
    }

    fn write_manifest(&self) -> Result<(), TrainError> {
        self.manifest.check()?;
        self.write(Self::MANIFEST, &self.manifest)
    }

    fn write(&self, file: &str, record: &impl Serialize) -> Result<(), TrainError> {
        let path = self.folder.join(file);
        Ok(write_atomically(&path, |out| {
            write_json(out, record).map_err(std::io::Error::other)
        })?)
    }
}

/// The place of the checkpoint whose generated profiles have the highest NDCG at the largest cutoff, the earliest of equal
/// ones; `None` when none was evaluated.
pub fn best(checkpoints: &[Checkpoint]) -> Option<usize> {
    let ndcg = |checkpoint: &Checkpoint| {
        let ndcg = checkpoint
            .generated
            .metrics
            .iter()
            .filter(|(metric, _)| metric.measure() == Measure::Ndcg);
        ndcg.max_by_key(|(metric, _)| metric.cutoff())
            .map(|(_, summary)| summary.mean)
    };
    let evaluated = checkpoints
        .iter()
        .enumerate()
        .filter_map(|(place, checkpoint)| Some((place, ndcg(checkpoint)?)));
    // Of equal ones `max_by` takes the last, hence from the end.
    let from_end: Vec<(usize, f64)> = evaluated.collect();
    from_end
        .into_iter()
        .rev()
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(place, _)| place)
}

/// What was found for each user.
fn results(evaluated: &Evaluated<'_>) -> Vec<UserResult> {
    let samples = evaluated.generated.0.samples.max(1);
    let generated = evaluated
        .generated
        .0
        .found
        .chunks(samples)
        .zip(evaluated.profiles.chunks(samples));
    let references = &evaluated.reference.0.found;
    generated
        .zip(references)
        .map(|((found, profiles), reference)| UserResult {
            generated: found
                .iter()
                .zip(profiles)
                .map(|(found, profile)| Found::new(Some(profile.text.clone()), found))
                .collect(),
            reference: Some(Found::new(None, reference)),
        })
        .collect()
}

/// The cutoffs of a table's metrics.
fn cutoffs_of(table: &MetricTable) -> Vec<Cutoff> {
    table.metrics().iter().filter_map(|metric| metric.cutoff()).collect()
}

/// Removes the files below `folder` that are not `named`, and folders that are empty then.
fn remove_others(folder: &Path, named: &BTreeSet<PathBuf>) -> Result<(), TrainError> {
    let io = |source| TrainError::io(folder, source);
    if !folder.is_dir() {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.is_dir() {
            remove_others(&path, named)?;
            // Only an empty one goes.
            let _ = fs::remove_dir(&path);
        } else if !named.contains(&path) {
            fs::remove_file(&path).map_err(|source| TrainError::io(&path, source))?;
        }
    }
    Ok(())
}

fn create_folder(folder: &Path) -> Result<(), TrainError> {
    fs::create_dir_all(folder).map_err(|source| TrainError::io(folder, source))
}
