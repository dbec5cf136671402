//! From raw reviews to a dataset, and the dataset in memory.
//!
//! [`Preparation`] is `langptune prepare`; [`Dataset`] is what training and evaluation read, from the place that [`DatasetSource`]
//! names; [`Export`] is `langptune export-dataset`. The files are described in
//! `docs/dataset.md`.

mod catalogue;
mod dataset;
mod error;
mod intern;
mod lines;
mod manifest;
mod number;
mod output;
mod parquet_files;
mod prepare;
mod prompt;
mod published;
mod records;
#[cfg(test)]
mod reference_tests;
mod reviews;
mod sessions;
mod source;
mod split;

pub use dataset::{Dataset, Item, User};
pub use error::{Counts, DataError, LineProblem};
pub(crate) use manifest::MANIFEST_FILE;
pub use manifest::{DataFile, FORMAT, FORMAT_VERSION, Manifest, Rules, Source, Stats, TemplateForm, TokenizerSource};
pub(crate) use output::UnfinishedFolder;
pub use prepare::Preparation;
pub use prompt::FILM_INSTRUCTION;
pub use published::{Export, ExportedFile, PublishedError};
pub use source::{DatasetSource, ModelName};
