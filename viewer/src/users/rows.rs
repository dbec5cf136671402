//! The users as rows of a table.

use super::shown::Shown;
use crate::grid::{Heading, Row, aria_sort};
use crate::table::{Column, UsersTable};

/// The columns that are shown.
pub fn headings(shown: &Shown) -> Vec<Heading> {
    let heading = |&column: &Column| Heading {
        name: column.name(),
        text: column.heading(),
        explanation: column.explanation(),
        sort: aria_sort(shown.sort == column, shown.descending),
    };
    shown.columns.iter().map(heading).collect()
}

/// A user's row: number and id, then the other columns.
pub fn row(table: &UsersTable, user: u32, columns: &[Column]) -> Row {
    let cell = |&column: &Column| {
        let value = table.value(column, user);
        let side = match (column, value) {
            (Column::Delta, Some(value)) if value < 0.0 => "gain",
            (Column::Delta, Some(value)) if value > 0.0 => "loss",
            _ => "",
        };
        (column.shown(value), side)
    };
    let others = columns.iter().filter(|&&column| column != Column::User);
    Row {
        name: user.to_string(),
        note: table.id(user).to_owned(),
        cells: others.map(cell).collect(),
    }
}
