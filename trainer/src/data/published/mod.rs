//! The layout in which the authors of LangPTune publish prepared data: items and sessions as Parquet files that Python's
//! `datasets` reads. `docs/dataset.md` describes it.

mod catalogue;
mod columns;
mod error;
mod history;
mod layout;
mod read;
mod sessions;
mod tokens;
mod write;

pub use error::PublishedError;
pub(super) use read::{TextModels, read};
pub use write::{Export, ExportedFile};

/// Names of columns. Other columns than these are not read.
mod column {
    pub(super) const INDEX: &str = "index";
    pub(super) const ITEM_TEXT: &str = "item_descriptions";
    pub(super) const ITEM_TOKENS: &str = "item_description_tokens";
    pub(super) const HISTORY: &str = "in_sess_item_idxs";
    pub(super) const TARGETS: &str = "out_sess_item_idxs";
    pub(super) const DENSE_HISTORY: &str = "dense_in_sesses";
    pub(super) const DENSE_TARGETS: &str = "dense_out_sesses";
    pub(super) const PROMPT: &str = "sess_descriptions";
    pub(super) const GEMMA_TOKENS: &str = "sess_description_gemma";
    pub(super) const LLAMA_TOKENS: &str = "sess_description_llama";
    pub(super) const REFERENCE: &str = "ref_responses";
    pub(super) const REFERENCE_TOKENS: &str = "ref_response_mxbai";

    /// One of these makes a file one of items.
    pub(super) const OF_ITEMS: [&str; 2] = [ITEM_TEXT, ITEM_TOKENS];
    /// One of these makes a file one of sessions.
    pub(super) const OF_SESSIONS: [&str; 5] = [HISTORY, TARGETS, PROMPT, GEMMA_TOKENS, LLAMA_TOKENS];
}

/// Names of the splits: files of each are found by them, and written under them.
const SPLITS: [&str; 3] = ["train", "val", "test"];

/// The text of the token that the published scripts add for padding. Decoded prompts may begin with it.
const PAD: &str = "[PAD]";

#[cfg(test)]
mod error_tests;
#[cfg(test)]
mod tests;
