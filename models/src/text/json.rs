//! JSON files of a model folder, with errors that say where.

use std::{fs, io, path::Path};

use serde_json::Value;

use super::TextError;

/// The text of `path`; `None` where there is no such file.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, TextError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(TextError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

/// The JSON object in `path`, empty where there is no such file: the side files of a tokenizer are optional.
pub(super) fn object_if_there(path: &Path) -> Result<serde_json::Map<String, Value>, TextError> {
    let Some(text) = read_if_there(path)? else {
        return Ok(serde_json::Map::new());
    };
    serde_json::from_str(&text).map_err(|error| TextError::Json {
        path: path.to_owned(),
        line: error.line(),
        column: error.column(),
        message: error.to_string(),
    })
}

/// A value as an error message shows it: short.
pub(super) fn shown(value: &Value) -> String {
    value.to_string().chars().take(80).collect()
}
