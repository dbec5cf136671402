//! A long table of which only the rows in view are in the page: headings sort, and the keyboard goes from row to row.
//!
//! It is written by hand because the table crate that is kept up for Leptos, leptos-struct-table, has a column for each field of a
//! struct: columns here are known when a report has been read, and the reader chooses among them.

pub mod visible;

mod table;

pub use table::Grid;

use crate::order::places;

/// A column's heading, which sorts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heading {
    /// The column's name in addresses.
    pub name: &'static str,
    /// What stands there.
    pub text: &'static str,
    /// What it means, for a tip.
    pub explanation: &'static str,
    /// `ascending`, `descending` or `none`.
    pub sort: &'static str,
}

/// A row as it is shown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// What the row is about: a link to its page.
    pub name: String,
    /// What stands behind the name; may be empty.
    pub note: String,
    /// The cells of the columns behind the first: a text, and a class that may be empty.
    pub cells: Vec<(String, &'static str)>,
}

/// The value of a parameter that sorts, after a click on a column's heading: ascending at first, then the other way round.
pub fn sort_after_click(sorted: &str, descending: bool, clicked: &str) -> String {
    let turns = sorted == clicked && !descending;
    format!("{}{clicked}", if turns { "-" } else { "" })
}

/// `ascending`, `descending` or `none`, for a heading.
pub fn aria_sort(is_sorted: bool, descending: bool) -> &'static str {
    match (is_sorted, descending) {
        (false, _) => "none",
        (true, false) => "ascending",
        (true, true) => "descending",
    }
}

/// The column's name in the value of a parameter that sorts, and whether its largest comes first.
pub fn read_sort(value: &str) -> (&str, bool) {
    match value.strip_prefix('-') {
        Some(name) => (name, true),
        None => (value, false),
    }
}

/// These rows, sorted by their values. Rows of equal values come by ascending number, and those without a value come last,
/// whichever the direction.
pub fn sorted(rows: impl IntoIterator<Item = u32>, values: &[Option<f64>], descending: bool) -> Vec<u32> {
    let rows: Vec<u32> = rows.into_iter().collect();
    let value = |place: usize| values.get(rows[place] as usize).copied().flatten();
    let order = places(rows.len(), &|a, b| {
        let by_value = match (value(a), value(b)) {
            (Some(a), Some(b)) if descending => b.total_cmp(&a),
            (Some(a), Some(b)) => a.total_cmp(&b),
            (a, b) => a.is_none().cmp(&b.is_none()),
        };
        by_value.then(rows[a].cmp(&rows[b]))
    });
    order.into_iter().map(|place| rows[place as usize]).collect()
}
