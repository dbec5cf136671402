//! Models and datasets named by a folder or by a Hugging Face hub id.
//!
//! A folder is used as it is. An id is looked up in the cache that Hugging Face's own tools share, and downloaded into
//! it when something is missing. The usual variables hold: `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT`,
//! `HF_HUB_OFFLINE`.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use hf_hub::api::sync::{Api, ApiBuilder, ApiError, ApiRepo};
use hf_hub::{Cache, Repo, RepoType};

mod dataset;

pub use dataset::dataset_id;

/// The branch that an id without a revision means.
const DEFAULT_REVISION: &str = "main";

/// What a model folder may have beside its weights, as far as we read it.
const SMALL_FILES: [&str; 10] = [
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "modules.json",
    "config_sentence_transformers.json",
    "1_Pooling/config.json",
    "model.safetensors.index.json",
];

/// What is looked for on the hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A model.
    Model,
    /// A dataset.
    Dataset,
}

impl Kind {
    /// Where the hub shows it, before its id.
    fn address(self) -> &'static str {
        match self {
            Self::Model => "https://huggingface.co",
            Self::Dataset => "https://huggingface.co/datasets",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Model => "model",
            Self::Dataset => "dataset",
        })
    }
}

/// Why a model or dataset could not be had.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A path that leads nowhere.
    #[error("there is no model folder {}: give a folder with config.json, tokenizer.json and safetensors, or a hub id such as owner/name", path.display())]
    NoFolder {
        /// What was given.
        path: PathBuf,
    },
    /// The hub was not asked, because `HF_HUB_OFFLINE` says so.
    #[error("the {kind} {id} is not (whole) in the cache {}, and HF_HUB_OFFLINE forbids to download it: give a folder, or unset HF_HUB_OFFLINE", cache.display())]
    Offline {
        /// What was looked for.
        kind: Kind,
        /// The hub id.
        id: String,
        /// Where it was looked for.
        cache: PathBuf,
    },
    /// The hub could not be reached.
    #[error("the {kind} {id} is neither a folder nor in the cache {}, and cannot be downloaded ({reason}): give a folder, or try again with a connection", cache.display())]
    Unreachable {
        /// What was looked for.
        kind: Kind,
        /// The hub id.
        id: String,
        /// Where it was looked for.
        cache: PathBuf,
        /// What the client said.
        reason: String,
    },
    /// The hub knows no such model, dataset or revision.
    #[error("the hub has no {kind} {id} at revision {revision} (or it is private): check the name, or give a folder")]
    Unknown {
        /// What was looked for.
        kind: Kind,
        /// The hub id.
        id: String,
        /// The branch, tag or commit.
        revision: String,
    },
    /// It is gated or private.
    #[error(
        "the hub refuses the {kind} {id}: accept its licence on {}/{id}, then set HF_TOKEN to a token of that account",
        kind.address()
    )]
    Refused {
        /// What was looked for.
        kind: Kind,
        /// The hub id.
        id: String,
    },
    /// The model has no file that is needed.
    #[error(
        "the model {id} has no {file} on the hub: only Hugging Face models with a fast tokenizer and safetensors can be read"
    )]
    Incomplete {
        /// The hub id.
        id: String,
        /// What is missing.
        file: &'static str,
    },
    /// The dataset has no Parquet file.
    #[error("the dataset {id} has no Parquet file on the hub: only sets in the published layout can be read")]
    NoParquet {
        /// The hub id.
        id: String,
    },
    /// The cache cannot be used.
    #[error("cannot use the cache: {reason}: set HF_HOME to a folder that can be written")]
    Cache {
        /// What failed.
        reason: String,
    },
}

/// The folder of a model: `id_or_dir` itself if it is one, else that of the hub's model of this name in the cache,
/// downloaded when it is not there. `revision` is a branch, tag or commit (`main` by default); folders have none.
///
/// # Errors
/// Says what was looked for where, and what to do.
pub fn resolve_model(id_or_dir: &str, revision: Option<&str>) -> Result<PathBuf, HubError> {
    let path = Path::new(id_or_dir);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    if !is_hub_id(id_or_dir) {
        return Err(HubError::NoFolder { path: path.to_owned() });
    }
    Hub::from_env()?.resolve(id_or_dir, revision.unwrap_or(DEFAULT_REVISION))
}

/// `name` or `owner/name`, and nothing that reads like a path.
fn is_hub_id(text: &str) -> bool {
    let part = |part: &str| {
        let allowed = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '-' | '_' | '.');
        !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
    };
    text.split('/').count() <= 2 && text.split('/').all(part)
}

/// The hub as the environment describes it.
#[derive(Debug, Clone)]
pub struct Hub {
    /// The folder with `models--owner--name`.
    pub cache: PathBuf,
    /// The hub's address, if it is not the usual one.
    pub endpoint: Option<String>,
    /// What opens gated models.
    pub token: Option<String>,
    /// Whether the hub may not be asked.
    pub offline: bool,
}

impl Hub {
    /// Reads `HF_HOME`, `HF_HUB_CACHE`, `HF_TOKEN`, `HF_ENDPOINT` and `HF_HUB_OFFLINE`.
    pub fn from_env() -> Result<Self, HubError> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let home = match variable("HF_HOME") {
            Some(home) => PathBuf::from(home),
            None => std::env::home_dir()
                .ok_or_else(|| HubError::Cache {
                    reason: "there is no home folder".to_owned(),
                })?
                .join(".cache/huggingface"),
        };
        let stored_token = || {
            fs::read_to_string(home.join("token"))
                .ok()
                .map(|token| token.trim().to_owned())
        };
        let offline = variable("HF_HUB_OFFLINE")
            .is_some_and(|value| matches!(value.to_lowercase().as_str(), "1" | "true" | "yes" | "on"));
        Ok(Self {
            cache: variable("HF_HUB_CACHE").map_or_else(|| home.join("hub"), PathBuf::from),
            endpoint: variable("HF_ENDPOINT"),
            token: variable("HF_TOKEN")
                .or_else(stored_token)
                .filter(|token| !token.is_empty()),
            offline,
        })
    }

    /// The snapshot folder of a model, downloaded if it is not whole in the cache.
    pub fn resolve(&self, id: &str, revision: &str) -> Result<PathBuf, HubError> {
        if let Some(folder) = self.cached(id, revision) {
            return Ok(folder);
        }
        if self.offline {
            return Err(HubError::Offline {
                kind: Kind::Model,
                id: id.to_owned(),
                cache: self.cache.clone(),
            });
        }
        self.download(id, revision)
    }

    /// The snapshot folder of a model, if all that is needed is in the cache.
    pub fn cached(&self, id: &str, revision: &str) -> Option<PathBuf> {
        let folder = self.snapshot(&Repo::model(id.to_owned()), revision);
        is_whole(&folder).then_some(folder)
    }

    /// Where the cache has the files of a revision, if it has any.
    fn snapshot(&self, repository: &Repo, revision: &str) -> PathBuf {
        let place = self.cache.join(repository.folder_name());
        let commit = fs::read_to_string(place.join("refs").join(revision));
        let commit = commit.map_or_else(|_| revision.to_owned(), |commit| commit.trim().to_owned());
        place.join("snapshots").join(commit)
    }

    fn api(&self) -> Result<Api, ApiError> {
        let mut builder = ApiBuilder::from_cache(Cache::new(self.cache.clone())).with_token(self.token.clone());
        if let Some(endpoint) = &self.endpoint {
            builder = builder.with_endpoint(endpoint.trim_end_matches('/').to_owned());
        }
        builder.build()
    }

    /// Makes a revision stand for a commit whose files have come, and returns their folder.
    fn point(&self, repository: Repo, commit: &str) -> Result<PathBuf, HubError> {
        let cache = Cache::new(self.cache.clone()).repo(repository);
        cache.create_ref(commit).map_err(|error| HubError::Cache {
            reason: error.to_string(),
        })?;
        Ok(cache.pointer_path(commit))
    }

    fn download(&self, id: &str, revision: &str) -> Result<PathBuf, HubError> {
        let failed = |error: &ApiError| self.explain(Kind::Model, id, revision, error);
        let api = self.api().map_err(|error| failed(&error))?;
        let repository = |revision: &str| Repo::with_revision(id.to_owned(), RepoType::Model, revision.to_owned());
        let info = api.repo(repository(revision)).info().map_err(|error| failed(&error))?;
        // A branch may move while its files come: they are taken from the commit that it names now.
        let pinned: ApiRepo = api.repo(repository(&info.sha));
        let names: Vec<&str> = info.siblings.iter().map(|file| file.rfilename.as_str()).collect();
        require_files(id, &names)?;
        for name in names.iter().filter(|name| is_wanted(name)) {
            pinned.get(name).map_err(|error| failed(&error))?;
        }
        self.point(repository(revision), &info.sha)
    }

    fn explain(&self, kind: Kind, id: &str, revision: &str, error: &ApiError) -> HubError {
        let (id, reason) = (id.to_owned(), error.to_string());
        let status = |code: &str| matches!(error, ApiError::RequestError(_)) && reason.contains(code);
        match error {
            _ if status("status: 404") => HubError::Unknown {
                kind,
                id,
                revision: revision.to_owned(),
            },
            // The hub answers 401 for what does not exist as well as for what it does not show.
            _ if status("status: 401") && self.token.is_some() => HubError::Unknown {
                kind,
                id,
                revision: revision.to_owned(),
            },
            _ if status("status: 401") || status("status: 403") => HubError::Refused { kind, id },
            ApiError::IoError(_) | ApiError::LockAcquisition(_) | ApiError::InvalidResume => HubError::Cache { reason },
            _ => HubError::Unreachable {
                kind,
                id,
                cache: self.cache.clone(),
                reason,
            },
        }
    }
}

/// Whether a file of the hub is one that we read. Names come from elsewhere: only these forms are written to disk.
fn is_wanted(name: &str) -> bool {
    SMALL_FILES.contains(&name) || is_weights(name)
}

/// `model.safetensors` or `model-00001-of-00002.safetensors`.
fn is_weights(name: &str) -> bool {
    let middle = name
        .strip_prefix("model")
        .and_then(|rest| rest.strip_suffix(".safetensors"));
    middle.is_some_and(|middle| {
        let parts: Vec<&str> = middle.split('-').collect();
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        middle.is_empty() || matches!(parts[..], ["", part, "of", parts] if number(part) && number(parts))
    })
}

fn require_files(id: &str, names: &[&str]) -> Result<(), HubError> {
    for file in ["config.json", "tokenizer.json"] {
        if !names.contains(&file) {
            return Err(HubError::Incomplete {
                id: id.to_owned(),
                file,
            });
        }
    }
    match names.iter().any(|name| is_weights(name)) {
        true => Ok(()),
        false => Err(HubError::Incomplete {
            id: id.to_owned(),
            file: "model.safetensors",
        }),
    }
}

/// Whether a snapshot has configuration, tokenizer, all shards, and the pooling that its modules name.
fn is_whole(folder: &Path) -> bool {
    let has = |name: &str| folder.join(name).exists();
    let weights = match fs::read_to_string(folder.join("model.safetensors.index.json")) {
        Ok(index) => shards(&index).is_some_and(|shards| shards.iter().all(|shard| has(shard))),
        Err(_) => has("model.safetensors"),
    };
    let modules = fs::read_to_string(folder.join("modules.json")).unwrap_or_default();
    let pooling = !modules.contains("\"1_Pooling\"") || has("1_Pooling/config.json");
    has("config.json") && has("tokenizer.json") && weights && pooling
}

fn shards(index: &str) -> Option<Vec<String>> {
    let index: serde_json::Value = serde_json::from_str(index).ok()?;
    let map = index.get("weight_map")?.as_object()?;
    map.values()
        .map(|shard| shard.as_str().filter(|shard| is_weights(shard)).map(str::to_owned))
        .collect()
}

#[cfg(test)]
mod tests;
