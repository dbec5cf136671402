//! Datasets of the hub: their Parquet files, in the cache.

use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::ApiError;
use hf_hub::{Repo, RepoType};

use super::{DEFAULT_REVISION, Hub, HubError, Kind, is_hub_id};

/// The id and the revision of `owner/name` or `owner/name@revision`; `None` for what reads like a path.
pub fn dataset_id(text: &str) -> Option<(&str, &str)> {
    let (id, revision) = text.split_once('@').unwrap_or((text, DEFAULT_REVISION));
    let plain = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.' | '/');
    let revision_is_plain = revision.split('/').all(is_safe_part) && revision.chars().all(plain);
    (id.contains('/') && is_hub_id(id) && revision_is_plain).then_some((id, revision))
}

impl Hub {
    /// The snapshot folder of a dataset with all its Parquet files.
    ///
    /// How many files there are only the hub knows, so that it is asked each time; where it cannot be reached the cache is used
    /// as it is.
    pub fn resolve_dataset(&self, id: &str, revision: &str) -> Result<PathBuf, HubError> {
        let failed = |error: ApiError| self.explain(Kind::Dataset, id, revision, &error);
        let cached = self.cached_dataset(id, revision);
        if self.offline {
            return cached.ok_or_else(|| HubError::Offline {
                kind: Kind::Dataset,
                id: id.to_owned(),
                cache: self.cache.clone(),
            });
        }
        let api = self.api().map_err(failed)?;
        let repository = |revision: &str| Repo::with_revision(id.to_owned(), RepoType::Dataset, revision.to_owned());
        let info = match api.repo(repository(revision)).info().map_err(failed) {
            Ok(info) => info,
            Err(error @ HubError::Unreachable { .. }) => return cached.ok_or(error),
            Err(error) => return Err(error),
        };
        let pinned = api.repo(repository(&info.sha));
        let names = info.siblings.iter().map(|file| file.rfilename.as_str());
        let names: Vec<&str> = names.filter(|name| is_wanted(name)).collect();
        if names.is_empty() {
            return Err(HubError::NoParquet { id: id.to_owned() });
        }
        for name in names {
            pinned.get(name).map_err(failed)?;
        }
        self.point(repository(revision), &info.sha)
    }

    /// The snapshot folder of a dataset, if there is something in it.
    fn cached_dataset(&self, id: &str, revision: &str) -> Option<PathBuf> {
        let folder = self.snapshot(&Repo::dataset(id.to_owned()), revision);
        has_parquet(&folder).then_some(folder)
    }
}

/// Whether a file of the hub is one that we read. Names come from elsewhere: only plain ones are written to disk.
fn is_wanted(name: &str) -> bool {
    name.ends_with(".parquet") && name.split('/').all(is_safe_part)
}

fn is_safe_part(part: &str) -> bool {
    let allowed = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.' | ' ' | '=' | '+' | ',');
    !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
}

fn has_parquet(folder: &Path) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).any(|path| {
        path.extension().is_some_and(|extension| extension == "parquet") || (path.is_dir() && has_parquet(&path))
    })
}
