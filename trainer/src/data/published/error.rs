//! What can be wrong with files in the published layout.

use std::path::PathBuf;

/// Why a published set could not be read, or written.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// Neither a dataset of ours nor Parquet files.
    #[error("{}: expected manifest.json of `langptune prepare`, or Parquet files with published {wanted}; found {found}", folder.display())]
    NoFiles {
        /// The folder that was searched.
        folder: PathBuf,
        /// Sessions, or items.
        wanted: &'static str,
        /// What is there instead, and what to do.
        found: String,
    },
    /// Parquet files with other columns.
    #[error("{}: expected columns of items ({}) or of sessions ({}), found {}", path.display(), super::column::OF_ITEMS.join(", "), super::column::OF_SESSIONS.join(", "), listed(columns))]
    OtherColumns {
        /// The first such file.
        path: PathBuf,
        /// Its columns.
        columns: Vec<String>,
    },
    /// A split has no file.
    #[error("{}: no Parquet file of the split {split}; found {}: name files as {split}-00000-of-00001.parquet, or put them into a folder {split}", folder.display(), listed(found))]
    MissingSplit {
        /// The folder that was searched.
        folder: PathBuf,
        /// The split.
        split: &'static str,
        /// The files of sessions that are there.
        found: Vec<String>,
    },
    /// Some of a split's files are missing.
    #[error("{}: {found} of {expected} Parquet files of {what}; download the set again, whole", folder.display())]
    MissingFiles {
        /// The folder that was searched.
        folder: PathBuf,
        /// The split, or the items.
        what: &'static str,
        /// Files found.
        found: usize,
        /// Files that their names speak of.
        expected: usize,
    },
    /// Sessions of two language models lie in one folder.
    #[error("{} and {}: prompts of two language models; give the folder of one of the two sets", one.display(), other.display())]
    TwoSets {
        /// A file of one.
        one: PathBuf,
        /// A file of the other.
        other: PathBuf,
    },
    /// No rows.
    #[error("{}: there are no {what}; download or write the set again", folder.display())]
    Empty {
        /// The folder.
        folder: PathBuf,
        /// Items, or users of a split.
        what: String,
    },
    /// A column is missing.
    #[error("{}: column `{column}` is missing; found {}", path.display(), listed(present))]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The file's columns.
        present: Vec<String>,
    },
    /// A column has another type.
    #[error("{}: column `{column}`: expected {expected}, found {found}", path.display())]
    WrongType {
        /// The file.
        path: PathBuf,
        /// The column.
        column: String,
        /// The type it should have.
        expected: &'static str,
        /// The type it has.
        found: String,
    },
    /// A value cannot be.
    #[error("{}, row {row}, column `{column}`: {problem}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// Row of the file, from 0.
        row: usize,
        /// The column.
        column: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A file is no Parquet file, or is damaged.
    #[error("{}: {message}; download or write the file again", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the reader said.
        message: String,
    },
    /// A folder or file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The folder or file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Tokens to be written contain the id that would pad them.
    #[error("{what} has the token {pad} that is to pad it; give another id with --{option}")]
    PadInUse {
        /// Whose tokens.
        what: String,
        /// The id.
        pad: u32,
        /// The option that sets it.
        option: &'static str,
    },
    /// Tokens to be written are longer than the row that they are padded to.
    #[error("{what} has {found} tokens, its row takes {most}; prepare the dataset again")]
    TooLong {
        /// Whose tokens.
        what: String,
        /// How many.
        found: usize,
        /// How many fit.
        most: usize,
    },
}

fn listed(names: &[String]) -> String {
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}
