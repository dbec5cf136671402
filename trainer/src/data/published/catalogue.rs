//! The published items.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
};

use models::text::{TextError, Tokenizer};
use rayon::prelude::*;

use super::{PublishedError, column, columns::Table, layout, tokens::item_tokens};
use crate::data::{DataError, Item};

/// Items in the order of their index.
pub(super) struct Catalogue {
    items: Vec<Item>,
    /// The place of each published index.
    places: HashMap<i64, u32>,
    /// The smallest and the largest index.
    range: [i64; 2],
    /// How many tokens a row has, padding included.
    row_length: usize,
    files: Vec<PathBuf>,
    embedder: Option<Tokenizer>,
}

/// A row as it is stored.
struct Row {
    index: i64,
    text: String,
    tokens: Vec<u32>,
}

impl Catalogue {
    /// Reads the items of a folder; with an embedder's folder their texts are tokenized for it.
    pub(super) fn read(folder: &Path, embedder: Option<&Path>) -> Result<Self, DataError> {
        let files = layout::item_files(folder)?;
        let rows = rows(&files)?;
        let embedder = embedder.map(Tokenizer::open).transpose()?;
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else {
            return Err(PublishedError::Empty {
                folder: folder.to_owned(),
                what: "items".to_owned(),
            }
            .into());
        };
        let range = [first.index, last.index];
        let row_length = rows.iter().map(|row| row.tokens.len()).max().unwrap_or(0);
        let places = rows.iter().zip(0..).map(|(row, place)| (row.index, place)).collect();
        Ok(Self {
            items: items(rows, embedder.as_ref(), folder)?,
            places,
            range,
            row_length,
            files,
            embedder,
        })
    }

    /// The place of an index.
    pub(super) fn place(&self, index: i64) -> Result<u32, String> {
        self.places.get(&index).copied().ok_or_else(|| {
            let ([first, last], count) = (self.range, self.items.len());
            format!("item {index} is not among the {count} items, of index {first} to {last}; give the items that belong to these sessions")
        })
    }

    /// Whether dense rows of this length could belong to these items.
    pub(super) fn fits(&self, length: usize) -> bool {
        length == self.items.len() || i64::try_from(length) == Ok(self.range[1] + 1)
    }

    /// The text of the item at a place that [`place`](Self::place) gave.
    pub(super) fn text(&self, place: u32) -> &str {
        &self.items[place as usize].text
    }

    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn row_length(&self) -> usize {
        self.row_length
    }

    pub(super) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    pub(super) fn embedder(&self) -> Option<&Tokenizer> {
        self.embedder.as_ref()
    }

    pub(super) fn into_items(self) -> Vec<Item> {
        self.items
    }
}

/// All rows, sorted by index.
fn rows(files: &[PathBuf]) -> Result<Vec<Row>, PublishedError> {
    let mut all = Vec::new();
    let mut seen = HashSet::new();
    for path in files {
        let columns = [column::INDEX, column::ITEM_TEXT, column::ITEM_TOKENS];
        for rows in Table::open(path)?.rows(&columns)? {
            let rows = rows?;
            let texts = rows.texts(column::ITEM_TEXT)?;
            let tokens = rows.token_lists(column::ITEM_TOKENS)?;
            let indices = rows.integers(column::INDEX)?;
            for (row, ((index, text), tokens)) in indices.into_iter().zip(texts).zip(tokens).enumerate() {
                if index < 0 {
                    return Err(rows.wrong(row, column::INDEX, format!("is {index}, expected 0 or more")));
                }
                if !seen.insert(index) {
                    return Err(rows.wrong(
                        row,
                        column::INDEX,
                        format!("is {index}, as in another row; each item has its own"),
                    ));
                }
                all.push(Row { index, text, tokens });
            }
        }
    }
    all.sort_by_key(|row| row.index);
    Ok(all)
}

fn items(rows: Vec<Row>, embedder: Option<&Tokenizer>, folder: &Path) -> Result<Vec<Item>, TextError> {
    let tokenized: Result<Vec<(Item, bool)>, TextError> = rows.into_par_iter().map(|row| item(row, embedder)).collect();
    let tokenized = tokenized?;
    let other = tokenized.iter().filter(|(_, same)| !same).count();
    if other > 0 {
        let (count, folder) = (tokenized.len(), folder.display());
        eprintln!(
            "note: {folder}: {other} of {count} items have other token ids under this embedder's tokenizer; their texts were tokenized anew"
        );
    }
    Ok(tokenized.into_iter().map(|(item, _)| item).collect())
}

/// The item, and whether the stored ids are those of its text (or were not needed).
fn item(row: Row, embedder: Option<&Tokenizer>) -> Result<(Item, bool), TextError> {
    let (tokens, same) = match embedder {
        Some(embedder) => item_tokens(embedder, &row.text, &row.tokens)?,
        None => (Vec::new(), true),
    };
    let (title, categories) = title_and_categories(&row.text);
    let item = Item {
        id: row.index.to_string(),
        title: title.to_owned(),
        categories,
        tokens,
        train_count: 0,
        text: row.text,
    };
    Ok((item, same))
}

/// As `langptune prepare` and the published scripts put them into an item's text; of any other text the first line.
fn title_and_categories(text: &str) -> (&str, Vec<String>) {
    let parts = || {
        let (title, rest) = text.strip_prefix("Title: ")?.split_once("\nDescription: ")?;
        let (before_price, _) = rest.rsplit_once("\nPrice: ")?;
        let (_, categories) = before_price.rsplit_once("\nCategory: ")?;
        Some((title, categories))
    };
    match parts() {
        Some((title, "None" | "")) => (title, Vec::new()),
        Some((title, categories)) => (title, categories.split(", ").map(str::to_owned).collect()),
        None => (text.lines().next().unwrap_or_default(), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn title_and_categories_are_found_in_an_items_text() {
        let text = "Title: A, B\nDescription: (average rating: 4.5) x\ny\nCategory: Film, War\nPrice: 9.99";
        assert_eq!(
            title_and_categories(text),
            ("A, B", vec!["Film".to_owned(), "War".to_owned()])
        );
        let none = "Title: A\nDescription: (average rating: 4.5) None\nCategory: None\nPrice: None";
        assert_eq!(title_and_categories(none), ("A", Vec::new()));
        assert_eq!(title_and_categories("A book\nby B"), ("A book", Vec::new()));
    }
}
