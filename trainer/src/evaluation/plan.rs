//! What an evaluation evaluates.

use std::fmt;
use std::path::PathBuf;

use clap::ValueEnum;
use eval_core::Cutoff;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::config::{Device, Pooling};
use crate::data::{Dataset, DatasetSource, TemplateForm};
use crate::train::Split;

/// Everything that decides the tables of an evaluation.
#[derive(Debug, Clone, PartialEq)]
pub struct EvaluationPlan {
    /// Folder made by `langptune prepare`, or folder or hub id of a published set.
    pub dataset: PathBuf,
    /// Folder or hub id of a published set's items; by default they are where the dataset is.
    pub item_dataset: Option<PathBuf>,
    /// How prompts of a published set are put to the language model; by default as the set has them.
    pub template: Option<TemplateForm>,
    /// Whose users.
    pub split: Split,
    /// Language models that write profiles; they need an embedder.
    pub lm: Option<Versions>,
    /// Embedders that rank.
    pub embedder: Option<Versions>,
    /// How token vectors become one; default: as each embedder's folder says.
    pub pooling: Option<Pooling>,
    /// What else is ranked.
    pub baselines: Vec<Baseline>,
    /// Places of a ranking that count; at least one.
    pub cutoffs: Vec<Cutoff>,
    /// How profiles are written.
    pub sampling: Sampling,
    /// Where models compute.
    pub device: Device,
}

/// How profiles are written; the same draws for every language model, so that they can be compared in pairs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Sampling {
    /// Profiles a user; at least 1.
    pub samples: u32,
    /// Seed of the draws, of the random baseline, of intervals and of tests.
    pub seed: u64,
    /// Divides the logits.
    pub temperature: f64,
    /// Most new tokens of a profile, and most tokens of it that the embedder sees.
    pub response_length: usize,
    /// Further tokens that end a profile, beside the tokenizer's EOS.
    pub extra_eos: Vec<String>,
    /// Profiles decoded together; changes no result.
    #[serde(skip, default = "default_slots")]
    pub slots: usize,
    /// Text before a profile when it is embedded.
    pub query_prefix: String,
}

fn default_slots() -> usize {
    Sampling::default().slots
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            samples: 1,
            seed: 555_134,
            temperature: 1.0,
            response_length: 512,
            extra_eos: Vec::new(),
            slots: 32,
            query_prefix: String::new(),
        }
    }
}

/// A model's folders.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Versions {
    /// As it was loaded before training.
    pub base: PathBuf,
    /// As training left it.
    pub tuned: Option<PathBuf>,
}

impl Versions {
    /// The folders there are, the base first.
    pub fn folders(&self) -> impl Iterator<Item = (Version, &PathBuf)> {
        [(Version::Base, Some(&self.base)), (Version::Tuned, self.tuned.as_ref())]
            .into_iter()
            .filter_map(|(version, folder)| Some((version, folder?)))
    }
}

/// Whether a model is as it was loaded, or trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Version {
    /// As loaded.
    Base,
    /// Trained.
    Tuned,
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Base => "base",
            Self::Tuned => "tuned",
        })
    }
}

/// A way to rank that needs no profile writer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Baseline {
    /// Any order
    Random,
    /// By reviews from training users
    Popular,
    /// Items that training users share with the history's
    ItemKnn,
    /// Words in common with the history's item texts
    Bm25,
    /// A linear model of items on items
    Ease,
    /// The text of the history's last item as the profile
    Reference,
    /// The history itself as the profile
    RawHistory,
}

impl Baseline {
    /// All of them, in the order of tables.
    pub const ALL: [Self; 7] = [
        Self::Reference,
        Self::RawHistory,
        Self::Random,
        Self::Popular,
        Self::ItemKnn,
        Self::Bm25,
        Self::Ease,
    ];

    /// The name in flags, tables and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Random => "random",
            Self::Popular => "popular",
            Self::ItemKnn => "item-knn",
            Self::Bm25 => "bm25",
            Self::Ease => "ease",
            Self::Reference => "reference",
            Self::RawHistory => "raw-history",
        }
    }

    /// Whether it is a text that an embedder ranks by.
    pub fn needs_embedder(self) -> bool {
        matches!(self, Self::Reference | Self::RawHistory)
    }
}

/// The name of a split in files and messages.
pub fn split_name(split: Split) -> &'static str {
    match split {
        Split::Train => "train",
        Split::Val => "val",
        Split::Test => "test",
    }
}

impl EvaluationPlan {
    /// The data, tokenized for the models as they were loaded where it comes without ids for them.
    pub(super) fn source(&self) -> DatasetSource {
        let name = |versions: &Versions| versions.base.as_path().into();
        DatasetSource {
            dataset: self.dataset.clone(),
            items: self.item_dataset.clone(),
            lm: self.lm.as_ref().map(name),
            embedder: self.embedder.as_ref().map(name),
            template: self.template,
        }
    }

    /// The largest cutoff.
    pub fn top(&self) -> Result<Cutoff, TrainError> {
        let top = self.cutoffs.iter().max().copied();
        top.ok_or_else(|| TrainError::Mismatch("cutoffs: give at least one".to_owned()))
    }

    /// Whether the plan fits the data.
    pub(super) fn check(&self, dataset: &Dataset) -> Result<(), TrainError> {
        let (top, items) = (self.top()?, dataset.items.len());
        if top.get() > items {
            let message = format!("cutoffs: {top} is above the catalogue's {items} items; give at most {items}");
            return Err(TrainError::Mismatch(message));
        }
        if self.sampling.samples == 0 {
            let message = "samples: 0 profiles a user cannot be ranked; give 1 or more";
            return Err(TrainError::Mismatch(message.to_owned()));
        }
        if self.lm.is_some() && self.embedder.is_none() {
            let message = "a language model's profiles need an embedder to rank by them; give one";
            return Err(TrainError::Mismatch(message.to_owned()));
        }
        if self.split.users(dataset).is_empty() {
            let (folder, split) = (self.dataset.display(), split_name(self.split));
            let message = format!("{folder}: there are no {split} users to evaluate on");
            return Err(TrainError::Mismatch(message));
        }
        Ok(())
    }
}
