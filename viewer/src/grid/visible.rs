//! Which rows of a long table are in view.

use std::ops::Range;

/// The height of a row, in CSS pixels; `viewer.css` has the same.
pub const ROW_HEIGHT: f64 = 34.0;

/// Rows beyond the edges that are kept ready, so that a quick scroll does not show a gap.
const SPARE_ROWS: usize = 8;

/// The part of the table that is in view: pixels from its top, and pixels of height.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct View {
    /// How far the rows are scrolled, in pixels.
    pub top: f64,
    /// How high the part is that shows rows, in pixels.
    pub height: f64,
}

impl View {
    /// The rows in view, with some to spare, of `count`.
    pub fn rows(self, count: usize) -> Range<usize> {
        // A cast takes what is below 0 or no number for 0.
        let first = (self.top / ROW_HEIGHT) as usize;
        let in_view = (self.height / ROW_HEIGHT).ceil() as usize + 1;
        let end = first.saturating_add(in_view + SPARE_ROWS).min(count);
        first.saturating_sub(SPARE_ROWS).min(end)..end
    }

    /// Where to scroll so that a row is wholly in view; `None` where it is.
    pub fn top_to_show(self, row: usize) -> Option<f64> {
        let start = row as f64 * ROW_HEIGHT;
        let end = start + ROW_HEIGHT;
        if start < self.top {
            Some(start)
        } else if end > self.top + self.height {
            Some((end - self.height).max(0.0))
        } else {
            None
        }
    }

    /// How many rows a page up or down goes.
    pub fn page(self) -> usize {
        ((self.height / ROW_HEIGHT) as usize).saturating_sub(1).max(1)
    }
}

/// The row that a key goes to from `row`; `None` where the key means something else or there is no row.
pub fn row_after_key(key: &str, row: Option<usize>, count: usize, page: usize) -> Option<usize> {
    let last = count.checked_sub(1)?;
    let wanted = match (key, row) {
        ("ArrowDown" | "ArrowUp" | "PageDown" | "PageUp", None) => 0,
        ("ArrowDown", Some(row)) => row.saturating_add(1),
        ("ArrowUp", Some(row)) => row.saturating_sub(1),
        ("PageDown", Some(row)) => row.saturating_add(page),
        ("PageUp", Some(row)) => row.saturating_sub(page),
        ("Home", _) => 0,
        ("End", _) => last,
        _ => return None,
    };
    Some(wanted.min(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rows_in_view_have_some_to_spare_and_end_with_the_table() {
        let view = |top, height| View { top, height };
        assert_eq!(view(0.0, 340.0).rows(1000), 0..19);
        assert_eq!(view(3400.0, 340.0).rows(1000), 92..119);
        assert_eq!(view(33_660.0, 340.0).rows(1000), 982..1000);
        assert_eq!(view(0.0, 340.0).rows(3), 0..3);
        assert_eq!(view(0.0, 340.0).rows(0), 0..0);
        assert_eq!(
            view(9e9, 340.0).rows(5),
            5..5,
            "a scroll place from before the filter left few rows"
        );
        assert_eq!(view(-20.0, 0.0).rows(1000), 0..9);
    }

    #[test]
    fn a_row_out_of_view_is_scrolled_to_the_nearer_edge() {
        let view = View {
            top: 340.0,
            height: 340.0,
        };
        assert_eq!(view.top_to_show(10), None);
        assert_eq!(view.top_to_show(19), None);
        assert_eq!(view.top_to_show(20), Some(374.0));
        assert_eq!(view.top_to_show(9), Some(306.0));
    }

    #[test]
    fn keys_move_within_the_table() {
        let moved = |key, row| row_after_key(key, row, 100, 10);
        assert_eq!(moved("ArrowDown", None), Some(0));
        assert_eq!(moved("ArrowDown", Some(99)), Some(99));
        assert_eq!(moved("ArrowUp", Some(0)), Some(0));
        assert_eq!(moved("PageDown", Some(95)), Some(99));
        assert_eq!(moved("PageUp", Some(15)), Some(5));
        assert_eq!((moved("Home", Some(7)), moved("End", None)), (Some(0), Some(99)));
        assert_eq!(moved("Enter", Some(7)), None);
        assert_eq!(row_after_key("ArrowDown", None, 0, 10), None);
        assert_eq!(
            row_after_key("ArrowDown", Some(50), 3, 10),
            Some(2),
            "a filter left fewer rows"
        );
    }
}
