//! What a report says about the run's models, settings and data.

use std::collections::BTreeMap;
use std::path::Path;

use eval_core::report::{self, Interaction, Model};
use models::{ParameterSpec, Trainable};
use toml::Value;

use crate::TrainError;
use crate::config::{ConfigError, TrainConfig};
use crate::data::{Dataset, Item, User};

/// Settings that say where things lay on the machine that trained: no part of a report.
const PLACES: [&str; 8] = [
    "run.dataset",
    "run.item_dataset",
    "run.output",
    "run.trace",
    "lm.model",
    "lm.output_dir",
    "embedder.model",
    "embedder.output_dir",
];

/// Describes a model by its configured `name` (a folder or hub id), its `folder` and its parameters.
pub fn describe_model(name: &str, folder: &Path, model: &dyn Trainable) -> Model {
    Model {
        name: if Path::new(name).is_dir() {
            last_part(Path::new(name))
        } else {
            name.to_owned()
        },
        architecture: architecture(folder).unwrap_or_default(),
        parameters: model.scalars() as u64,
        trained_parameters: model.trained().iter().map(ParameterSpec::scalars).sum::<usize>() as u64,
    }
}

/// As `config.json` names it; an adapter's folder has none.
fn architecture(folder: &Path) -> Option<String> {
    let text = std::fs::read_to_string(folder.join("config.json")).ok()?;
    let config: serde_json::Value = serde_json::from_str(&text).ok()?;
    Some(config["architectures"][0].as_str()?.to_owned())
}

fn last_part(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(super) fn dataset(config: &TrainConfig, dataset: &Dataset) -> report::Dataset {
    report::Dataset {
        name: last_part(&config.run.dataset),
        split: "val".to_owned(),
        items: dataset.items.len(),
        train_users: dataset.train.len(),
        val_users: dataset.val.len(),
        test_users: dataset.test.len(),
    }
}

/// All settings but places, as `rl.kl_coef` → `0.2`.
pub(super) fn settings(config: &TrainConfig) -> Result<BTreeMap<String, String>, TrainError> {
    let value = Value::try_from(config).map_err(|source| ConfigError::Write {
        reason: source.to_string(),
    })?;
    let mut settings = BTreeMap::new();
    flatten("", &value, &mut settings);
    PLACES.iter().for_each(|place| {
        settings.remove(*place);
    });
    Ok(settings)
}

fn flatten(key: &str, value: &Value, settings: &mut BTreeMap<String, String>) {
    match value {
        Value::Table(table) => {
            for (name, value) in table {
                let key = if key.is_empty() {
                    name.clone()
                } else {
                    format!("{key}.{name}")
                };
                flatten(&key, value, settings);
            }
        }
        Value::String(text) => {
            settings.insert(key.to_owned(), text.clone());
        }
        other => {
            settings.insert(key.to_owned(), other.to_string());
        }
    }
}

pub(super) fn item(item: &Item) -> report::Item {
    report::Item {
        id: item.id.clone(),
        title: item.title.clone(),
        text: item.text.clone(),
        train_interactions: u64::from(item.train_count),
    }
}

pub(super) fn user(user: &User, dataset: &Dataset) -> report::User {
    let history = user.history.iter().zip(&user.ratings).zip(&user.reviews);
    let reference = user
        .history
        .last()
        .map(|&item| dataset.items[item as usize].text.clone());
    report::User {
        id: user.id.clone(),
        history: history
            .map(|((&item, &rating), review)| Interaction {
                item,
                rating: Some(f64::from(rating)),
                review: Some(review.clone()),
            })
            .collect(),
        targets: user.targets.clone(),
        prompt: Some(user.prompt.clone()),
        reference_profile: reference,
    }
}
