//! What can go wrong between text and token ids.

use std::{io, path::PathBuf};

/// An error of a tokenizer or of a prompt template.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A file could not be read.
    #[error("cannot read {}: {source}; expected a Hugging Face model folder with tokenizer.json", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not the JSON that it should be.
    #[error("{}:{line}:{column}: not valid JSON ({message}); download the file again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Column, from 1.
        column: usize,
        /// The parser's words.
        message: String,
    },
    /// A JSON field holds something else than expected.
    #[error("{}: field `{field}`: expected {expected}, found {found}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field's name.
        field: String,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// `tokenizer.json` describes no tokenizer that can be built.
    #[error("{}: not a usable tokenizer: {message}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A text could not be turned into tokens.
    #[error("cannot tokenize the text that begins with {start:?}: {message}")]
    Encode {
        /// The first characters of the text.
        start: String,
        /// Why.
        message: String,
    },
    /// Tokens could not be turned into text.
    #[error("cannot decode {tokens} tokens: {message}")]
    Decode {
        /// How many there were.
        tokens: usize,
        /// Why.
        message: String,
    },
    /// A limit leaves no room for the special tokens.
    #[error("a limit of {limit} tokens has no room for text: the tokenizer adds {special} special tokens; use at least {}", special + 1)]
    LimitTooSmall {
        /// The limit asked for.
        limit: usize,
        /// How many tokens the tokenizer adds to a text.
        special: usize,
    },
    /// A folder comes without a chat template.
    #[error("{} has no chat template: neither chat_template.jinja nor `chat_template` in tokenizer_config.json; use the Gemma form, or an instruction-tuned model", folder.display())]
    NoChatTemplate {
        /// The model's folder.
        folder: PathBuf,
    },
    /// A chat template is no valid Jinja, or calls something that does not exist.
    #[error("{}: chat template, line {line}: {message}", path.display())]
    Template {
        /// The file that holds the template.
        path: PathBuf,
        /// Line within the template, from 1 (0 where unknown).
        line: usize,
        /// What is wrong.
        message: String,
    },
}
