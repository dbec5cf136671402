//! Items: the metadata file, read once for ids and lengths and once more for the texts that are needed.

use std::{collections::HashMap, path::Path};

use models::text::{SpecialTokens, Tokenizer};
use rayon::prelude::*;

use super::{
    DataError,
    intern::Interner,
    lines,
    records::{self, ItemRecord},
};

/// The items that have a title.
#[derive(Debug, Default)]
pub(super) struct Catalogue {
    ids: Interner,
    /// By item.
    long: Vec<bool>,
    /// By item, the line of the metadata file.
    line: Vec<u32>,
    /// Lines read, those left out included.
    pub(super) lines_read: usize,
    pub(super) without_title: usize,
    pub(super) bad_lines: usize,
}

impl Catalogue {
    /// Reads the metadata, and finds which items have more than `max_tokens` of the embedder's tokens.
    pub(super) fn read(
        path: &Path,
        embedder: &Tokenizer,
        max_tokens: usize,
        skip_bad_lines: bool,
    ) -> Result<Self, DataError> {
        let mut catalogue = Self::default();
        lines::for_each_chunk(path, "reading metadata", |chunk| {
            let lines: Vec<(u32, &[u8])> = chunk.lines().collect();
            let read: Vec<(u32, Result<Option<Described>, DataError>)> = lines
                .into_par_iter()
                .map(|(number, line)| (number, described(path, number, line, embedder, max_tokens)))
                .collect();
            for (number, item) in read {
                catalogue.lines_read += 1;
                match item {
                    Ok(Some(item)) => catalogue.add(path, number, &item)?,
                    Ok(None) => catalogue.without_title += 1,
                    Err(DataError::BadLine { .. }) if skip_bad_lines => catalogue.bad_lines += 1,
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
        Ok(catalogue)
    }

    fn add(&mut self, path: &Path, line: u32, item: &Described) -> Result<(), DataError> {
        let number = self.ids.intern(&item.id);
        if let Some(first_line) = self.line.get(number as usize) {
            return Err(DataError::DuplicateItem {
                path: path.to_owned(),
                item: item.id.clone(),
                first_line: *first_line,
                line,
            });
        }
        self.long.push(item.long);
        self.line.push(line);
        Ok(())
    }

    /// The number of an item by its id.
    pub(super) fn find(&self, id: &str) -> Option<u32> {
        self.ids.find(id)
    }

    /// Whether the item's text is too long for the embedder.
    pub(super) fn is_long(&self, item: u32) -> bool {
        self.long[item as usize]
    }

    pub(super) fn long_items(&self) -> usize {
        self.long.iter().filter(|long| **long).count()
    }

    /// The descriptions of `items`, from a second pass over the file.
    pub(super) fn descriptions(&self, path: &Path, mut items: Vec<u32>) -> Result<Descriptions, DataError> {
        items.sort_unstable_by_key(|item| self.line[*item as usize]);
        items.dedup();
        let wanted: Vec<u32> = items.iter().map(|item| self.line[*item as usize]).collect();
        let changed = |line| DataError::Changed {
            path: path.to_owned(),
            line,
        };
        let parse = |line, bytes: &[u8]| records::item(bytes).ok().flatten().ok_or_else(|| changed(line));
        let mut descriptions = HashMap::with_capacity(items.len());
        let mut numbers = items.into_iter();
        lines::read_wanted(path, "reading item texts", &wanted, parse, |record| {
            descriptions.extend(numbers.next().map(|item| (item, record)));
        })?;
        Ok(Descriptions(descriptions))
    }
}

/// Descriptions by item.
#[derive(Debug)]
pub(super) struct Descriptions(HashMap<u32, ItemRecord>);

impl Descriptions {
    /// The description of an item that was asked for.
    pub(super) fn get(&self, item: u32) -> &ItemRecord {
        &self.0[&item]
    }
}

struct Described {
    id: String,
    long: bool,
}

fn described(
    path: &Path,
    line: u32,
    bytes: &[u8],
    embedder: &Tokenizer,
    max_tokens: usize,
) -> Result<Option<Described>, DataError> {
    let record = records::item(bytes).map_err(|problem| DataError::BadLine {
        path: path.to_owned(),
        line,
        problem,
    })?;
    let Some(record) = record else {
        return Ok(None);
    };
    let long = embedder.encode(&record.text, SpecialTokens::Add)?.len() > max_tokens;
    Ok(Some(Described { id: record.id, long }))
}
