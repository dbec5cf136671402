//! What can go wrong with a model's files and inputs.

use std::path::PathBuf;

/// An error of this crate's model half; every variant says where it happened.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// A file could not be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A JSON file does not parse, or lacks a field.
    #[error("{}: {message}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What was expected and found.
        message: String,
    },
    /// The folder's model is of a kind this crate does not know.
    #[error("{}: model type `{found}` is not supported here; supported are {supported}", path.display())]
    UnknownArchitecture {
        /// The config file.
        path: PathBuf,
        /// Its `model_type`.
        found: String,
        /// What would have been accepted.
        supported: &'static str,
    },
    /// A safetensors file is broken or truncated.
    #[error("{}: not a whole safetensors file ({message}); fetch or copy it again", path.display())]
    Safetensors {
        /// The file.
        path: PathBuf,
        /// The parser's word.
        message: String,
    },
    /// Parameters that the model needs are in none of the folder's files.
    #[error("{}: {} of the model's {expected} parameters are missing: {}", path.display(), names.len(), shorten(names))]
    MissingParameters {
        /// The folder.
        path: PathBuf,
        /// The missing names, sorted.
        names: Vec<String>,
        /// How many the model has.
        expected: usize,
    },
    /// Parameters in the files that the model has no place for.
    #[error("{}: {} parameters have no place in the model that config.json describes: {}", path.display(), names.len(), shorten(names))]
    UnexpectedParameters {
        /// The folder.
        path: PathBuf,
        /// The names, sorted.
        names: Vec<String>,
    },
    /// A parameter's shape differs from what config.json implies.
    #[error("{}: parameter `{name}` has shape {found:?}, config.json implies {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// Implied by the config.
        expected: Vec<usize>,
        /// In the file.
        found: Vec<usize>,
    },
    /// A parameter's element type cannot be computed with.
    #[error("{}: parameter `{name}` has dtype {found}; F32, F16 and BF16 can be read", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The parameter.
        name: String,
        /// In the file.
        found: String,
    },
    /// A token id that the embedding has no row for.
    #[error("{place}: token id {token} at index {index} is outside the model's vocabulary of {vocabulary}")]
    Token {
        /// Which sequence.
        place: String,
        /// The id.
        token: u32,
        /// Its index in the sequence.
        index: usize,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// The tokenizer has ids that the embedding has no row for.
    #[error(
        "{}: the tokenizer has ids up to {largest}, the model's embedding only {vocabulary} rows; these files do not belong together",
        path.display()
    )]
    TokenizerTooLarge {
        /// The model's folder.
        path: PathBuf,
        /// The tokenizer's largest id.
        largest: usize,
        /// Rows of the embedding.
        vocabulary: usize,
    },
    /// An input that the model cannot take.
    #[error("{0}")]
    Input(String),
    /// A GPU, its driver or its libraries refused something.
    #[error("{what}: {message}")]
    Gpu {
        /// What was tried.
        what: String,
        /// What was said.
        message: String,
    },
    /// A GPU has too little memory.
    #[error("the GPU has {free} bytes of memory left, {wanted} are needed: lower the batch size")]
    GpuMemory {
        /// Bytes that were asked for.
        wanted: usize,
        /// Bytes that are free.
        free: usize,
    },
}

impl ModelError {
    /// An I/O error at `path`.
    pub fn io(path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::Io {
            path: path.into(),
            source,
        }
    }

    /// A config error at `path`.
    pub fn config(path: impl Into<PathBuf>, message: impl Into<String>) -> Self {
        Self::Config {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// The first few names and how many more there are.
fn shorten(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names
        .iter()
        .take(SHOWN)
        .map(|name| format!("`{name}`"))
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}
