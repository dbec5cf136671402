//! What stands in a model folder beside the parameters.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::ModelError;
use crate::files::{Dtype, write_atomically};

/// What a model folder holds besides parameters and config: copied as it is.
const COMPANIONS: [&str; 10] = [
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "generation_config.json",
    "chat_template.jinja",
    "tokenizer.model",
    "vocab.txt",
    "modules.json",
    "sentence_bert_config.json",
];

pub(crate) fn create(folder: &Path) -> Result<(), ModelError> {
    fs::create_dir_all(folder).map_err(|source| ModelError::io(folder, source))
}

/// Copies tokenizer and settings files that are there.
pub(crate) fn copy_companions(from: &Path, to: &Path) -> Result<(), ModelError> {
    for name in COMPANIONS {
        let source = from.join(name);
        if source.is_file() && from != to {
            fs::copy(&source, to.join(name)).map_err(|error| ModelError::io(&source, error))?;
        }
    }
    Ok(())
}

/// Copies `config.json` with the dtype that the parameters are now stored in, and `changes` to its fields.
pub(crate) fn write_config(from: &Path, to: &Path, dtype: Dtype, changes: &[(&str, Value)]) -> Result<(), ModelError> {
    let path = from.join("config.json");
    let text = fs::read_to_string(&path).map_err(|source| ModelError::io(&path, source))?;
    let mut value: Value = serde_json::from_str(&text).map_err(|error| ModelError::config(&path, error.to_string()))?;
    if let Some(fields) = value.as_object_mut() {
        for name in ["dtype", "torch_dtype"] {
            fields.insert(name.to_owned(), json!(dtype.torch_name()));
        }
        for (name, value) in changes {
            fields.insert((*name).to_owned(), value.clone());
        }
    }
    write_json(&to.join("config.json"), &value)
}

pub(crate) fn write_json(path: &Path, value: &Value) -> Result<(), ModelError> {
    write_atomically(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}
