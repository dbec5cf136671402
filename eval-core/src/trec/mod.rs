//! TREC files: runs (what was ranked) and qrels (what is relevant), read, written and evaluated.
//!
//! A run has the fields `query Q0 document rank score tag`, qrels have `query iteration document relevance`, separated by
//! white space. As in trec_eval the rank field is not used: documents are ranked by descending score. Where trec_eval
//! breaks ties by document name, equal scores here rank by the order of their lines, which is ascending item index in the
//! runs that [`RunWriter`] writes from a ranking; so a written run is evaluated as the ranking was.
//!
//! ```
//! use eval_core::Cutoff;
//! use eval_core::metrics::Metric;
//! use eval_core::trec::{Qrels, Run, evaluate_run};
//!
//! let run = Run::read("u1 Q0 film7 1 0.9 ours\nu1 Q0 film3 2 0.4 ours\n".as_bytes())?;
//! let qrels = Qrels::read("u1 0 film3 1\nu2 0 film7 1\n".as_bytes())?;
//! let evaluation = evaluate_run(&run, &qrels, &Metric::all_at(&[Cutoff::new(10)?]))?;
//! // u1 finds film3 at rank 2; u2 is not in the run and counts 0.
//! assert_eq!(evaluation.table.column("mrr@10".parse()?), Some(&[0.5, 0.0][..]));
//! assert_eq!(evaluation.queries_not_in_run, 1);
//! # Ok::<(), eval_core::Error>(())
//! ```

mod evaluate;
mod qrels;
mod run;

pub use evaluate::{RunEvaluation, evaluate_run};
pub use qrels::{Qrels, QrelsWriter};
pub use run::{Run, RunWriter};

use std::collections::HashMap;
use std::io::BufRead;

use crate::{Error, ErrorKind};

/// Calls `read` with the number and fields of each line that is not blank.
fn for_each_line(
    mut reader: impl BufRead,
    mut read: impl FnMut(usize, &str) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut bytes = Vec::new();
    for line in 1.. {
        bytes.clear();
        if reader.read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| ErrorKind::NotUtf8 { line })?;
        if !text.trim().is_empty() {
            read(line, text)?;
        }
    }
    Ok(())
}

/// The `N` fields of a line.
fn fields<'a, const N: usize>(line: usize, text: &'a str, expected: &'static str) -> Result<[&'a str; N], Error> {
    let mut words = text.split_whitespace();
    let mut fields = [""; N];
    let mut found = 0;
    for (field, word) in fields.iter_mut().zip(&mut words) {
        *field = word;
        found += 1;
    }
    found += words.count();
    match found == N {
        true => Ok(fields),
        false => Err(ErrorKind::FieldCount { line, expected, found }.into()),
    }
}

/// Names in order of first appearance, each with its number.
#[derive(Clone, Debug, Default)]
struct Names {
    names: Vec<String>,
    numbers: HashMap<String, usize>,
}

impl Names {
    fn number(&mut self, name: &str) -> usize {
        if let Some(&number) = self.numbers.get(name) {
            return number;
        }
        self.names.push(name.to_owned());
        self.numbers.insert(name.to_owned(), self.names.len() - 1);
        self.names.len() - 1
    }

    fn find(&self, name: &str) -> Option<usize> {
        self.numbers.get(name).copied()
    }
}

/// A document under a query: its number, its score or grade, and the line that says so.
#[derive(Clone, Copy, Debug)]
struct Entry<T> {
    document: usize,
    value: T,
    line: usize,
}

/// Entries by query, both by number of first appearance.
#[derive(Clone, Debug)]
struct Entries<T> {
    queries: Names,
    documents: Names,
    by_query: Vec<Vec<Entry<T>>>,
}

impl<T: Copy> Entries<T> {
    fn new() -> Self {
        Self {
            queries: Names::default(),
            documents: Names::default(),
            by_query: Vec::new(),
        }
    }

    fn push(&mut self, line: usize, query: &str, document: &str, value: T) {
        let query = self.queries.number(query);
        let document = self.documents.number(document);
        if query == self.by_query.len() {
            self.by_query.push(Vec::new());
        }
        self.by_query[query].push(Entry { document, value, line });
    }

    /// An error for the first line that repeats a document of its query.
    fn check_unique(&self) -> Result<(), Error> {
        let mut repeated: Option<(usize, usize, usize, usize)> = None;
        for (query, entries) in self.by_query.iter().enumerate() {
            let mut places: Vec<(usize, usize)> = entries.iter().map(|entry| (entry.document, entry.line)).collect();
            places.sort_unstable();
            for pair in places.windows(2).filter(|pair| pair[0].0 == pair[1].0) {
                let found = (pair[1].1, pair[0].1, query, pair[0].0);
                repeated = Some(repeated.map_or(found, |known| known.min(found)));
            }
        }
        let Some((line, first, query, document)) = repeated else {
            return Ok(());
        };
        let (query, document) = (
            self.queries.names[query].clone(),
            self.documents.names[document].clone(),
        );
        Err(ErrorKind::RepeatedDocument {
            line,
            first,
            query,
            document,
        }
        .into())
    }
}

fn check_identifier(what: &'static str, name: &str) -> Result<(), Error> {
    match name.is_empty() || name.contains(char::is_whitespace) {
        true => Err(ErrorKind::Identifier {
            what,
            found: name.to_owned(),
        }
        .into()),
        false => Ok(()),
    }
}
