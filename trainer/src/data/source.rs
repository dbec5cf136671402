//! Where a dataset is: a folder of ours, or published sets in folders or on the hub.

use std::path::{Path, PathBuf};

use super::{
    DataError, Dataset, TemplateForm,
    manifest::MANIFEST_FILE,
    published::{self, TextModels},
};
use crate::{
    config::{PromptTemplate, TrainConfig},
    hub::{self, Hub, HubError, resolve_model},
};

/// A dataset by its place, and the models for whose tokenizers it is opened.
///
/// A folder of `langptune prepare` has token ids of its own. Sets in the published layout are tokenized when they are opened,
/// for the models named here; without a language model users have no prompt tokens, without an embedder items have no tokens.
#[derive(Debug, Clone)]
pub struct DatasetSource {
    /// A folder of `langptune prepare`, or of published sessions, or the hub id (`owner/name` or `owner/name@revision`) of such
    /// a set.
    pub dataset: PathBuf,
    /// Folder or hub id of published items; by default they are where the sessions are.
    pub items: Option<PathBuf>,
    /// The language model.
    pub lm: Option<ModelName>,
    /// The embedder.
    pub embedder: Option<ModelName>,
    /// How prompts of a published set are put to the language model; by default as the set has them.
    pub template: Option<TemplateForm>,
}

/// A model by folder or hub id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelName {
    /// Folder or hub id.
    pub id_or_dir: String,
    /// Branch, tag or commit of a hub id.
    pub revision: Option<String>,
}

impl From<&Path> for ModelName {
    fn from(folder: &Path) -> Self {
        Self {
            id_or_dir: folder.to_string_lossy().into_owned(),
            revision: None,
        }
    }
}

impl ModelName {
    fn resolve(&self) -> Result<PathBuf, HubError> {
        resolve_model(&self.id_or_dir, self.revision.as_deref())
    }
}

impl DatasetSource {
    /// The dataset of a run.
    pub fn of_config(config: &TrainConfig) -> Self {
        let name = |model: &String, revision: &Option<String>| ModelName {
            id_or_dir: model.clone(),
            revision: revision.clone(),
        };
        let (lm, embedder) = (&config.lm, &config.embedder);
        Self {
            dataset: config.run.dataset.clone(),
            items: config.run.item_dataset.clone(),
            // A baseline without a language model names none.
            lm: (!lm.model.is_empty()).then(|| name(&lm.model, &lm.revision)),
            embedder: Some(name(&embedder.model, &embedder.revision)),
            template: lm.template.map(|template| match template {
                PromptTemplate::Gemma => TemplateForm::Gemma,
                PromptTemplate::Chat => TemplateForm::Chat,
            }),
        }
    }

    /// Reads the dataset; a hub id is downloaded into the cache of Hugging Face's own tools.
    ///
    /// # Errors
    /// Names the file, and the row and column where one is wrong.
    pub fn open(&self) -> Result<Dataset, DataError> {
        let sessions = folder_of(&self.dataset)?;
        let own = sessions.join(MANIFEST_FILE).is_file();
        let items = match &self.items {
            None => sessions.clone(),
            Some(items) if *items == self.dataset => sessions.clone(),
            Some(items) if own => {
                return Err(DataError::OwnItems {
                    path: sessions,
                    items: items.clone(),
                });
            }
            Some(items) => folder_of(items)?,
        };
        if own {
            return Dataset::open(&sessions);
        }
        let folder = |name: &Option<ModelName>| name.as_ref().map(ModelName::resolve).transpose();
        let models = TextModels {
            lm: folder(&self.lm)?,
            embedder: folder(&self.embedder)?,
            template: self.template,
        };
        published::read(&sessions, &items, &models)
    }
}

/// The folder itself, or the hub's set in the cache.
fn folder_of(place: &Path) -> Result<PathBuf, DataError> {
    if place.is_dir() {
        return Ok(place.to_owned());
    }
    match place.to_str().and_then(hub::dataset_id) {
        Some((id, revision)) => Ok(Hub::from_env()?.resolve_dataset(id, revision)?),
        None => Err(DataError::NoDataset { path: place.to_owned() }),
    }
}
