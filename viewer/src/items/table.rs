//! The table of items: a column for each number that is known of an item.

use eval_core::Cutoff;

use super::known::Known;
use super::rankings::{Counted, Lists};
use crate::export::{Cell, Sheet};
use crate::grid::{Heading, Row, aria_sort, sorted};
use crate::order;

/// A column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// The title, by the alphabet.
    Title,
    /// The item's number in the report.
    Item,
    /// Interactions with the item in the train split.
    Popularity,
    /// In how many top lists it stands.
    Recommended,
    /// Its mean rank in the top lists of the largest cutoff that have it.
    MeanRank,
}

impl Column {
    /// Every column, in the order in which they are shown.
    pub const ALL: [Self; 5] = [
        Self::Title,
        Self::Item,
        Self::Popularity,
        Self::Recommended,
        Self::MeanRank,
    ];

    /// The name in addresses and exports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Title => "title",
            Self::Item => "item",
            Self::Popularity => "popularity",
            Self::Recommended => "recommended",
            Self::MeanRank => "mean_rank",
        }
    }

    fn heading(self, sort: &'static str) -> Heading {
        let (text, explanation) = match self {
            Self::Title => ("Title", "Title, by the alphabet"),
            Self::Item => ("Number", "Number in the report"),
            Self::Popularity => ("Popularity", "Interactions with the item in the train split"),
            Self::Recommended => (
                "Recommended",
                "Number of top lists that have the item, at the chosen length",
            ),
            Self::MeanRank => (
                "Mean rank",
                "Mean rank in the top lists of the largest length that have the item",
            ),
        };
        Heading {
            name: self.name(),
            text,
            explanation,
            sort,
        }
    }
}

/// The headings of a table sorted by a column.
pub fn headings(sort: Column, descending: bool) -> Vec<Heading> {
    let heading = |column: Column| column.heading(aria_sort(column == sort, descending));
    Column::ALL.map(heading).into()
}

/// The items' numbers at a checkpoint, for one kind of top lists.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ItemsTable {
    popularity: Vec<Option<f64>>,
    recommended: Vec<Option<f64>>,
    mean_rank: Vec<Option<f64>>,
}

impl ItemsTable {
    /// What is known of all items.
    pub fn new(known: &Known, counted: &Counted, lists: &Lists, cutoff: Option<Cutoff>) -> Self {
        let items = 0..u32::try_from(known.count()).unwrap_or(u32::MAX);
        let counts = cutoff.and_then(|cutoff| counted.counts(lists, cutoff));
        let count = |item: u32| Some(f64::from(*counts?.get(item as usize)?));
        Self {
            popularity: items
                .clone()
                .map(|item| Some(known.interactions(item)? as f64))
                .collect(),
            recommended: items.clone().map(count).collect(),
            mean_rank: items.map(|item| counted.mean_rank(lists, item)).collect(),
        }
    }

    /// An item's number in a column.
    pub fn value(&self, column: Column, item: u32) -> Option<f64> {
        let values = match column {
            Column::Title | Column::Item => return Some(f64::from(item)),
            Column::Popularity => &self.popularity,
            Column::Recommended => &self.recommended,
            Column::MeanRank => &self.mean_rank,
        };
        values.get(item as usize).copied().flatten()
    }

    /// The items whose titles have all of the words, which are in lower case, in the order of a column.
    pub fn rows(&self, known: &Known, find: &[String], sort: Column, descending: bool) -> Vec<u32> {
        let matches = |item: &u32| {
            let title = known.folded(*item);
            find.iter().all(|word| title.contains(word.as_str()))
        };
        let items = 0..self.popularity.len() as u32;
        let matching: Vec<u32> = items.filter(matches).collect();
        match sort {
            Column::Title => by_title(&matching, known, descending),
            Column::Item if descending => matching.into_iter().rev().collect(),
            Column::Item => matching,
            Column::Popularity => sorted(matching, &self.popularity, descending),
            Column::Recommended => sorted(matching, &self.recommended, descending),
            Column::MeanRank => sorted(matching, &self.mean_rank, descending),
        }
    }

    /// An item's row.
    pub fn row(&self, known: &Known, item: u32) -> Row {
        let cell = |column: Column| {
            let text = match self.value(column, item) {
                None => "–".to_owned(),
                Some(value) if column == Column::MeanRank => format!("{value:.1}"),
                Some(value) => value.to_string(),
            };
            (text, "")
        };
        Row {
            name: known.name(item),
            note: String::new(),
            cells: Column::ALL[1..].iter().map(|&column| cell(column)).collect(),
        }
    }

    /// These rows, to be written to a file.
    pub fn sheet(&self, known: &Known, rows: &[u32]) -> Sheet {
        let number = |column: Column, item| self.value(column, item).map_or(Cell::Empty, Cell::Number);
        let row = |&item: &u32| {
            let title = known
                .title(item)
                .map_or(Cell::Empty, |title| Cell::Text(title.to_owned()));
            let numbers = Column::ALL[1..].iter().map(|&column| number(column, item));
            std::iter::once(title).chain(numbers).collect()
        };
        Sheet {
            columns: Column::ALL.map(|column| column.name().to_owned()).into(),
            rows: rows.iter().map(row).collect(),
        }
    }
}

/// By the alphabet; items without a title come last, whichever the direction.
fn by_title(items: &[u32], known: &Known, descending: bool) -> Vec<u32> {
    order::sorted(items, |&a, &b| {
        let (a, b) = (known.folded(a), known.folded(b));
        let by_title = if descending { b.cmp(a) } else { a.cmp(b) };
        a.is_empty().cmp(&b.is_empty()).then(by_title)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::sync::Arc;

    use eval_core::report::{Catalogue, Chunks, Manifest};

    use super::super::rankings::samples::{counted, cutoff};
    use super::*;
    use crate::export::Format;

    fn known() -> Known {
        let mut known = Known::new(&Manifest {
            items: Chunks::in_files("items", 4, 2),
            ..Manifest::default()
        });
        known.take_catalogue(Arc::new(Catalogue {
            titles: ["Night train", "a day", "", "Train at night"].map(str::to_owned).into(),
            train_interactions: vec![3, 9, 3, 0],
        }));
        known
    }

    fn table() -> ItemsTable {
        ItemsTable::new(&known(), &counted(), &Lists::Generated, Some(cutoff(2)))
    }

    #[test]
    fn rows_are_sorted_by_any_column_and_found_by_all_words() {
        let (table, known) = (table(), known());
        let rows = |find: &[&str], sort, descending| {
            let find: Vec<String> = find.iter().map(|&word| word.to_owned()).collect();
            table.rows(&known, &find, sort, descending)
        };
        assert_eq!(rows(&[], Column::Title, false), [1, 0, 3, 2]);
        assert_eq!(
            rows(&[], Column::Title, true),
            [3, 0, 1, 2],
            "without a title comes last"
        );
        assert_eq!(rows(&[], Column::Popularity, true), [1, 0, 2, 3]);
        assert_eq!(rows(&[], Column::Recommended, true), [3, 0, 1, 2]);
        assert_eq!(
            rows(&[], Column::MeanRank, false),
            [3, 0, 1, 2],
            "an item that is in no list comes last"
        );
        assert_eq!(rows(&["night", "train"], Column::Item, true), [3, 0]);
        assert_eq!(rows(&["evening"], Column::Item, false), [0; 0]);
    }

    #[test]
    fn a_row_has_a_dash_for_what_is_not_known() {
        let (table, known) = (table(), known());
        let cells = |item| {
            table
                .row(&known, item)
                .cells
                .into_iter()
                .map(|(text, _)| text)
                .collect::<Vec<_>>()
        };
        assert_eq!(cells(3), ["3", "0", "3", "1.3"]);
        assert_eq!(cells(2), ["2", "3", "0", "–"]);
        assert_eq!(table.row(&known, 2).name, "item 2");
        let bare = ItemsTable::new(
            &Known::new(&Manifest::default()),
            &Counted::default(),
            &Lists::Generated,
            None,
        );
        assert_eq!(bare, ItemsTable::default());
    }

    #[test]
    fn a_file_has_the_rows_in_their_order() {
        let written = table().sheet(&known(), &[2, 3]).written(Format::Csv);
        let mean = 4.0 / 3.0;
        assert_eq!(
            written,
            format!("title,item,popularity,recommended,mean_rank\r\n,2,3,0,\r\nTrain at night,3,0,3,{mean}\r\n")
        );
    }
}
