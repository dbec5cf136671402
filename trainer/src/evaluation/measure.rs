//! From a plan to rankings: profiles are written once a language model and ranked by every embedder.

use std::fmt;
use std::path::Path;

use eval_core::Cutoff;
use eval_core::metrics::MetricTable;
use eval_core::retrieval::Query;
use models::text::Tokenizer;
use models::{DecoderOptions, Device, Encoder, EncoderOptions};
use serde::Serialize;

use super::plan::{Baseline, EvaluationPlan, Version, split_name};
use super::{Ranked, embed_rounded, metrics, rank, recommender};
use crate::baselines::{self, EASE_MAX_ITEMS};
use crate::config::Precision;
use crate::data::Dataset;
use crate::rollout::{Profile, Request, RolloutOptions, Tokenizers, write_profiles};
use crate::train::{self, query, raw_histories, requests};
use crate::{TrainError, reward};

/// Draws of an evaluation are those of update 0, which training never has: they do not repeat what a model was trained on,
/// and are those of `langptune profile`.
const UPDATE: u32 = 0;

/// Which models made a row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowName {
    /// `generated`, or the name of a baseline.
    pub profile: &'static str,
    /// The language model that wrote the profiles.
    pub lm: Option<Version>,
    /// The embedder that ranked.
    pub embedder: Option<Version>,
}

impl RowName {
    /// Profiles written by a language model.
    pub const GENERATED: &'static str = "generated";

    /// Both models as they were loaded.
    pub fn zero_shot() -> Self {
        Self::generated(Version::Base, Version::Base)
    }

    /// Generated profiles.
    pub fn generated(lm: Version, embedder: Version) -> Self {
        let profile = Self::GENERATED;
        Self {
            profile,
            lm: Some(lm),
            embedder: Some(embedder),
        }
    }

    /// A baseline, under an embedder where it is ranked by one.
    pub fn baseline(baseline: Baseline, embedder: Option<Version>) -> Self {
        Self {
            profile: baseline.name(),
            lm: None,
            embedder,
        }
    }
}

impl fmt::Display for RowName {
    /// For example `generated/base/tuned`: language model, then embedder.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.profile)?;
        [self.lm, self.embedder]
            .into_iter()
            .flatten()
            .try_for_each(|version| write!(f, "/{version}"))
    }
}

/// One way to rank, over all users.
#[derive(Debug, Clone)]
pub struct Row {
    /// What it is.
    pub name: RowName,
    /// The rankings.
    pub ranked: Ranked,
    /// Metrics a user; the mean over profiles where there are several.
    pub table: MetricTable,
}

/// What one language model wrote.
#[derive(Debug, Clone)]
pub struct Written {
    /// Which one.
    pub version: Version,
    /// User by user, each with all of its profiles.
    pub profiles: Vec<Profile>,
}

/// A baseline that was asked for and left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Its name.
    pub baseline: &'static str,
    /// Why.
    pub reason: String,
}

/// All rankings of a plan.
#[derive(Debug)]
pub struct Measured {
    /// The data.
    pub dataset: Dataset,
    /// The rows: generated profiles, then baselines.
    pub rows: Vec<Row>,
    /// The profiles, a list for each language model.
    pub written: Vec<Written>,
    /// What was left out.
    pub skipped: Vec<Skipped>,
}

/// Writes and ranks all that `plan` asks for.
///
/// # Errors
/// A plan that does not fit the data, models that cannot be read or were not what the data was prepared for.
pub fn measure(plan: &EvaluationPlan) -> Result<Measured, TrainError> {
    let dataset = plan.source().open()?;
    plan.check(&dataset)?;
    let mut work = Work {
        plan,
        dataset: &dataset,
        top: plan.top()?,
        rows: Vec::new(),
        skipped: Vec::new(),
    };
    let written = work.models()?;
    for &baseline in &plan.baselines {
        work.baseline(baseline)?;
    }
    let Work { mut rows, skipped, .. } = work;
    // Stable, so that rows stay in the order they were asked for but for the embedders, which came one after the other.
    let place = |row: &Row| {
        plan.baselines
            .iter()
            .position(|baseline| baseline.name() == row.name.profile)
    };
    rows.sort_by_key(|row| (place(row).map_or(0, |place| place + 1), row.name.embedder));
    Ok(Measured {
        dataset,
        rows,
        written,
        skipped,
    })
}

/// An evaluation in progress.
struct Work<'a> {
    plan: &'a EvaluationPlan,
    dataset: &'a Dataset,
    top: Cutoff,
    rows: Vec<Row>,
    skipped: Vec<Skipped>,
}

/// An embedder that is in memory.
struct Embedder {
    version: Version,
    model: Box<dyn Encoder>,
    tokenizer: Tokenizer,
}

impl Work<'_> {
    fn users(&self) -> &[crate::data::User] {
        self.plan.split.users(self.dataset)
    }

    fn push(&mut self, name: RowName, ranked: Ranked) -> Result<(), TrainError> {
        let table = ranked.table(metrics(&self.plan.cutoffs))?;
        self.rows.push(Row { name, ranked, table });
        Ok(())
    }

    /// The rows that need models, one embedder and one language model in memory at a time.
    fn models(&mut self) -> Result<Vec<Written>, TrainError> {
        let mut written = Vec::new();
        let Some(embedders) = &self.plan.embedder else {
            return Ok(written);
        };
        let device = train::device(self.plan.device)?;
        for (version, folder) in embedders.folders() {
            let options = EncoderOptions {
                device: device.clone(),
                pooling: self.plan.pooling.map(train::pooling),
                train: false,
            };
            let (model, tokenizer) = train::open_any_encoder(folder, &options, self.plan.device, Precision::Bf16)?;
            train::check_items(self.dataset, &tokenizer, model.max_tokens())?;
            let embedder = Embedder {
                version,
                model,
                tokenizer,
            };
            if version == Version::Base {
                written = self.write(&embedder, &device)?;
            }
            self.rank_by(&embedder, &written)?;
        }
        Ok(written)
    }

    /// The profiles of every language model.
    fn write(&self, embedder: &Embedder, device: &Device) -> Result<Vec<Written>, TrainError> {
        let lms = self.plan.lm.iter().flat_map(|lms| lms.folders());
        lms.map(|(version, folder)| {
            eprintln!("the {version} language model writes {} profiles", self.requests().len());
            let profiles = self.write_one(folder, embedder, device)?;
            Ok(Written { version, profiles })
        })
        .collect()
    }

    fn write_one(&self, folder: &Path, embedder: &Embedder, device: &Device) -> Result<Vec<Profile>, TrainError> {
        let options = DecoderOptions::inference(device.clone());
        let (mut lm, tokenizer) = train::open_language_model(folder, &options, self.plan.device, Precision::Bf16)?;
        train::check_prompts(
            self.dataset,
            lm.as_ref(),
            &tokenizer,
            self.plan.sampling.response_length,
        )?;
        let mut options = self.rollout(embedder);
        options.end_tokens = train::end_tokens(&tokenizer, &self.plan.sampling.extra_eos)?;
        let tokenizers = Tokenizers {
            lm: &tokenizer,
            embedder: &embedder.tokenizer,
        };
        write_profiles(lm.as_mut(), tokenizers, &options, &self.requests(), UPDATE)
    }

    fn requests(&self) -> Vec<Request<'_>> {
        let first = self.plan.split.first_user(self.dataset);
        let users = self.users().iter().zip(first..);
        users
            .flat_map(|(user, number)| requests(user, number, self.plan.sampling.samples))
            .collect()
    }

    fn rollout(&self, embedder: &Embedder) -> RolloutOptions {
        let sampling = &self.plan.sampling;
        RolloutOptions {
            seed: sampling.seed,
            temperature: sampling.temperature,
            response_length: sampling.response_length,
            end_tokens: Vec::new(),
            slots: sampling.slots,
            query_prefix: sampling.query_prefix.clone(),
            embedder_limit: embedder.model.max_tokens(),
        }
    }

    /// All rows under one embedder.
    fn rank_by(&mut self, embedder: &Embedder, written: &[Written]) -> Result<(), TrainError> {
        eprintln!(
            "the {} embedder reads {} items",
            embedder.version,
            self.dataset.items.len()
        );
        let texts = train::item_texts(self.dataset);
        let items = reward::retriever(embed_rounded(embedder.model.as_ref(), &texts)?)?;
        let wanted: Vec<Query<'_>> = self.plan.split.users(self.dataset).iter().map(query).collect();
        let ranked = |profiles: &[Profile], samples: usize| {
            let texts: Vec<&[u32]> = profiles.iter().map(|profile| profile.tokens.as_slice()).collect();
            rank(
                &items,
                &embed_rounded(embedder.model.as_ref(), &texts)?,
                &wanted,
                samples,
                self.top,
            )
        };
        let mut rows = Vec::new();
        for Written { version, profiles } in written {
            let name = RowName::generated(*version, embedder.version);
            rows.push((name, ranked(profiles, self.plan.sampling.samples as usize)?));
        }
        for &baseline in &self.plan.baselines {
            let ranked = match baseline {
                Baseline::Reference => {
                    let rows = train::reference_rows(&items, self.users())?;
                    rank(&items, &rows, &wanted, 1, self.top)?
                }
                Baseline::RawHistory => {
                    let rollout = self.rollout(embedder);
                    ranked(
                        &raw_histories(self.users(), self.dataset, &embedder.tokenizer, &rollout)?,
                        1,
                    )?
                }
                _ => continue,
            };
            rows.push((RowName::baseline(baseline, Some(embedder.version)), ranked));
        }
        rows.into_iter().try_for_each(|(name, ranked)| self.push(name, ranked))
    }

    /// A baseline without an embedder; one with was ranked before, if there is an embedder.
    fn baseline(&mut self, baseline: Baseline) -> Result<(), TrainError> {
        if baseline.needs_embedder() {
            if self.plan.embedder.is_none() {
                self.skip(
                    baseline,
                    "there is no embedder to rank by it; give --embedder".to_owned(),
                );
            }
            return Ok(());
        }
        let count = self.dataset.items.len();
        if baseline == Baseline::Ease && count > EASE_MAX_ITEMS {
            let reason = format!("{count} items are above the {EASE_MAX_ITEMS} for which its matrix is inverted");
            self.skip(baseline, reason);
            return Ok(());
        }
        let Some(recommender) = recommender(baseline, self.dataset, self.plan.sampling.seed)? else {
            return Ok(());
        };
        let first = self.plan.split.first_user(self.dataset);
        let ranked = baselines::rank(recommender.as_ref(), self.users(), first, self.top)?;
        self.push(RowName::baseline(baseline, None), ranked)
    }

    fn skip(&mut self, baseline: Baseline, reason: String) {
        eprintln!(
            "note: {} of the {} users is left out: {reason}",
            baseline.name(),
            split_name(self.plan.split)
        );
        self.skipped.push(Skipped {
            baseline: baseline.name(),
            reason,
        });
    }
}
