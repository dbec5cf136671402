//! Reviews: the reviews file, read once for who rated what and when, and again for the texts that go into prompts.

use std::path::{Path, PathBuf};

use rayon::prelude::*;

use super::{
    DataError, LineProblem,
    catalogue::Catalogue,
    intern::Interner,
    lines,
    records::{self, ReviewLine},
    sessions::Row,
};

/// The reviews of known items.
#[derive(Debug, Default)]
pub(super) struct Reviews {
    pub(super) rows: Vec<Row>,
    pub(super) users: Interner,
    /// Lines read, those left out included.
    pub(super) lines_read: usize,
    pub(super) bad_lines: usize,
}

impl Reviews {
    /// Reads every review and keeps those of items in `catalogue`, in file order.
    pub(super) fn read(path: &Path, catalogue: &Catalogue, skip_bad_lines: bool) -> Result<Self, DataError> {
        let mut reviews = Self::default();
        lines::for_each_chunk(path, "reading reviews", |chunk| {
            let lines: Vec<(u32, &[u8])> = chunk.lines().collect();
            let parsed: Vec<_> = lines
                .into_par_iter()
                .map(|(line, bytes)| (line, known_review(bytes, catalogue)))
                .collect();
            for (line, parsed) in parsed {
                reviews.lines_read += 1;
                match parsed {
                    Ok(Some((item, review))) => {
                        let user = reviews.users.intern(&review.user_id);
                        let rating = review.rating as f32;
                        reviews.rows.push(Row {
                            time_ms: review.timestamp,
                            user,
                            item,
                            line,
                            rating,
                        });
                    }
                    Ok(None) => {}
                    Err(_) if skip_bad_lines => reviews.bad_lines += 1,
                    Err(problem) => {
                        return Err(DataError::BadLine {
                            path: path.to_owned(),
                            line,
                            problem,
                        });
                    }
                }
            }
            Ok(())
        })?;
        Ok(reviews)
    }
}

/// The review with its item's number; `None` if the metadata does not describe the item.
fn known_review<'line>(
    bytes: &'line [u8],
    catalogue: &Catalogue,
) -> Result<Option<(u32, ReviewLine<'line>)>, LineProblem> {
    let review = records::review(bytes)?;
    Ok(catalogue.find(&review.parent_asin).map(|item| (item, review)))
}

/// Texts of reviews by line, collected in passes of their own over the file.
#[derive(Debug)]
pub(super) struct ReviewTexts {
    path: PathBuf,
    /// Ascending.
    lines: Vec<u32>,
    texts: Vec<Box<str>>,
}

impl ReviewTexts {
    /// None yet.
    pub(super) fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            lines: Vec::new(),
            texts: Vec::new(),
        }
    }

    /// Keeps the texts of the lines in `needed` alone, reading the file again if some are not there yet.
    pub(super) fn keep(&mut self, mut needed: Vec<u32>) -> Result<(), DataError> {
        needed.sort_unstable();
        needed.dedup();
        let mut kept: Vec<(u32, Box<str>)> = std::mem::take(&mut self.lines)
            .into_iter()
            .zip(std::mem::take(&mut self.texts))
            .filter(|(line, _)| needed.binary_search(line).is_ok())
            .collect();
        let missing: Vec<u32> = needed
            .into_iter()
            .filter(|line| kept.binary_search_by_key(line, |(line, _)| *line).is_err())
            .collect();
        if !missing.is_empty() {
            let changed = |line| DataError::Changed {
                path: self.path.clone(),
                line,
            };
            let parse = |line, bytes: &[u8]| match records::review_text(bytes) {
                Ok(text) => Ok((line, Box::from(text))),
                Err(_) => Err(changed(line)),
            };
            lines::read_wanted(&self.path, "reading review texts", &missing, parse, |text| {
                kept.push(text)
            })?;
            kept.sort_unstable_by_key(|(line, _)| *line);
        }
        (self.lines, self.texts) = kept.into_iter().unzip();
        Ok(())
    }

    /// The text of a review whose line was asked for.
    pub(super) fn get(&self, line: u32) -> &str {
        self.lines.binary_search(&line).map_or("", |place| &self.texts[place])
    }
}
