//! The demo from end to end: world, dataset, training, evaluation, summary.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use eval_core::Cutoff;
use eval_core::metrics::{Measure, Metric};
use eval_core::significance::{mean, paired_randomisation};
use serde::Serialize;

use super::pretrain::TRAINING_SEED;
use super::{INSTRUCTION, RawFiles, World, WorldSize, assets};
use crate::TrainError;
use crate::config::{Device, Precision, TrainConfig};
use crate::data::{MANIFEST_FILE, Preparation, Rules, TemplateForm, UnfinishedFolder, User};
use crate::evaluation::{
    self, Baseline, EVALUATION_FILE, EvaluationPlan, Measured, RowName, Sampling, Version, Versions, split_name,
};
use crate::interrupt;
use crate::train::{End, Split, Start, Trainer};

/// Profiles of each user that the final evaluation averages over.
const PROFILES: u32 = 4;
/// The place that the summary cuts rankings at.
const PLACES: usize = 10;
/// Sign patterns of the paired tests.
const PERMUTATIONS: usize = 100_000;
/// People whose profiles are shown.
const EXAMPLES: usize = 3;
/// How the demo trains.
const CONFIG: &str = include_str!("demo.toml");

/// One demo.
#[derive(Debug, Clone)]
pub struct Demo {
    /// Gets `world`, `models`, `dataset`, `run`, `evaluation` and `summary.json`.
    pub output: PathBuf,
    /// Makes the world, and all draws of training.
    pub seed: u64,
    /// A folder with `lm` and `embedder` to be used in place of the models in this program.
    pub models: Option<PathBuf>,
    /// Whether a demo in the folder that was interrupted goes on; without one, a new one begins.
    pub resume: bool,
    /// How much there is of everything.
    pub scale: Scale,
    /// Where models compute.
    pub device: Device,
    /// What a GPU computes in.
    pub precision: Precision,
}

/// How much there is of everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The demo.
    Whole,
    /// So little that it takes seconds and its numbers say nothing: to try whether it runs.
    Trial,
}

impl Scale {
    fn world(self) -> WorldSize {
        match self {
            Self::Whole => WorldSize::default(),
            Self::Trial => WorldSize {
                films: 100,
                people: 300,
            },
        }
    }
}

/// What came out, as `summary.json` holds it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Says that films and people are made up.
    pub synthetic: bool,
    /// The world's seed.
    pub seed: u64,
    /// Users of val and test together.
    pub users: usize,
    /// Profiles a user; a user's value is the mean over them.
    pub profiles_per_user: u32,
    /// NDCG at 10, means over users.
    #[serde(rename = "ndcg@10")]
    pub ndcg: Means,
    /// Paired randomisation test, two-sided: what the reinforcement phases alone earned.
    pub p_value_trained_vs_zero_shot: f64,
    /// The same against both models as loaded.
    pub p_value_trained_vs_untrained: f64,
    /// The same against the reference profile.
    pub p_value_trained_vs_reference_profile: f64,
    /// The first people of the test split, as they come.
    pub examples: Vec<Example>,
    /// Wall time of the whole demo; of its last part, where it was resumed.
    pub seconds: f64,
}

/// What was written about one person before and after the language model was trained; both ranked by the trained embedder.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Example {
    /// The person.
    pub user: String,
    /// The films that the profiles are of.
    pub history: Vec<String>,
    /// The film that came next.
    pub target: String,
    /// The first profile of the language model as loaded.
    pub before: Told,
    /// The first profile of the trained language model.
    pub after: Told,
}

/// A profile and what it is worth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Told {
    /// The text.
    pub profile: String,
    /// The place of the film that came next, from 1.
    pub rank: u32,
}

/// A value for each way to rank.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Means {
    /// By chance.
    pub random: f64,
    /// By the number of train reviews.
    pub popular: f64,
    /// By the text of the last film seen, under the trained embedder.
    pub reference_profile: f64,
    /// Both models as loaded.
    pub untrained: f64,
    /// The language model as loaded, the trained embedder.
    pub zero_shot: f64,
    /// The trained language model, the embedder as loaded.
    pub tuned_lm_only: f64,
    /// Both models trained.
    pub trained: f64,
}

/// How every made-up world is prepared.
pub(super) fn prepare_rules(seed: u64) -> Rules {
    Rules {
        instruction: INSTRUCTION.to_owned(),
        template: TemplateForm::Chat,
        max_item_tokens: 96,
        max_prompt_tokens: 448,
        seed,
        ..Rules::default()
    }
}

impl Demo {
    /// Does it all, or what is left to do.
    ///
    /// # Errors
    /// When the folder is in use, the seed is one of the training worlds', or a step fails; [`TrainError::Interrupted`]
    /// where a signal asked for the end.
    pub fn run(&self) -> Result<Summary, TrainError> {
        let started = Instant::now();
        self.check()?;
        let world = self.world()?;
        let models = self.models()?;
        let dataset = self.prepare(world, &models)?;
        let config = self.config(&models, &dataset)?;
        let checkpoint = self.train(&config)?;
        let mut measured = Vec::new();
        for split in [Split::Val, Split::Test] {
            measured.push(self.evaluate(&config, &checkpoint, split)?);
            if interrupt::requested() {
                return Err(TrainError::Interrupted);
            }
        }
        let mut summary = summarise(&measured, self.seed)?;
        summary.seconds = started.elapsed().as_secs_f64();
        let path = self.output.join("summary.json");
        models::write_atomically(&path, |out| {
            serde_json::to_writer_pretty(&mut *out, &summary)?;
            out.write_all(b"\n")
        })?;
        Ok(summary)
    }

    fn check(&self) -> Result<(), TrainError> {
        if self.seed >= TRAINING_SEED {
            let message = format!(
                "seed {}: seeds from {TRAINING_SEED} on make the worlds that the models were pretrained on; give a smaller one",
                self.seed
            );
            return Err(TrainError::Mismatch(message));
        }
        let used = fs::read_dir(&self.output).is_ok_and(|mut entries| entries.next().is_some());
        if !used {
            return Ok(());
        }
        let folder = self.output.display();
        if !self.resume {
            let message = format!(
                "{folder}: the folder is not empty; give another --out, or --resume to go on with a demo that was interrupted"
            );
            return Err(TrainError::Mismatch(message));
        }
        match self.seed_of_folder() {
            Some(seed) if seed == self.seed => Ok(()),
            Some(seed) => Err(TrainError::Mismatch(format!(
                "{folder}: the demo in it was begun with --seed {seed}; give that, or another --out"
            ))),
            None => Err(TrainError::Mismatch(format!(
                "{folder}: there is no demo in it to go on with; give another --out"
            ))),
        }
    }

    /// The seed of the world in the folder.
    fn seed_of_folder(&self) -> Option<u64> {
        let bytes = fs::read(self.output.join("world").join(World::ABOUT)).ok()?;
        serde_json::from_slice::<serde_json::Value>(&bytes).ok()?["seed"].as_u64()
    }

    /// Trains to the end; returns the last checkpoint.
    fn train(&self, config: &TrainConfig) -> Result<PathBuf, TrainError> {
        let saved = config.run.output.join(TrainConfig::FILE_NAME);
        let start = if saved.is_file() {
            let differing = config.differing_keys(&TrainConfig::load(&saved)?)?;
            if !differing.is_empty() {
                let message = format!(
                    "{}: the demo was begun with another {}, perhaps by another version; give another --out",
                    saved.display(),
                    differing.join(", ")
                );
                return Err(TrainError::Mismatch(message));
            }
            Start::Resume
        } else {
            Start::Afresh
        };
        let outcome = Trainer::new(config.clone(), start, None)?.run()?;
        match outcome.checkpoint {
            Some(checkpoint) if outcome.end == End::Finished => Ok(checkpoint),
            _ => Err(TrainError::Interrupted),
        }
    }

    /// The folder with both models.
    fn models(&self) -> Result<PathBuf, TrainError> {
        match &self.models {
            Some(folder) => Ok(folder.clone()),
            None => {
                let folder = self.output.join("models");
                assets::write(&folder)?;
                Ok(folder)
            }
        }
    }

    /// Makes the world and writes it, first of all: the folder is then known as this demo's.
    fn world(&self) -> Result<RawFiles, TrainError> {
        let world = World::generate(self.seed, self.scale.world());
        eprintln!(
            "a made-up world of seed {}: {} films, {} people, {} reviews",
            self.seed,
            world.films.len(),
            world.people.len(),
            world.reviews.len()
        );
        world.write(&self.output.join("world"))
    }

    fn prepare(&self, files: RawFiles, models: &Path) -> Result<PathBuf, TrainError> {
        let output = self.output.join("dataset");
        if output.join(MANIFEST_FILE).is_file() {
            return Ok(output);
        }
        let preparation = Preparation {
            reviews: files.reviews,
            metadata: files.metadata,
            lm: models.join("lm"),
            embedder: models.join("embedder"),
            output: output.clone(),
            overwrite: false,
            skip_bad_lines: false,
            rules: prepare_rules(self.seed),
        };
        preparation.run()?;
        Ok(output)
    }

    fn config(&self, models: &Path, dataset: &Path) -> Result<TrainConfig, TrainError> {
        let mut table: toml::Table = CONFIG
            .parse()
            .map_err(|error| TrainError::Mismatch(format!("the demo's own configuration cannot be read: {error}")))?;
        let (lm, embedder, output) = (models.join("lm"), models.join("embedder"), self.output.join("run"));
        let required: [(&str, &str, &Path); 4] = [
            ("run", "dataset", dataset),
            ("run", "output", &output),
            ("lm", "model", &lm),
            ("embedder", "model", &embedder),
        ];
        for (section, key, path) in required {
            if let Some(section) = table.get_mut(section).and_then(toml::Value::as_table_mut) {
                section.insert(key.to_owned(), path.to_string_lossy().into_owned().into());
            }
        }
        let mut config = TrainConfig::from_toml(&table.to_string())?;
        config.run.seed = self.seed;
        config.run.device = self.device;
        config.run.precision = self.precision;
        if self.scale == Scale::Trial {
            config.schedule.num_emb_updates = 1;
            config.schedule.num_lm_updates = 1;
            config.rl.response_length = 16;
        }
        let absolute = config.make_paths_absolute();
        absolute.map_err(|source| TrainError::io(&self.output, source))?;
        Ok(config)
    }

    /// Ranks the users of `split` by everything that the summary names, and writes the evaluation's files.
    fn evaluate(&self, config: &TrainConfig, checkpoint: &Path, split: Split) -> Result<Measured, TrainError> {
        let versions = |base: &str, tuned: &str| {
            Some(Versions {
                base: PathBuf::from(base),
                tuned: Some(checkpoint.join(tuned)),
            })
        };
        let plan = EvaluationPlan {
            dataset: config.run.dataset.clone(),
            item_dataset: None,
            template: None,
            split,
            lm: versions(&config.lm.model, "lm"),
            embedder: versions(&config.embedder.model, "embedder"),
            pooling: config.embedder.pooling,
            baselines: Baseline::ALL.to_vec(),
            cutoffs: [5, PLACES, 20].into_iter().map(Cutoff::new).collect::<Result<_, _>>()?,
            sampling: Sampling {
                samples: PROFILES,
                seed: self.seed,
                temperature: config.rl.temperature,
                response_length: config.rl.response_length,
                extra_eos: Vec::new(),
                slots: config.rl.rollout_batch,
                query_prefix: String::new(),
            },
            device: self.device,
        };
        let name = split_name(split);
        let output = UnfinishedFolder::begin(&self.output.join("evaluation").join(name), self.resume, EVALUATION_FILE)?;
        let measured = evaluation::measure(&plan)?;
        let result = evaluation::compare(&plan, &measured)?;
        evaluation::write_files(output.path(), &plan, &measured, &result)?;
        output.publish()?;
        Ok(measured)
    }
}

/// The first [`EXAMPLES`] people of `part`.
fn examples(part: &Measured, split: Split) -> Vec<Example> {
    let told = |version: Version, user: usize| -> Option<Told> {
        let name = RowName::generated(version, Version::Tuned);
        let row = part.rows.iter().find(|row| row.name == name)?;
        let written = part.written.iter().find(|written| written.version == version)?;
        let first = user * PROFILES as usize;
        Some(Told {
            profile: written.profiles.get(first)?.text.clone(),
            rank: row.ranked.found.get(first)?.targets.first()?.rank,
        })
    };
    let title = |item: &u32| part.dataset.items[*item as usize].title.clone();
    let users = split.users(&part.dataset).iter().enumerate().take(EXAMPLES);
    let example = |(place, user): (usize, &User)| {
        Some(Example {
            user: user.id.clone(),
            history: user.history.iter().map(title).collect(),
            target: user.targets.first().map(title)?,
            before: told(Version::Base, place)?,
            after: told(Version::Tuned, place)?,
        })
    };
    users.filter_map(example).collect()
}

/// Means and tests over the users of all `parts`.
fn summarise(parts: &[Measured], seed: u64) -> Result<Summary, TrainError> {
    let metric = Metric::at(Measure::Ndcg, Cutoff::new(PLACES)?);
    let values = |name: &RowName| -> Result<Vec<f64>, TrainError> {
        let mut values = Vec::new();
        for part in parts {
            let row = part.rows.iter().find(|row| row.name == *name);
            let column = row.and_then(|row| row.table.column(metric));
            let missing = || TrainError::Mismatch(format!("the evaluation has no row {name}"));
            values.extend_from_slice(column.ok_or_else(missing)?);
        }
        Ok(values)
    };
    let generated = |lm, embedder| values(&RowName::generated(lm, embedder));
    let trained = generated(Version::Tuned, Version::Tuned)?;
    let zero_shot = generated(Version::Base, Version::Tuned)?;
    let untrained = generated(Version::Base, Version::Base)?;
    let reference = values(&RowName::baseline(Baseline::Reference, Some(Version::Tuned)))?;
    let p_value = |other: &[f64]| -> Result<f64, TrainError> {
        Ok(paired_randomisation(&trained, other, PERMUTATIONS, seed)?.p_value)
    };
    Ok(Summary {
        synthetic: true,
        seed,
        users: trained.len(),
        profiles_per_user: PROFILES,
        ndcg: Means {
            random: mean(&values(&RowName::baseline(Baseline::Random, None))?),
            popular: mean(&values(&RowName::baseline(Baseline::Popular, None))?),
            reference_profile: mean(&reference),
            untrained: mean(&untrained),
            zero_shot: mean(&zero_shot),
            tuned_lm_only: mean(&generated(Version::Tuned, Version::Base)?),
            trained: mean(&trained),
        },
        p_value_trained_vs_zero_shot: p_value(&zero_shot)?,
        p_value_trained_vs_untrained: p_value(&untrained)?,
        p_value_trained_vs_reference_profile: p_value(&reference)?,
        examples: parts.last().map_or_else(Vec::new, |test| examples(test, Split::Test)),
        seconds: 0.0,
    })
}
