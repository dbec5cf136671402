use std::fmt::Display;
use std::io::{BufRead, Write};

use super::{Entries, check_identifier, fields, for_each_line};
use crate::scores::Score;
use crate::{Error, ErrorKind};

/// A run: scored documents for each query.
#[derive(Clone, Debug)]
pub struct Run {
    pub(super) entries: Entries<f64>,
}

impl Run {
    /// Reads lines `query Q0 document rank score tag`; blank lines are skipped. A query's lines need not be together.
    ///
    /// ```
    /// use eval_core::trec::Run;
    /// let run = Run::read("u1 Q0 b 1 0.5 ours\nu1 Q0 a 2 0.5 ours\nu1 Q0 c 3 0.9 ours".as_bytes())?;
    /// assert_eq!(run.ranking("u1"), Some(vec!["c", "b", "a"])); // b and a tie: b's line is first
    /// let error = Run::read("u1 Q0 b 1 high ours".as_bytes()).unwrap_err();
    /// assert_eq!(error.to_string(), r#"line 1, field "score": expected a finite number, found "high""#);
    /// # Ok::<(), eval_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// With the line: a wrong number of fields, a score that is no finite number, a document twice under one query, text
    /// that is not UTF-8. And those of the reader.
    pub fn read(reader: impl BufRead) -> Result<Self, Error> {
        let mut entries = Entries::new();
        for_each_line(reader, |line, text| {
            let [query, _, document, _, score, _] = fields(line, text, "query Q0 document rank score tag")?;
            let not_a_score = || ErrorKind::Field {
                line,
                field: "score",
                expected: "a finite number",
                found: score.to_owned(),
            };
            let value = score
                .parse::<f64>()
                .ok()
                .filter(|score| score.is_finite())
                .ok_or_else(not_a_score)?;
            entries.push(line, query, document, value);
            Ok(())
        })?;
        entries.check_unique()?;
        Ok(Self { entries })
    }

    /// The queries, in order of first appearance.
    pub fn queries(&self) -> &[String] {
        &self.entries.queries.names
    }

    /// A query's documents, best first; `None` for a query that the run does not have.
    pub fn ranking(&self, query: &str) -> Option<Vec<&str>> {
        let query = self.entries.queries.find(query)?;
        Some(
            self.ranked(query)
                .map(|document| self.entries.documents.names[document].as_str())
                .collect(),
        )
    }

    /// Numbers of a query's documents, best first.
    pub(super) fn ranked(&self, query: usize) -> impl Iterator<Item = usize> {
        let mut entries = self.entries.by_query[query].clone();
        // The sort is stable, so equal scores stay in the order of their lines. (-0 equals 0, which total_cmp denies.)
        entries.sort_by(|a, b| (b.value + 0.0).total_cmp(&(a.value + 0.0)));
        entries.into_iter().map(|entry| entry.document)
    }
}

/// Writes a run, query after query.
///
/// ```
/// use eval_core::trec::RunWriter;
/// let mut file = Vec::new();
/// RunWriter::new(&mut file, "ours")?.query("u1", [("film7", 0.9f32), ("film3", 0.4)])?;
/// assert_eq!(file, b"u1 Q0 film7 1 0.9 ours\nu1 Q0 film3 2 0.4 ours\n");
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Debug)]
pub struct RunWriter<W> {
    writer: W,
    tag: String,
}

impl<W: Write> RunWriter<W> {
    /// A writer of lines that end with `tag`, the name of the system.
    ///
    /// # Errors
    /// [`ErrorKind::Identifier`] for a tag that is empty or has white space.
    pub fn new(writer: W, tag: &str) -> Result<Self, Error> {
        check_identifier("tag", tag)?;
        Ok(Self {
            writer,
            tag: tag.to_owned(),
        })
    }

    /// Writes a query's documents with their scores, best first. Scores read back exactly.
    ///
    /// # Errors
    /// Names that are empty or have white space, scores that are not finite or that rise, and those of the writer. What
    /// was written before the error stays written.
    pub fn query<'a, S: Score + Display>(
        &mut self,
        query: &str,
        documents: impl IntoIterator<Item = (&'a str, S)>,
    ) -> Result<(), Error> {
        check_identifier("query", query)?;
        let mut before = f64::INFINITY;
        for (place, (document, score)) in documents.into_iter().enumerate() {
            check_identifier("document", document)?;
            let (rank, value): (usize, f64) = (place + 1, score.into());
            if !value.is_finite() {
                return Err(ErrorKind::ScoreNotFinite {
                    item: place,
                    score: value,
                }
                .into());
            }
            if value > before {
                return Err(ErrorKind::OutOfOrder {
                    query: query.to_owned(),
                    rank,
                    before,
                    score: value,
                }
                .into());
            }
            before = value;
            writeln!(self.writer, "{query} Q0 {document} {rank} {score} {}", self.tag)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(text: &str) -> String {
        Run::read(text.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn errors_name_the_line() {
        assert_eq!(
            message("u1 Q0 a 1 0.5 x\n\nu1 Q0 b 2 0.4\n"),
            r#"line 3: expected the fields "query Q0 document rank score tag", found 5 of them"#
        );
        assert!(message("u1 Q0 a 1 0.5 x y").ends_with("found 7 of them"));
        assert!(message("u1 Q0 a 1 NaN x").starts_with("line 1, field \"score\""));
        assert_eq!(
            message("u1 Q0 a 1 0.5 x\nu2 Q0 a 1 0.5 x\nu1 Q0 a 2 0.4 x"),
            r#"line 3: query "u1" has document "a" already, on line 1: keep one of them"#
        );
        let error = Run::read(&b"u1 Q0 a 1 0.5 x\nu1 Q0 \xff 2 0.4 x"[..]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::NotUtf8 { line: 2 }));
    }

    #[test]
    fn the_rank_field_and_the_order_of_lines_do_not_rank() {
        let run = Run::read("u1 Q0 low 1 -3e2 x\r\nu1\tQ0\thigh 2 7 x\r\n".as_bytes()).unwrap();
        assert_eq!(run.ranking("u1").unwrap(), ["high", "low"]);
        assert_eq!(run.ranking("u2"), None);
    }

    #[test]
    fn a_written_run_reads_back_in_its_order_with_ties() {
        let mut file = Vec::new();
        let documents = [("z", 0.1f32 + 0.2), ("b", 0.3), ("y", 0.3), ("a", 0.3), ("c", -1e-20)];
        RunWriter::new(&mut file, "x").unwrap().query("u", documents).unwrap();
        assert_eq!(
            Run::read(&file[..]).unwrap().ranking("u").unwrap(),
            documents.map(|(name, _)| name)
        );
    }

    #[test]
    fn what_would_not_read_back_is_not_written() {
        let write = |query, documents: [(&'static str, f64); 2]| {
            RunWriter::new(Vec::new(), "x")
                .unwrap()
                .query(query, documents)
                .unwrap_err()
                .to_string()
        };
        assert!(write("a b", [("c", 1.0), ("d", 0.0)]).starts_with("query \"a b\" cannot stand"));
        assert!(write("a", [("", 1.0), ("d", 0.0)]).starts_with("document \"\" cannot stand"));
        assert!(write("a", [("c", 1.0), ("d", 2.0)]).contains("rises from 1 to 2 at rank 2"));
        assert!(RunWriter::new(Vec::new(), "").is_err());
    }
}
