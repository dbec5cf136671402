//! The report's schema: what `langptune report` writes and the viewer reads.
//!
//! A report is a folder. `manifest.json` ([`Manifest`]) says what the run was, holds the metric tables, and names all
//! other files: chunks of items ([`ItemChunk`]), users ([`UserChunk`]) and, for each checkpoint, what was found for the
//! users ([`ResultChunk`]), each small enough to load on demand; embeddings as little-endian f16
//! ([`EmbeddingStore::read_f16`](crate::retrieval::EmbeddingStore::read_f16)); and the words of texts, to search them
//! ([`TextIndex`]); what was logged by update ([`Curves`]); titles and popularity of all items ([`Catalogue`]), how often each
//! is shown ([`Exposure`]) and where it lies on a map ([`Points`]). A record's place in its list is its number:
//! item 7 is the eighth record over all item chunks, and [`Chunks::locate`] says where that is. Which reports lie beside a
//! viewer is another file's matter ([`Runs`]).
//!
//! [`read_manifest`] refuses another version of the schema before anything else, and a manifest that contradicts itself.
//!
//! ```
//! use eval_core::report::{Chunks, Manifest, read_manifest, write_json};
//!
//! let manifest = Manifest {
//!     run: "first try".into(),
//!     items: Chunks::in_files("items", 2500, 1000),
//!     users: Chunks::in_files("users", 40, 100),
//!     ..Manifest::default()
//! };
//! assert_eq!(manifest.items.files, ["items-0.json", "items-1.json", "items-2.json"]);
//! assert_eq!(manifest.items.locate(1007), Some((1, 7))); // the second file, its eighth record
//!
//! let mut file = Vec::new();
//! write_json(&mut file, &manifest)?;
//! assert_eq!(read_manifest(&file[..])?, manifest);
//! let error = read_manifest(r#"{"schema_version": 99}"#.as_bytes()).unwrap_err();
//! assert!(error.to_string().contains("schema version 99"));
//! # Ok::<(), eval_core::Error>(())
//! ```

mod catalogue;
mod check;
mod chunk;
mod curves;
mod exposure;
mod map;
mod runs;
mod text_index;

pub use catalogue::Catalogue;
pub use chunk::{Found, Interaction, Item, ItemChunk, ResultChunk, User, UserChunk, UserResult};
pub use curves::{Curve, Curves};
pub use exposure::Exposure;
pub use map::{MapFiles, Points};
pub use runs::{RunPlace, Runs};
pub use text_index::{
    INDEX_FILE_BYTES, IndexBuilder, IndexFile, TextIndex, TextIndexFile, users_in_all, users_in_any, words,
};

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::metrics::{Metric, Summary};
use crate::retrieval::Similarity;
use crate::scores::TieSummary;
use crate::significance::PairedTest;
use crate::{Error, ErrorKind};

/// The version of the schema that this crate writes and reads. It goes up whenever a reader would misread the files.
pub const SCHEMA_VERSION: u32 = 1;

/// `manifest.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`SCHEMA_VERSION`] of the writer.
    pub schema_version: u32,
    /// The run's name.
    pub run: String,
    /// When the report was written, as `2026-01-31T12:00:00Z`; empty when not told, so that equal runs give equal files.
    pub created: String,
    /// The program that wrote it, with its version.
    pub generator: String,
    /// Whether what people did and wrote, and what was written about them, is left out: users have no history, no texts and no
    /// id of their own.
    #[serde(default)]
    pub redacted: bool,
    /// The language model that writes profiles.
    pub language_model: Model,
    /// The embedder that ranks items.
    pub embedder: Model,
    /// How profiles and items are compared.
    pub similarity: Similarity,
    /// The data.
    pub dataset: Dataset,
    /// Settings of the run that a reader wants to see, as text; the whole configuration lies in the run's folder.
    pub config: BTreeMap<String, String>,
    /// The catalogue, [`ItemChunk`] files.
    pub items: Chunks,
    /// The users of the split, [`UserChunk`] files.
    pub users: Chunks,
    /// The words of each user's history, titles and reviews: [`IndexFile`]s; `None` where there is nothing to search.
    #[serde(default)]
    pub history_index: Option<TextIndex>,
    /// What was logged by update, a [`Curves`] file; `None` where nothing was kept.
    #[serde(default)]
    pub curves: Option<String>,
    /// Titles and popularity of all items, a [`Catalogue`] file; `None` where only the item chunks tell them.
    #[serde(default)]
    pub catalogue: Option<String>,
    /// Rankings that need no profile, or no training.
    pub baselines: Vec<Baseline>,
    /// The checkpoints, by ascending update.
    pub checkpoints: Vec<Checkpoint>,
}

impl Default for Manifest {
    /// An empty report of the present version.
    fn default() -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            run: String::new(),
            created: String::new(),
            generator: String::new(),
            redacted: false,
            language_model: Model::default(),
            embedder: Model::default(),
            similarity: Similarity::Cosine,
            dataset: Dataset::default(),
            config: BTreeMap::new(),
            items: Chunks::default(),
            users: Chunks::default(),
            history_index: None,
            curves: None,
            catalogue: None,
            baselines: Vec::new(),
            checkpoints: Vec::new(),
        }
    }
}

impl Manifest {
    /// All files that it names, relative to it, in order and each once: with the manifest itself, the whole report.
    pub fn files(&self) -> BTreeSet<&str> {
        let of_baselines = self.baselines.iter().filter_map(|baseline| baseline.results.as_ref());
        let of_checkpoints = self
            .checkpoints
            .iter()
            .filter_map(|checkpoint| checkpoint.results.as_ref());
        let records = [&self.items, &self.users].into_iter();
        let records = records
            .chain(of_baselines)
            .chain(of_checkpoints)
            .flat_map(|chunks| &chunks.files);
        let of_profiles = self
            .checkpoints
            .iter()
            .filter_map(|checkpoint| checkpoint.profile_index.as_ref());
        let words = self
            .history_index
            .iter()
            .chain(of_profiles)
            .flat_map(|index| &index.files);
        let vectors = self
            .checkpoints
            .iter()
            .filter_map(|checkpoint| checkpoint.embeddings.as_ref());
        let of_run = [&self.curves, &self.catalogue].into_iter().filter_map(Option::as_deref);
        let shown = self.baselines.iter().map(|baseline| &baseline.exposure);
        let shown = shown.chain(self.checkpoints.iter().map(|checkpoint| &checkpoint.exposure));
        let maps = self.checkpoints.iter().filter_map(|checkpoint| checkpoint.map.as_ref());
        let maps = maps.flat_map(|map| map.files().map(|(_, file)| file));
        let records = records.map(String::as_str).chain(of_run);
        let records = records.chain(shown.filter_map(Option::as_deref)).chain(maps);
        let words = words.map(|listed| listed.file.as_str());
        let vectors = vectors.flat_map(Embeddings::files).map(|matrix| matrix.file.as_str());
        records.chain(words).chain(vectors).collect()
    }
}

/// A model as it was loaded.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Model {
    /// Its name: that of its folder or on a hub.
    pub name: String,
    /// Architecture, as its configuration names it.
    pub architecture: String,
    /// Number of parameters, those that are frozen included.
    pub parameters: u64,
    /// Number of parameters that training may change.
    pub trained_parameters: u64,
}

/// The data that the run saw.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Dataset {
    /// Its name.
    pub name: String,
    /// The split that the report is about: `val` or `test`.
    pub split: String,
    /// Number of items.
    pub items: usize,
    /// Number of users to train on.
    pub train_users: usize,
    /// Number of users of the validation split.
    pub val_users: usize,
    /// Number of users of the test split.
    pub test_users: usize,
}

/// A list of records, cut into JSON files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunks {
    /// Number of records.
    pub count: usize,
    /// Records in every file but the last, which may have fewer.
    pub per_file: usize,
    /// The files, relative to the manifest.
    pub files: Vec<String>,
}

impl Chunks {
    /// `count` records in files `{stem}-0.json`, `{stem}-1.json` and so on. A `per_file` of 0 is taken as 1.
    pub fn in_files(stem: &str, count: usize, per_file: usize) -> Self {
        let per_file = per_file.max(1);
        let files = (0..count.div_ceil(per_file))
            .map(|file| format!("{stem}-{file}.json"))
            .collect();
        Self { count, per_file, files }
    }

    /// The number of the file that holds a record, and the record's place in it; `None` beyond the last record.
    pub fn locate(&self, record: usize) -> Option<(usize, usize)> {
        (record < self.count && self.per_file > 0).then(|| (record / self.per_file, record % self.per_file))
    }

    /// Number of records that a file holds.
    pub fn records_in(&self, file: usize) -> usize {
        self.count.saturating_sub(file * self.per_file).min(self.per_file)
    }
}

/// Metrics of a way to rank that the run did not train.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// Its name, unique in the report, such as `random`, `popular`, `item-knn`, `bm25`, `ease`, `raw-history`.
    pub name: String,
    /// Its metrics over the same users.
    pub metrics: Summary,
    /// How much ties matter.
    pub ties: TieSummary,
    /// What it found for each user, [`ResultChunk`] files with one ranking a user, without a profile; `None` where only the
    /// metrics were kept.
    #[serde(default)]
    pub results: Option<Chunks>,
    /// How often it shows each item, an [`Exposure`] file; `None` where that was not counted.
    #[serde(default)]
    pub exposure: Option<String>,
}

/// A point of the run at which it was evaluated.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// Its name, unique in the report; its folder in the run.
    pub name: String,
    /// Number of the global update before which it was taken; counts on through all phases.
    pub update: u64,
    /// The phase it was taken in: `embedder`, `lm` or `end`.
    pub phase: String,
    /// Profiles written for each user.
    pub profiles_per_user: usize,
    /// Metrics of the generated profiles ("gen").
    pub generated: Summary,
    /// Metrics of the reference profiles ("ref"); `None` where they were not evaluated.
    pub reference: Option<Summary>,
    /// How much ties matter among the generated profiles' targets.
    pub ties: TieSummary,
    /// Paired tests of the generated profiles against others.
    pub comparisons: Vec<Comparison>,
    /// What was found for each user, [`ResultChunk`] files; `None` where only the metrics were kept.
    pub results: Option<Chunks>,
    /// The words of all of each user's generated profiles: [`IndexFile`]s; `None` where there is nothing to search.
    #[serde(default)]
    pub profile_index: Option<TextIndex>,
    /// How often it shows each item, an [`Exposure`] file; `None` where that was not counted.
    #[serde(default)]
    pub exposure: Option<String>,
    /// The vectors that the recorded ranks are of; `None` where they were not kept.
    pub embeddings: Option<Embeddings>,
    /// The vectors on a map; `None` where they were not kept.
    #[serde(default)]
    pub map: Option<MapFiles>,
}

/// A paired test between a checkpoint's generated profiles and something else, over the same users.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// What it is compared with: `reference`, the name of a baseline or that of a checkpoint.
    pub with: String,
    /// The metric.
    pub metric: Metric,
    /// The test; the difference is this checkpoint's mean less the other's.
    pub test: PairedTest,
}

/// The vectors of a checkpoint. Ranking them with [`retrieval`](crate::retrieval) gives the recorded ranks exactly.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embeddings {
    /// `[items, dims]`.
    pub items: F16File,
    /// `[users · profiles_per_user, dims]`: a user's profiles one after the other.
    pub profiles: F16File,
    /// `[users, dims]`, the reference profiles; `None` where they were not evaluated.
    pub references: Option<F16File>,
}

impl Embeddings {
    /// Its matrices.
    pub fn files(&self) -> impl Iterator<Item = &F16File> {
        [&self.items, &self.profiles].into_iter().chain(&self.references)
    }
}

/// A matrix of f16, little-endian, row after row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct F16File {
    /// The file, relative to the manifest.
    pub file: String,
    /// Number of rows.
    pub rows: usize,
    /// Number of values in a row.
    pub dims: usize,
}

/// Reads and checks a manifest.
///
/// # Errors
/// [`ErrorKind::UnknownSchema`] for another version, [`ErrorKind::Json`] for what is no manifest, and those of
/// [`Manifest::check`].
pub fn read_manifest(mut reader: impl Read) -> Result<Manifest, Error> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    // The version comes first: a newer manifest would otherwise fail with whatever field it no longer has.
    let Version { schema_version } = parse("the report's manifest", &bytes)?;
    check_version(schema_version)?;
    let manifest: Manifest = parse("the report's manifest", &bytes)?;
    manifest.check()?;
    Ok(manifest)
}

/// Reads another JSON file of the report: [`ItemChunk`], [`UserChunk`], [`ResultChunk`], [`Curves`], [`Catalogue`] or
/// [`Exposure`]. Their `check` compares one with its manifest.
///
/// # Errors
/// [`ErrorKind::Json`], and those of the reader.
pub fn read_chunk<T: DeserializeOwned>(mut reader: impl Read) -> Result<T, Error> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes)?;
    parse("a chunk of the report", &bytes)
}

/// Writes a manifest or a chunk as compact JSON.
///
/// # Errors
/// Those of the writer.
pub fn write_json(writer: impl Write, record: &impl Serialize) -> Result<(), Error> {
    serde_json::to_writer(writer, record).map_err(|source| json_error("writing the report", source))
}

#[derive(Deserialize)]
struct Version {
    schema_version: u64,
}

fn check_version(found: u64) -> Result<(), Error> {
    let known = SCHEMA_VERSION;
    match found.cmp(&u64::from(known)) {
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(ErrorKind::UnknownSchema {
            found,
            known,
            advice: "use a newer langptune to read it",
        }
        .into()),
        std::cmp::Ordering::Less => Err(ErrorKind::UnknownSchema {
            found,
            known,
            advice: "write it again with `langptune report`",
        }
        .into()),
    }
}

fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).map_err(|source| json_error(what, source))
}

/// A failure to read or write keeps its own kind.
fn json_error(what: &'static str, source: serde_json::Error) -> Error {
    match source.is_io() {
        true => std::io::Error::from(source).into(),
        false => ErrorKind::Json { what, source }.into(),
    }
}
