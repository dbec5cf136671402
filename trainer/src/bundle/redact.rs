//! What a report keeps for those who may not read about people: metrics, ranks, top lists and how often they show items,
//! items, settings and curves.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::BufReader;
use std::path::Path;

use eval_core::report::{Chunks, Found, Manifest, ResultChunk, UserChunk, read_chunk};
use serde::de::DeserializeOwned;

use super::{BundleError, Content, json, unreadable};

/// A report that is being redacted: which of its files hold what.
#[derive(Debug)]
pub(super) struct Redacted {
    users: BTreeSet<String>,
    results: BTreeSet<String>,
}

impl Redacted {
    /// Takes indexes, vectors and maps out of the manifest, which would give texts away, and says so in it.
    pub(super) fn new(manifest: &mut Manifest) -> Self {
        manifest.redacted = true;
        manifest.history_index = None;
        for checkpoint in &mut manifest.checkpoints {
            checkpoint.profile_index = None;
            checkpoint.embeddings = None;
            checkpoint.map = None;
        }
        let of_baselines = manifest
            .baselines
            .iter()
            .filter_map(|baseline| baseline.results.as_ref());
        let of_checkpoints = manifest
            .checkpoints
            .iter()
            .filter_map(|checkpoint| checkpoint.results.as_ref());
        Self {
            users: names([&manifest.users]),
            results: names(of_baselines.chain(of_checkpoints)),
        }
    }

    /// The file at `path` without what is left out; `None` where it holds nothing of that kind.
    pub(super) fn file(&self, name: &str, path: &Path) -> Result<Option<Content<'static>>, BundleError> {
        if self.users.contains(name) {
            return json(path, &users(read(path)?)).map(Some);
        }
        if self.results.contains(name) {
            return json(path, &results(read(path)?)).map(Some);
        }
        Ok(None)
    }
}

fn names<'a>(chunks: impl IntoIterator<Item = &'a Chunks>) -> BTreeSet<String> {
    chunks.into_iter().flat_map(|chunks| chunks.files.clone()).collect()
}

/// Users are their numbers. What they did is left out whole: a few dated or rated items are enough to find a person again.
fn users(mut chunk: UserChunk) -> UserChunk {
    for (number, user) in (chunk.first..).zip(&mut chunk.users) {
        user.id = format!("user {number}");
        user.history.clear();
        user.prompt = None;
        user.reference_profile = None;
    }
    chunk
}

fn results(mut chunk: ResultChunk) -> ResultChunk {
    let forget = |found: &mut Found| found.profile = None;
    for result in &mut chunk.results {
        result
            .generated
            .iter_mut()
            .chain(&mut result.reference)
            .for_each(forget);
    }
    chunk
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, BundleError> {
    let file = File::open(path).map_err(|source| unreadable(path, source))?;
    read_chunk(BufReader::new(file)).map_err(|source| BundleError::Record {
        path: path.to_owned(),
        source,
    })
}
