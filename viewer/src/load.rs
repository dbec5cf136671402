//! A report that is open: its manifest, and its other files as they are asked for.

use std::any::Any;
use std::fmt::{self, Debug};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use eval_core::report::{
    Catalogue, Exposure, ItemChunk, Manifest, Points, ResultChunk, UserChunk, read_chunk, read_manifest,
};
use serde::de::DeserializeOwned;
use thiserror::Error;

use crate::fetch::{self, FetchError, Pieces};

/// Parsed chunks are kept up to so many bytes of their files; what was used least lately goes first. Parsed, a chunk takes
/// up to about twice its file.
const CACHE_BYTES: usize = 32 << 20;

/// Why something of a report cannot be shown; the message names the file and what to do.
#[derive(Clone, Debug, Error)]
pub enum LoadError {
    /// A file that the manifest names could not be read.
    #[error("{0}. The manifest names this file: if the report is still being written or copied, wait and try again")]
    Missing(FetchError),
    /// The manifest itself could not be read.
    #[error("{0}")]
    NoReport(FetchError),
    /// A file that is not what it should be.
    #[error("{url}: {source}")]
    Invalid {
        /// The file's address.
        url: String,
        /// What is wrong with it.
        source: Arc<eval_core::Error>,
    },
    /// Nothing in the report says what was asked for.
    #[error("the report has no {what}: it has {count}, counted from 0")]
    Beyond {
        /// What was asked for, with its number.
        what: String,
        /// How many there are.
        count: usize,
    },
}

/// An open report. Clones share it, and what it has read.
#[derive(Clone)]
pub struct Source(Arc<Opened>);

struct Opened {
    folder: String,
    manifest: Manifest,
    manifest_bytes: Vec<u8>,
    cache: Mutex<Cache>,
}

impl Source {
    /// Opens the report in `folder`, which ends with a slash.
    ///
    /// # Errors
    /// No manifest, one of another version, or a broken one.
    pub async fn open(folder: &str) -> Result<Self, LoadError> {
        let url = format!("{folder}manifest.json");
        let bytes = fetch::bytes(&url).await.map_err(LoadError::NoReport)?;
        Self::new(folder, bytes)
    }

    /// Reads the manifest again: the report as it is now, or `None` if it has not changed.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub async fn reopened(&self) -> Result<Option<Self>, LoadError> {
        let url = self.url("manifest.json");
        let bytes = fetch::bytes(&url).await.map_err(LoadError::NoReport)?;
        match bytes == self.0.manifest_bytes {
            true => Ok(None),
            false => Self::new(&self.0.folder, bytes).map(Some),
        }
    }

    fn new(folder: &str, manifest_bytes: Vec<u8>) -> Result<Self, LoadError> {
        let manifest = read_manifest(&manifest_bytes[..]).map_err(|source| LoadError::Invalid {
            url: format!("{folder}manifest.json"),
            source: Arc::new(source),
        })?;
        Ok(Self(Arc::new(Opened {
            folder: folder.to_owned(),
            manifest,
            manifest_bytes,
            cache: Mutex::new(Cache::new(CACHE_BYTES)),
        })))
    }

    /// What the manifest says.
    pub fn manifest(&self) -> &Manifest {
        &self.0.manifest
    }

    /// The bytes of a file that the manifest names. They are not kept.
    ///
    /// # Errors
    /// [`LoadError::Missing`].
    pub async fn bytes(&self, file: &str) -> Result<Vec<u8>, LoadError> {
        fetch::bytes(&self.url(file)).await.map_err(LoadError::Missing)
    }

    /// Some of the bytes of a file that the manifest names.
    ///
    /// # Errors
    /// [`LoadError::Missing`].
    pub async fn part(&self, file: &str, range: Range<usize>) -> Result<Vec<u8>, LoadError> {
        fetch::part(&self.url(file), range).await.map_err(LoadError::Missing)
    }

    /// The bytes of a file that the manifest names, as they arrive.
    ///
    /// # Errors
    /// [`LoadError::Missing`].
    pub async fn pieces(&self, file: &str) -> Result<Pieces, LoadError> {
        fetch::pieces(&self.url(file)).await.map_err(LoadError::Missing)
    }

    /// A JSON file that the manifest names, such as that of the curves. It is not kept.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Invalid`].
    pub async fn json<T: DeserializeOwned>(&self, file: &str) -> Result<T, LoadError> {
        let bytes = self.bytes(file).await?;
        read_chunk(&bytes[..]).map_err(|source| self.invalid(file, source))
    }

    /// File number `file` of the items.
    ///
    /// # Errors
    /// [`LoadError`]; also for a file that is not the one that the manifest means.
    pub async fn items(&self, file: usize) -> Result<Arc<ItemChunk>, LoadError> {
        let check = |chunk: &ItemChunk| chunk.check(self.manifest(), file);
        self.chunk(&self.manifest().items.files, file, "items", check).await
    }

    /// File number `file` of the users.
    ///
    /// # Errors
    /// As [`Source::items`].
    pub async fn users(&self, file: usize) -> Result<Arc<UserChunk>, LoadError> {
        let check = |chunk: &UserChunk| chunk.check(self.manifest(), file);
        self.chunk(&self.manifest().users.files, file, "users", check).await
    }

    /// File number `file` of what checkpoint number `checkpoint` found.
    ///
    /// # Errors
    /// As [`Source::items`].
    pub async fn results(&self, checkpoint: usize, file: usize) -> Result<Arc<ResultChunk>, LoadError> {
        let checkpoints = &self.manifest().checkpoints;
        let of = checkpoints
            .get(checkpoint)
            .ok_or_else(|| beyond("checkpoint", checkpoint, checkpoints.len()))?;
        let files = of.results.as_ref().map_or(&[][..], |results| results.files.as_slice());
        let check = |chunk: &ResultChunk| chunk.check(self.manifest(), of, file);
        self.chunk(files, file, "results", check).await
    }

    /// File number `file` of what baseline number `baseline` found.
    ///
    /// # Errors
    /// As [`Source::items`].
    pub async fn baseline_results(&self, baseline: usize, file: usize) -> Result<Arc<ResultChunk>, LoadError> {
        let baselines = &self.manifest().baselines;
        let of = baselines
            .get(baseline)
            .ok_or_else(|| beyond("baseline", baseline, baselines.len()))?;
        let files = of.results.as_ref().map_or(&[][..], |results| results.files.as_slice());
        let check = |chunk: &ResultChunk| chunk.check_baseline(self.manifest(), of, file);
        self.chunk(files, file, "results", check).await
    }

    /// Titles and popularity of all items, where the report has them in a file.
    ///
    /// # Errors
    /// As [`Source::items`].
    pub async fn catalogue(&self) -> Result<Arc<Catalogue>, LoadError> {
        let check = |catalogue: &Catalogue| catalogue.check(self.manifest());
        let files = self.manifest().catalogue.as_slice();
        self.chunk(files, 0, "titles", check).await
    }

    /// How often checkpoint number `checkpoint` shows each item.
    ///
    /// # Errors
    /// As [`Source::items`].
    pub async fn exposure(&self, checkpoint: usize) -> Result<Arc<Exposure>, LoadError> {
        let checkpoints = &self.manifest().checkpoints;
        let of = checkpoints
            .get(checkpoint)
            .ok_or_else(|| beyond("checkpoint", checkpoint, checkpoints.len()))?;
        let check = |exposure: &Exposure| exposure.check(self.manifest(), of);
        self.chunk(of.exposure.as_slice(), 0, "counts", check).await
    }

    /// How often baseline number `baseline` shows each item.
    ///
    /// # Errors
    /// As [`Source::items`].
    pub async fn baseline_exposure(&self, baseline: usize) -> Result<Arc<Exposure>, LoadError> {
        let baselines = &self.manifest().baselines;
        let of = baselines
            .get(baseline)
            .ok_or_else(|| beyond("baseline", baseline, baselines.len()))?;
        let check = |exposure: &Exposure| exposure.check_baseline(self.manifest());
        self.chunk(of.exposure.as_slice(), 0, "counts", check).await
    }

    /// So many points of a map, from a file that the manifest names. They are not kept.
    ///
    /// # Errors
    /// [`LoadError::Missing`], [`LoadError::Invalid`].
    pub async fn points(&self, file: &str, rows: usize) -> Result<Points, LoadError> {
        let bytes = self.bytes(file).await?;
        Points::read(&bytes[..], rows).map_err(|source| self.invalid(file, source))
    }

    /// A chunk from the cache, or else read, parsed, checked and kept.
    async fn chunk<T: DeserializeOwned + Send + Sync + 'static>(
        &self,
        files: &[String],
        file: usize,
        what: &str,
        check: impl Fn(&T) -> Result<(), eval_core::Error>,
    ) -> Result<Arc<T>, LoadError> {
        let name = files
            .get(file)
            .ok_or_else(|| beyond(&format!("file of {what}"), file, files.len()))?;
        if let Some(kept) = self
            .cache(|cache| cache.get(name))
            .and_then(|kept| kept.downcast().ok())
        {
            return Ok(kept);
        }
        let bytes = self.bytes(name).await?;
        let chunk: T = read_chunk(&bytes[..]).map_err(|source| self.invalid(name, source))?;
        check(&chunk).map_err(|source| self.invalid(name, source))?;
        let chunk = Arc::new(chunk);
        self.cache(|cache| cache.put(name, chunk.clone(), bytes.len()));
        Ok(chunk)
    }

    fn cache<T>(&self, use_it: impl FnOnce(&mut Cache) -> T) -> T {
        // A panic elsewhere cannot leave the cache half changed: its methods do not panic.
        use_it(&mut self.0.cache.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn url(&self, file: &str) -> String {
        format!("{}{file}", self.0.folder)
    }

    fn invalid(&self, file: &str, source: eval_core::Error) -> LoadError {
        LoadError::Invalid {
            url: self.url(file),
            source: Arc::new(source),
        }
    }
}

impl PartialEq for Source {
    /// Whether both are the same reading of a report.
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({:?})", self.0.folder)
    }
}

fn beyond(what: &str, number: usize, count: usize) -> LoadError {
    LoadError::Beyond {
        what: format!("{what} {number}"),
        count,
    }
}

/// Something parsed.
type Parsed = Arc<dyn Any + Send + Sync>;

/// What was parsed lately.
struct Cache {
    /// Names, contents and the files' sizes; what was used last stands last.
    kept: Vec<(String, Parsed, usize)>,
    bytes: usize,
    limit: usize,
}

impl Cache {
    fn new(limit: usize) -> Self {
        Self {
            kept: Vec::new(),
            bytes: 0,
            limit,
        }
    }

    fn get(&mut self, name: &str) -> Option<Parsed> {
        let place = self.kept.iter().position(|(known, ..)| known == name)?;
        let used = self.kept.remove(place);
        let parsed = used.1.clone();
        self.kept.push(used);
        Some(parsed)
    }

    /// Keeps one more, and lets go of others while there is too much; the newest always stays.
    fn put(&mut self, name: &str, parsed: Parsed, bytes: usize) {
        self.remove(|known| known == name);
        self.kept.push((name.to_owned(), parsed, bytes));
        self.bytes += bytes;
        while self.bytes > self.limit && self.kept.len() > 1 {
            let oldest = self.kept[0].0.clone();
            self.remove(|known| known == oldest);
        }
    }

    fn remove(&mut self, is_meant: impl Fn(&str) -> bool) {
        if let Some(place) = self.kept.iter().position(|(known, ..)| is_meant(known)) {
            self.bytes -= self.kept.remove(place).2;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn names(cache: &Cache) -> Vec<&str> {
        cache.kept.iter().map(|(name, ..)| name.as_str()).collect()
    }

    #[test]
    fn what_was_used_least_lately_is_let_go_first() {
        let mut cache = Cache::new(10);
        for name in ["a", "b"] {
            cache.put(name, Arc::new(name.to_owned()), 5);
        }
        let a: Arc<String> = cache.get("a").unwrap().downcast().unwrap();
        assert_eq!(*a, "a");
        cache.put("c", Arc::new(3), 5);
        assert_eq!(names(&cache), ["a", "c"]);
        assert!(cache.get("b").is_none());
    }

    #[test]
    fn a_chunk_larger_than_the_cache_is_kept_alone_and_a_name_comes_once() {
        let mut cache = Cache::new(10);
        cache.put("a", Arc::new(1), 4);
        cache.put("a", Arc::new(2), 4);
        assert_eq!((names(&cache), cache.bytes), (vec!["a"], 4));
        cache.put("large", Arc::new(3), 40);
        assert_eq!((names(&cache), cache.bytes), (vec!["large"], 40));
    }

    #[test]
    fn a_broken_manifest_is_named_with_its_folder() {
        let error = Source::new("runs/a/", b"{\"schema_version\": 99}".to_vec()).unwrap_err();
        let message = error.to_string();
        assert!(
            message.starts_with("runs/a/manifest.json: ") && message.contains("newer langptune"),
            "{message}"
        );
    }

    #[test]
    fn a_number_beyond_the_report_says_how_many_there_are() {
        assert_eq!(
            beyond("checkpoint", 7, 3).to_string(),
            "the report has no checkpoint 7: it has 3, counted from 0"
        );
    }
}
