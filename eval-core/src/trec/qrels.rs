use std::io::{BufRead, Write};

use super::{Entries, check_identifier, fields, for_each_line};
use crate::{Error, ErrorKind, MAX_GRADE};

/// Relevance judgements: for each query, documents with grades.
#[derive(Clone, Debug)]
pub struct Qrels {
    pub(super) entries: Entries<u32>,
}

impl Qrels {
    /// Reads lines `query iteration document relevance`; blank lines are skipped. Relevance is a whole number: 0 and below
    /// mean "not relevant", above that it is the grade.
    ///
    /// ```
    /// use eval_core::trec::Qrels;
    /// let qrels = Qrels::read("u1 0 film3 2\nu1 0 film4 0\nu1 0 film5 -1".as_bytes())?;
    /// assert_eq!(qrels.relevant("u1"), [("film3", 2)]);
    /// # Ok::<(), eval_core::Error>(())
    /// ```
    ///
    /// # Errors
    /// With the line: a wrong number of fields, a relevance that is no whole number or is above [`MAX_GRADE`], a document
    /// twice under one query, text that is not UTF-8. And those of the reader.
    pub fn read(reader: impl BufRead) -> Result<Self, Error> {
        let mut entries = Entries::new();
        for_each_line(reader, |line, text| {
            let [query, _, document, relevance] = fields(line, text, "query iteration document relevance")?;
            let not_a_grade = || ErrorKind::Field {
                line,
                field: "relevance",
                expected: "a whole number of at most 62",
                found: relevance.to_owned(),
            };
            let grade = relevance
                .parse::<i64>()
                .ok()
                .and_then(|grade| u32::try_from(grade.max(0)).ok());
            let grade = grade.filter(|&grade| grade <= MAX_GRADE).ok_or_else(not_a_grade)?;
            entries.push(line, query, document, grade);
            Ok(())
        })?;
        entries.check_unique()?;
        Ok(Self { entries })
    }

    /// The queries, in order of first appearance.
    pub fn queries(&self) -> &[String] {
        &self.entries.queries.names
    }

    /// A query's relevant documents with their grades, in the order of their lines.
    pub fn relevant(&self, query: &str) -> Vec<(&str, u32)> {
        let query = self.entries.queries.find(query);
        query.into_iter().flat_map(|query| self.graded(query)).collect()
    }

    /// Relevant documents of the query of this number.
    pub(super) fn graded(&self, query: usize) -> impl Iterator<Item = (&str, u32)> {
        let relevant = self.entries.by_query[query].iter().filter(|entry| entry.value > 0);
        relevant.map(|entry| (self.entries.documents.names[entry.document].as_str(), entry.value))
    }
}

/// Writes qrels, query after query.
///
/// ```
/// use eval_core::trec::QrelsWriter;
/// let mut file = Vec::new();
/// QrelsWriter::new(&mut file).query("u1", [("film3", 1)])?;
/// assert_eq!(file, b"u1 0 film3 1\n");
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Debug)]
pub struct QrelsWriter<W> {
    writer: W,
}

impl<W: Write> QrelsWriter<W> {
    /// A writer of qrels.
    pub fn new(writer: W) -> Self {
        Self { writer }
    }

    /// Writes a query's documents with their grades.
    ///
    /// # Errors
    /// Names that are empty or have white space, grades above [`MAX_GRADE`], and those of the writer.
    pub fn query<'a>(&mut self, query: &str, documents: impl IntoIterator<Item = (&'a str, u32)>) -> Result<(), Error> {
        check_identifier("query", query)?;
        for (document, grade) in documents {
            check_identifier("document", document)?;
            if grade > MAX_GRADE {
                return Err(ErrorKind::GradeTooLarge { grade, max: MAX_GRADE }.into());
            }
            writeln!(self.writer, "{query} 0 {document} {grade}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn errors_name_the_line_and_the_field() {
        let message = |text: &str| Qrels::read(text.as_bytes()).unwrap_err().to_string();
        assert_eq!(
            message("u1 0 a 1\nu1 0 b yes\n"),
            r#"line 2, field "relevance": expected a whole number of at most 62, found "yes""#
        );
        assert!(message("u1 0 a 63").starts_with("line 1, field \"relevance\""));
        assert!(message("u1 a 1").contains("query iteration document relevance"));
        assert!(message("u1 0 a 1\nu1 0 a 0").starts_with("line 2: query \"u1\" has document \"a\" already"));
    }
}
