//! One source of settings: a TOML file, the environment, or the command line, as a partial table of the configuration.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use super::keys::{KEYS, closest_key, is_known};
use super::{ConfigError, TrainConfig};

/// Where settings come from, weakest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A published setting, or the defaults.
    Preset,
    /// The file given by `--config`.
    File(PathBuf),
    /// Variables `LANGPTUNE_…`.
    Environment,
    /// Flags.
    CommandLine,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Preset => formatter.write_str("the preset"),
            Self::File(path) => write!(formatter, "{}", path.display()),
            Self::Environment => formatter.write_str("the environment"),
            Self::CommandLine => formatter.write_str("the command line"),
        }
    }
}

/// The settings of one source, nested as in the TOML file.
#[derive(Debug, Clone, PartialEq)]
pub struct Layer {
    /// Where they come from.
    pub source: Source,
    /// The settings that the source gives.
    pub values: Table,
}

impl Layer {
    /// Nests flag values, named by flag (`lora_rank`, `task_response_length`), under the keys that they set.
    pub fn from_flags(source: Source, flags: &Table) -> Self {
        let mut values = Table::new();
        for entry in KEYS {
            if let Some(value) = flags.get(&entry.flag.replace(['.', '-'], "_")) {
                for key in entry.keys {
                    insert(&mut values, key, value.clone());
                }
            }
        }
        Self { source, values }
    }

    /// Reads a TOML file.
    ///
    /// # Errors
    /// A file that cannot be read, is no TOML, has a key that no configuration has, or a value of the wrong type.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        Self::from_toml(&text, path)
    }

    /// Reads TOML text; `path` is what errors call it.
    pub fn from_toml(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            line: error.span().map_or(1, |span| line_at(text, span.start)),
            message: error.message().to_owned(),
        };
        let spanned = DeTable::parse(text).map_err(syntax)?;
        let values: Table = toml::from_str(text).map_err(syntax)?;
        let mut leaves = Vec::new();
        collect_leaves(spanned.get_ref(), "", &mut leaves);
        for (key, offset) in leaves {
            let line = line_at(text, offset);
            if !is_known(&key) {
                let closest = closest_key(&key).map(str::to_owned);
                return Err(ConfigError::UnknownKey {
                    path: path.to_owned(),
                    line,
                    key,
                    closest,
                });
            }
            if let Some(value) = get(&values, &key) {
                check_type(&key, value).map_err(|message| ConfigError::WrongType {
                    path: path.to_owned(),
                    line,
                    key,
                    message,
                })?;
            }
        }
        Ok(Self {
            source: Source::File(path.to_owned()),
            values,
        })
    }
}

/// Puts `value` at the dotted `key`, making tables on the way.
pub(super) fn insert(table: &mut Table, key: &str, value: Value) {
    match key.split_once('.') {
        None => {
            table.insert(key.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = table.entry(first).or_insert_with(|| Value::Table(Table::new()));
            if let Value::Table(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

/// The value at the dotted `key`.
pub(super) fn get<'a>(table: &'a Table, key: &str) -> Option<&'a Value> {
    match key.split_once('.') {
        None => table.get(key),
        Some((first, rest)) => table.get(first)?.as_table().and_then(|inner| get(inner, rest)),
    }
}

/// Removes the value at the dotted `key`.
pub(super) fn remove(table: &mut Table, key: &str) {
    match key.split_once('.') {
        None => {
            table.remove(key);
        }
        Some((first, rest)) => {
            if let Some(inner) = table.get_mut(first).and_then(Value::as_table_mut) {
                remove(inner, rest);
            }
        }
    }
}

/// Lays `over` on `under`: tables are merged, anything else is replaced.
pub(super) fn overlay(under: &mut Table, over: &Table) {
    for (key, value) in over {
        match (under.get_mut(key), value) {
            (Some(Value::Table(under)), Value::Table(over)) => overlay(under, over),
            _ => {
                under.insert(key.clone(), value.clone());
            }
        }
    }
}

fn collect_leaves(table: &DeTable<'_>, prefix: &str, leaves: &mut Vec<(String, usize)>) {
    for (name, value) in table.iter() {
        let key = if prefix.is_empty() {
            name.get_ref().to_string()
        } else {
            format!("{prefix}.{}", name.get_ref())
        };
        match value.get_ref() {
            // A table under an unknown name is reported as a whole, by the name that is wrong.
            DeValue::Table(inner) if is_section(&key) => collect_leaves(inner, &key, leaves),
            _ => leaves.push((key, name.span().start)),
        }
    }
}

fn is_section(key: &str) -> bool {
    let prefix = format!("{key}.");
    KEYS.iter()
        .flat_map(|entry| entry.keys)
        .any(|known| known.starts_with(&prefix))
}

fn line_at(text: &str, offset: usize) -> usize {
    text.as_bytes()
        .iter()
        .take(offset)
        .filter(|byte| **byte == b'\n')
        .count()
        + 1
}

/// Whether `value` can stand at `key`, tried in a complete configuration, so that the types stand in one place.
fn check_type(key: &str, value: &Value) -> Result<(), String> {
    let mut table = super::resolve::complete_example();
    if key == "lm.trainable.num_layers_unfrozen" {
        insert(&mut table, "lm.trainable.kind", Value::String("last-n".to_owned()));
        insert(&mut table, key, Value::Integer(1));
    }
    if key == "lm.trainable.kind" {
        // The kind alone decides which keys must stand beside it, which is checked when layers are merged.
        let kind = super::TrainableKind::deserialize(value.clone());
        return kind
            .map(|_| ())
            .map_err(|error: toml::de::Error| error.message().to_owned());
    }
    insert(&mut table, key, value.clone());
    table
        .try_into::<TrainConfig>()
        .map(|_| ())
        .map_err(|error| error.message().to_owned())
}
