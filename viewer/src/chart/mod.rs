//! Charts as SVG. What is drawn is plain data ([`Mark`]) that is tested without a browser; one component, [`Chart`], puts it
//! on the page and follows pointer and keyboard.
//!
//! They are written by hand because the whole viewer has a budget of 500 KB packed: plotting crates that are kept up
//! draw to a canvas or bring a text renderer with fonts, which costs more than everything else here, and their text could
//! be neither selected nor read out.

mod bars;
mod frame;
mod lines;
mod mark;
mod picture;
mod scale;
mod zoom;

pub use bars::{BarChart, Bars};
pub(crate) use frame::Chart;
pub use lines::{Line, LineChart, Point};
pub use mark::Mark;
pub use picture::Picture;
pub use scale::{Scale, number, tick_label, ticks};
pub use zoom::Zoom;

use std::sync::Arc;

/// Width and height of a drawing, in CSS pixels.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Size {
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

/// Space around the plot for the axes' labels, in CSS pixels.
pub(crate) const LEFT: f64 = 50.0;
pub(crate) const RIGHT: f64 = 12.0;
pub(crate) const TOP: f64 = 10.0;
pub(crate) const BOTTOM: f64 = 34.0;

/// One line of a chart's legend, with the value at the point that is looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The series' number, which gives its colour.
    pub series: usize,
    /// How the series is drawn, as in [`Line::class`]; may be empty.
    pub class: &'static str,
    /// The series' name.
    pub name: String,
    /// The value, in words for the reader.
    pub value: String,
}

/// What a chart draws.
pub trait Drawing: Send + Sync {
    /// Number of points along the horizontal axis that can be looked at.
    fn places(&self) -> usize;
    /// The point nearest to a place in the drawing, right and down from its corner.
    fn nearest(&self, place: [f64; 2], size: Size) -> usize;
    /// Axes and series, those behind first.
    fn marks(&self, size: Size) -> Vec<Mark>;
    /// What shows the point that is looked at.
    fn pointer(&self, size: Size, place: usize) -> Vec<Mark>;
    /// What a point is, such as `update 41`.
    fn name_of(&self, place: usize) -> String;
    /// The values at a point.
    fn readings(&self, place: usize) -> Vec<Reading>;
    /// The same of some points, which are places of this drawing; `None` where parts cannot be shown.
    fn part(&self, _zoom: Zoom) -> Option<AnyDrawing> {
        None
    }
}

/// Something to draw, shared.
pub type AnyDrawing = Arc<dyn Drawing>;

/// Horizontal lines with their labels, for values in `range`.
pub(crate) fn value_axis(range: [f64; 2], size: Size, label: impl Fn(f64, f64) -> String) -> (Scale, Vec<Mark>) {
    let scale = Scale::new(range, [size.height - BOTTOM, TOP]);
    let (values, step) = ticks(range, (size.height / 45.0).max(2.0) as usize);
    let marks = values.into_iter().flat_map(|value| {
        let y = scale.place(value);
        [
            Mark::line([LEFT, y], [size.width - RIGHT, y], "grid"),
            Mark::text([LEFT - 6.0, y + 4.0], label(value, step), "label end"),
        ]
    });
    let marks = marks.collect();
    (scale, marks)
}
