//! Which tokens begin, end and pad a text, according to the files beside `tokenizer.json`.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    TextError,
    json::{object_if_there, shown},
};

/// Special tokens by their text, and the end tokens that generation knows by id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SpecialNames {
    pub(super) bos: Option<String>,
    pub(super) eos: Option<String>,
    pub(super) pad: Option<String>,
    pub(super) unk: Option<String>,
    /// `eos_token_id` of generation_config.json: one id or several.
    pub(super) generation_eos: Vec<u32>,
}

impl SpecialNames {
    /// Reads `tokenizer_config.json`, then `special_tokens_map.json`, then the defaults of the tokenizer's class.
    pub(super) fn read(folder: &Path) -> Result<Self, TextError> {
        let config_path = folder.join("tokenizer_config.json");
        let config = object_if_there(&config_path)?;
        let map_path = folder.join("special_tokens_map.json");
        let map = object_if_there(&map_path)?;
        let class = config
            .get("tokenizer_class")
            .and_then(Value::as_str)
            .unwrap_or_default();
        let named = |field: &str| -> Result<Option<String>, TextError> {
            // A token that the configuration sets to null is absent, whatever the class would say.
            if config.contains_key(field) {
                return token(&config, &config_path, field);
            }
            if map.contains_key(field) {
                return token(&map, &map_path, field);
            }
            Ok(class_default(class, field).map(str::to_owned))
        };
        Ok(Self {
            bos: named("bos_token")?,
            eos: named("eos_token")?,
            pad: named("pad_token")?,
            unk: named("unk_token")?,
            generation_eos: generation_eos(folder)?,
        })
    }
}

/// A token is written as its text, or as an object with its text under `content`.
fn token(object: &Map<String, Value>, path: &Path, field: &str) -> Result<Option<String>, TextError> {
    match object.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(value) => match value.get("content").and_then(Value::as_str) {
            Some(text) => Ok(Some(text.to_owned())),
            None => Err(TextError::Field {
                path: path.to_owned(),
                field: field.to_owned(),
                expected: "a token's text, or an object with `content`",
                found: shown(value),
            }),
        },
    }
}

/// What transformers' tokenizer classes assume where the files are silent.
fn class_default(class: &str, field: &str) -> Option<&'static str> {
    match (class.trim_end_matches("Fast"), field) {
        ("BertTokenizer", "pad_token") => Some("[PAD]"),
        ("BertTokenizer", "unk_token") => Some("[UNK]"),
        ("LlamaTokenizer", "bos_token") => Some("<s>"),
        ("LlamaTokenizer", "eos_token") => Some("</s>"),
        ("LlamaTokenizer" | "GemmaTokenizer", "unk_token") => Some("<unk>"),
        ("GemmaTokenizer", "bos_token") => Some("<bos>"),
        ("GemmaTokenizer", "eos_token") => Some("<eos>"),
        ("GemmaTokenizer", "pad_token") => Some("<pad>"),
        _ => None,
    }
}

fn generation_eos(folder: &Path) -> Result<Vec<u32>, TextError> {
    let path = folder.join("generation_config.json");
    let config = object_if_there(&path)?;
    let id = |value: &Value| -> Result<u32, TextError> {
        let number = value.as_u64().and_then(|number| number.try_into().ok());
        number.ok_or_else(|| TextError::Field {
            path: path.clone(),
            field: "eos_token_id".to_owned(),
            expected: "a token id or a list of token ids",
            found: shown(value),
        })
    };
    match config.get("eos_token_id") {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(values)) => values.iter().map(id).collect(),
        Some(value) => Ok(vec![id(value)?]),
    }
}
