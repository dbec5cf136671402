//! What can go wrong between raw reviews and a dataset.

use std::{fmt, io, path::PathBuf};

use models::text::TextError;

use super::PublishedError;
use crate::hub::HubError;

/// An error of preparing or reading a dataset.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A file could not be read, or its compressed stream is damaged.
    #[error("cannot read {}{}: {source}", path.display(), after(*line))]
    Read {
        /// The file.
        path: PathBuf,
        /// The last line that could be read; 0 where none was.
        line: u32,
        /// Why.
        source: io::Error,
    },
    /// A line of a raw file is not what it should be.
    #[error("{}:{line}: {problem}; mend the line, or pass --skip-bad-lines to leave such lines out", path.display())]
    BadLine {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: u32,
        /// What is wrong with it.
        problem: LineProblem,
    },
    /// Two lines of the metadata describe the same item.
    #[error("{}:{line}: item {item:?} was described before, in line {first_line}; keep one line an item", path.display())]
    DuplicateItem {
        /// The metadata file.
        path: PathBuf,
        /// The item's `parent_asin`.
        item: String,
        /// The line that described it first, from 1.
        first_line: u32,
        /// The line that repeats it.
        line: u32,
    },
    /// A raw file has more lines than can be numbered.
    #[error("{}: more than {} lines; split the file", path.display(), u32::MAX)]
    TooManyLines {
        /// The file.
        path: PathBuf,
    },
    /// A file changed between two passes over it.
    #[error("{}: line {line} was there in the first pass and is not now; keep the file as it is while it is read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// The line that disappeared, from 1.
        line: u32,
    },
    /// A filter left nothing over.
    #[error("nothing is left after the filter \"{filter}\"; before it: {before}; {advice}")]
    NothingLeft {
        /// The filter, in words.
        filter: String,
        /// What there was before.
        before: Counts,
        /// What may help.
        advice: &'static str,
    },
    /// An option has an impossible value.
    #[error("--{option} {found}: expected {expected}")]
    Option {
        /// The option's name.
        option: &'static str,
        /// The value given.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The output folder holds something already.
    #[error("{} is not empty; choose another --output, or pass --overwrite to replace it", path.display())]
    OutputExists {
        /// The folder.
        path: PathBuf,
    },
    /// A folder or file could not be written.
    #[error("cannot write {}: {source}; choose an --output that you may write to and that has room", path.display())]
    Write {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A Parquet file could not be written or read.
    #[error("{}: {message}; prepare the dataset again if the file is damaged", path.display())]
    Parquet {
        /// The file.
        path: PathBuf,
        /// Why.
        message: String,
    },
    /// A dataset's manifest is missing or unreadable.
    #[error("{}: {message}; expected the folder that `langptune prepare` wrote", path.display())]
    Manifest {
        /// The manifest.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A dataset was written in another version of the format.
    #[error("{}: dataset format version {found}, this program reads version {expected}; prepare the dataset again", path.display())]
    Version {
        /// The manifest.
        path: PathBuf,
        /// The version found.
        found: u64,
        /// The version known.
        expected: u64,
    },
    /// A file holds another number of rows than the manifest says.
    #[error("{}: {found} rows, but the manifest says {expected}; prepare the dataset again", path.display())]
    RowCount {
        /// The file.
        path: PathBuf,
        /// Rows found.
        found: usize,
        /// Rows expected.
        expected: usize,
    },
    /// A row of a dataset is inconsistent.
    #[error("{}, row {row}: {problem}; prepare the dataset again", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Row, from 0.
        row: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// A place that leads nowhere.
    #[error("there is no dataset folder {}: give a folder that `langptune prepare` wrote, one with published Parquet files, or a hub id such as owner/name", path.display())]
    NoDataset {
        /// What was given.
        path: PathBuf,
    },
    /// A prepared dataset and other items.
    #[error("{}: a dataset of `langptune prepare` has its own items; leave out --task.item-dataset (or --item-dataset) {}", path.display(), items.display())]
    OwnItems {
        /// The dataset.
        path: PathBuf,
        /// The items that were given too.
        items: PathBuf,
    },
    /// Files in the published layout.
    #[error(transparent)]
    Published(#[from] PublishedError),
    /// A dataset or a tokenizer that the hub does not give.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// A tokenizer or a chat template.
    #[error(transparent)]
    Text(#[from] TextError),
}

/// What is wrong with a line of a raw file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    /// No JSON at all.
    #[error("expected a JSON object, found broken JSON ({message}) in {start:?}")]
    NotJson {
        /// The parser's words.
        message: String,
        /// How the line begins.
        start: String,
    },
    /// JSON, but no object.
    #[error("expected a JSON object, found {found}")]
    NotAnObject {
        /// What there is.
        found: String,
    },
    /// A field is missing.
    #[error("field `{field}` is missing; the line has {}", listed(present))]
    MissingField {
        /// The field.
        field: &'static str,
        /// The fields that are there, sorted.
        present: Vec<String>,
    },
    /// A field has another type.
    #[error("field `{field}`: expected {expected}, found {found}")]
    WrongType {
        /// The field.
        field: &'static str,
        /// The type it should have.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
}

/// How much there is at some point of the preparation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Interactions.
    pub reviews: usize,
    /// Different users.
    pub users: usize,
    /// Different items.
    pub items: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} reviews of {} users on {} items",
            self.reviews, self.users, self.items
        )
    }
}

fn after(line: u32) -> String {
    if line == 0 {
        String::new()
    } else {
        format!(" after line {line}")
    }
}

fn listed(fields: &[String]) -> String {
    if fields.is_empty() {
        "no fields".to_owned()
    } else {
        fields.join(", ")
    }
}
