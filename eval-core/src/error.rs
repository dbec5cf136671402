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

    /// A line of a TREC file with too few or too many fields.
    #[error("line {line}: expected the fields {expected:?}, found {found} of them")]
    FieldCount {
        /// The line, counted from 1.
        line: usize,
        /// The fields' names.
        expected: &'static str,
        /// How many fields the line has.
        found: usize,
    },
    /// A field of a TREC file that cannot be read.
    #[error("line {line}, field {field:?}: expected {expected}, found {found:?}")]
    Field {
        /// The line, counted from 1.
        line: usize,
        /// The field's name.
        field: &'static str,
        /// What it should hold.
        expected: &'static str,
        /// What it holds.
        found: String,
    },
    /// A line that is no text.
    #[error("line {line} is not UTF-8: convert the file")]
    NotUtf8 {
        /// The line, counted from 1.
        line: usize,
    },
    /// A document twice under one query.
    #[error("line {line}: query {query:?} has document {document:?} already, on line {first}: keep one of them")]
    RepeatedDocument {
        /// The second line, counted from 1.
        line: usize,
        /// The first line.
        first: usize,
        /// The query.
        query: String,
        /// The document.
        document: String,
    },
    /// An identifier that a TREC file cannot hold.
    #[error("{what} {found:?} cannot stand in a TREC file: it must not be empty or contain white space")]
    Identifier {
        /// What is identified: `query`, `document` or `tag`.
        what: &'static str,
        /// The identifier.
        found: String,
    },
    /// Scores that rise along a ranking.
    #[error("query {query:?}: the score rises from {before} to {score} at rank {rank}: give the documents best first")]
    OutOfOrder {
        /// The query.
        query: String,
        /// The rank, counted from 1.
        rank: usize,
        /// The score before.
        before: f64,
        /// The score there.
        score: f64,
    },
    /// Qrels without a relevant document.
    #[error("no query of the qrels has a document of grade 1 or above: there is nothing to measure")]
    NothingRelevant,

    /// A report written under another version of the schema.
    #[error("this report has schema version {found}, and this program reads version {known}: {advice}")]
    UnknownSchema {
        /// The report's version.
        found: u64,
        /// The version read here.
        known: u32,
        /// What to do.
        advice: &'static str,
    },
    /// A report that is not the JSON that its schema asks for.
    #[error("{what}: {source}")]
    Json {
        /// Which part of the report.
        what: &'static str,
        /// What the JSON reader says, with line and column.
        source: serde_json::Error,
    },
    /// A report that contradicts itself.
    #[error("{field}: expected {expected}, found {found}")]
    Inconsistent {
        /// The field, as a path in the JSON.
        field: String,
        /// What it should hold.
        expected: String,
        /// What it holds.
        found: String,
    },

    /// A file of a text index that is damaged.
    #[error("text index, byte {place}: expected {expected}, found {found}; the file is damaged: copy the report again")]
    TextIndex {
        /// The byte, counted from 0.
        place: usize,
        /// What should be there.
        expected: String,
        /// What is there.
        found: String,
    },

    /// Reading or writing failed.
    #[error("reading or writing failed: {source}")]
    Io {
        /// Why.
        source: io::Error,
    },
}
