//! What a drawing is made of.

use std::fmt::Write;

/// A shape or a text; `class` gives it its looks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A path, with its `d`.
    Path {
        /// As SVG has it.
        d: String,
        /// For the style sheet.
        class: String,
    },
    /// A text that begins, is centred, or ends at a point.
    Text {
        /// Horizontal position, with one decimal.
        x: String,
        /// The baseline's position, with one decimal.
        y: String,
        /// The text.
        text: String,
        /// For the style sheet; `start`, `middle` or `end` says what lies at the point.
        class: String,
    },
    /// A filled circle.
    Dot {
        /// The centre's horizontal position, with one decimal.
        x: String,
        /// The centre's vertical position, with one decimal.
        y: String,
        /// For the style sheet.
        class: String,
    },
}

impl Mark {
    /// A straight line.
    pub fn line(from: [f64; 2], to: [f64; 2], class: &str) -> Self {
        Self::path(&[from, to], class)
    }

    /// A line through points.
    pub fn path(points: &[[f64; 2]], class: &str) -> Self {
        Self::Path {
            d: trace(points),
            class: class.to_owned(),
        }
    }

    /// A filled shape through points.
    pub fn area(points: &[[f64; 2]], class: &str) -> Self {
        Self::Path {
            d: trace(points) + "Z",
            class: class.to_owned(),
        }
    }

    /// A rectangle from its upper left to its lower right corner.
    pub fn rectangle([left, top]: [f64; 2], [right, bottom]: [f64; 2], class: &str) -> Self {
        Self::area(&[[left, top], [right, top], [right, bottom], [left, bottom]], class)
    }

    /// A text at a point.
    pub fn text([x, y]: [f64; 2], text: String, class: &str) -> Self {
        Self::Text {
            x: decimal(x),
            y: decimal(y),
            text,
            class: class.to_owned(),
        }
    }

    /// A filled circle.
    pub fn dot([x, y]: [f64; 2], class: &str) -> Self {
        Self::Dot {
            x: decimal(x),
            y: decimal(y),
            class: class.to_owned(),
        }
    }
}

fn trace(points: &[[f64; 2]]) -> String {
    let mut path = String::with_capacity(points.len() * 12);
    for (place, [x, y]) in points.iter().enumerate() {
        let step = if place == 0 { 'M' } else { 'L' };
        // Writing to a string cannot fail.
        _ = write!(path, "{step}{} {}", decimal(*x), decimal(*y));
    }
    path
}

/// A tenth of a pixel is as fine as anyone sees.
fn decimal(value: f64) -> String {
    format!("{:.1}", value + 0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_paths_with_a_tenth_of_a_pixel() {
        let Mark::Path { d, class } = Mark::line([0.0, 1.26], [10.04, -0.0], "grid") else {
            unreachable!("a line is a path")
        };
        assert_eq!((d.as_str(), class.as_str()), ("M0.0 1.3L10.0 0.0", "grid"));
        let Mark::Path { d, .. } = Mark::rectangle([1.0, 2.0], [3.0, 4.0], "bar") else {
            unreachable!("a rectangle is a path")
        };
        assert_eq!(d, "M1.0 2.0L3.0 2.0L3.0 4.0L1.0 4.0Z");
    }
}
