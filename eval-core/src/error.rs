use std::io;

/// What went wrong; [`Error::kind`] tells the cases apart.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<ErrorKind>);

impl Error {
    /// Which error this is, with the row, line or field it is about.
    pub fn kind(&self) -> &ErrorKind {
        &self.0
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self(Box::new(kind))
    }
}

impl From<io::Error> for Error {
    fn from(source: io::Error) -> Self {
        ErrorKind::Io { source }.into()
    }
}

/// The cases of [`Error`]. Rows, items and places are counted from 0, ranks and lines from 1.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A cutoff of 0.
    #[error("a cutoff of 0 counts no place of the ranking: give a cutoff of at least 1")]
    ZeroCutoff,
    /// A cutoff that is no whole number.
    #[error("expected a cutoff, a whole number of at least 1 such as 10, found {found:?}")]
    CutoffNotANumber {
        /// The text in its place.
        found: String,
    },
    /// A metric name that is not known.
    #[error(
        "unknown metric {found:?}: expected one of recall, precision, hit, mrr, mrr_first, ndcg, ndcg_exp and map, with a cutoff as in ndcg@10"
    )]
    UnknownMetric {
        /// The text in its place.
        found: String,
    },
    /// A metric that means nothing over a whole ranking.
    #[error("{name} needs a cutoff: write {name}@10")]
    CutoffMissing {
        /// The metric's name.
        name: &'static str,
    },

    /// A rank of 0.
    #[error("target {place} has rank 0: ranks are counted from 1")]
    ZeroRank {
        /// Place of the target in the list given.
        place: usize,
    },
    /// Two targets of one user at one rank.
    #[error("two targets have rank {rank}: each target must be ranked once")]
    RepeatedRank {
        /// The rank.
        rank: u32,
    },
    /// A grade whose exponential gain cannot be told from the next.
    #[error("grade {grade} is above {max}, the largest whose gain 2^grade - 1 is kept: rescale the grades")]
    GradeTooLarge {
        /// The grade.
        grade: u32,
        /// The largest one allowed.
        max: u32,
    },

    /// A number of dimensions of 0.
    #[error("embeddings of 0 dimensions hold nothing: give the number of columns")]
    ZeroDims,
    /// A buffer that is not a whole number of rows.
    #[error("expected a multiple of {dims} values ({dims} dimensions), found {values}")]
    RaggedRows {
        /// Number of values found.
        values: usize,
        /// Dimensions of a row.
        dims: usize,
    },
    /// More items than an item index can tell apart.
    #[error("{rows} rows are more than the {max} that an item index can address", max = u32::MAX)]
    TooManyRows {
        /// Number of rows found.
        rows: usize,
    },
    /// A NaN or an infinity in an embedding.
    #[error(
        "{what} row {row} holds {value} in column {column}: every value must be finite; find out why this vector was not computed"
    )]
    NotFinite {
        /// What the row is: `embedding`, `item` or `query`.
        what: &'static str,
        /// The row.
        row: usize,
        /// The column.
        column: usize,
        /// The value found.
        value: f64,
    },
    /// A value that leaves the range of f16.
    #[error(
        "embedding row {row} holds {value} in column {column}, beyond the range of f16: normalise the vectors first"
    )]
    BeyondF16 {
        /// The row.
        row: usize,
        /// The column.
        column: usize,
        /// The value found.
        value: f32,
    },
    /// A vector without direction, under cosine.
    #[error("{what} row {row} is all zeros, so its cosine is undefined: drop it or use the dot product")]
    ZeroVector {
        /// What the row is: `item` or `query`.
        what: &'static str,
        /// The row.
        row: usize,
    },
    /// Queries and items of different width.
    #[error("the items have {items} dimensions and the queries {queries}: embed both with one model")]
    DimsDiffer {
        /// Dimensions of the items.
        items: usize,
        /// Dimensions of the queries.
        queries: usize,
    },
    /// Lists that go together but differ in length.
    #[error("expected {expected} {what}, found {found}")]
    LengthsDiffer {
        /// What is counted.
        what: &'static str,
        /// How many there should be.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// An item index beyond the catalogue.
    #[error("{what} {item} is not in the catalogue of {items} items")]
    UnknownItem {
        /// What the item is: `target` or `masked item`.
        what: &'static str,
        /// The index.
        item: u32,
        /// Number of items.
        items: usize,
    },
    /// A target that the mask removes from the ranking.
    #[error("target {item} is masked, so it has no rank: a target must not be in the user's history")]
    MaskedTarget {
        /// The target.
        item: u32,
    },
    /// A score that is NaN or infinite.
    #[error("item {item} has the score {score}: every score must be finite")]
    ScoreNotFinite {
        /// The item.
        item: usize,
        /// The score.
        score: f64,
    },
    /// An error while one query is worked on.
    #[error("query row {query}: {source}")]
    InQuery {
        /// The query's row.
        query: usize,
        /// What went wrong there.
        source: Error,
    },

    /// Reading or writing failed.
    #[error("reading or writing failed: {source}")]
    Io {
        /// Why.
        source: io::Error,
    },
}
