//! Lines over a common horizontal axis, with bands of uncertainty.

use std::sync::Arc;

use super::{
    AnyDrawing, BOTTOM, Drawing, LEFT, Mark, RIGHT, Reading, Scale, Size, TOP, Zoom, tick_label, ticks, value_axis,
};

/// A point of a line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Horizontal value.
    pub x: f64,
    /// Vertical value.
    pub y: f64,
    /// The interval around it, if there is one.
    pub interval: Option<[f64; 2]>,
}

/// A named line.
#[derive(Clone, Debug, PartialEq)]
pub struct Line {
    /// Its name in the legend.
    pub name: String,
    /// Its colour's number.
    pub series: usize,
    /// A further class, such as `dashed` or `faint-line`; may be empty.
    pub class: &'static str,
    /// The points, by ascending `x`.
    pub points: Vec<Point>,
}

/// Lines, ready to be drawn.
#[derive(Clone, Debug)]
pub struct LineChart {
    x_name: String,
    lines: Vec<Line>,
    format: fn(f64) -> String,
    /// All horizontal values that a line has, ascending, each once.
    xs: Vec<f64>,
    y_range: [f64; 2],
}

impl LineChart {
    /// A chart of `lines` over something called `x_name`; `format` writes values for the legend. What is not finite is left out.
    pub fn new(x_name: &str, mut lines: Vec<Line>, format: fn(f64) -> String) -> Self {
        for line in &mut lines {
            line.points.retain(|point| point.x.is_finite() && point.y.is_finite());
        }
        let points = || lines.iter().flat_map(|line| &line.points);
        let mut xs: Vec<_> = points().map(|point| point.x).collect();
        xs.sort_unstable_by(f64::total_cmp);
        xs.dedup();
        let ys = points().flat_map(|point| [point.y].into_iter().chain(point.interval.into_iter().flatten()));
        let y_range = padded(ys.filter(|y| y.is_finite()));
        Self {
            x_name: x_name.to_owned(),
            lines,
            format,
            xs,
            y_range,
        }
    }

    fn x_scale(&self, size: Size) -> Scale {
        let first = self.xs.first().copied().unwrap_or(0.0);
        let last = self.xs.last().copied().unwrap_or(1.0);
        Scale::new([first, last], [LEFT + 6.0, size.width - RIGHT - 6.0])
    }

    fn y_scale(&self, size: Size) -> Scale {
        Scale::new(self.y_range, [size.height - BOTTOM, TOP])
    }

    fn x_axis(&self, size: Size) -> Vec<Mark> {
        let scale = self.x_scale(size);
        let range = [self.xs.first(), self.xs.last()].map(|x| x.copied().unwrap_or_default());
        let (values, step) = ticks(range, (size.width / 90.0).max(2.0) as usize);
        // Updates are whole numbers, and so are their labels.
        let values = values.into_iter().filter(|value| step >= 1.0 || value.fract() == 0.0);
        let y = size.height - BOTTOM + 15.0;
        let mut marks: Vec<_> = values
            .map(|value| {
                Mark::text(
                    [scale.place(value), y],
                    tick_label(value, step.max(1.0)),
                    "label middle",
                )
            })
            .collect();
        let middle = (LEFT + size.width - RIGHT) / 2.0;
        marks.push(Mark::text(
            [middle, size.height - 4.0],
            self.x_name.clone(),
            "label middle axis-name",
        ));
        marks
    }

    fn value_at(&self, line: &Line, x: f64) -> Option<Point> {
        let place = line.points.binary_search_by(|point| point.x.total_cmp(&x)).ok()?;
        Some(line.points[place])
    }
}

impl Drawing for LineChart {
    fn places(&self) -> usize {
        self.xs.len()
    }

    fn nearest(&self, [x, _]: [f64; 2], size: Size) -> usize {
        let value = self.x_scale(size).value(x);
        let after = self.xs.partition_point(|&x| x < value);
        match (after.checked_sub(1), self.xs.get(after)) {
            (Some(before), Some(&next)) if value - self.xs[before] > next - value => before + 1,
            (Some(before), _) => before,
            (None, _) => 0,
        }
    }

    fn marks(&self, size: Size) -> Vec<Mark> {
        let (y_scale, mut marks) = value_axis(self.y_range, size, tick_label);
        marks.extend(self.x_axis(size));
        let x_scale = self.x_scale(size);
        let place = |x: f64, y: f64| [x_scale.place(x), y_scale.place(y)];
        for line in &self.lines {
            let band: Option<Vec<_>> = line
                .points
                .iter()
                .map(|point| Some((point.x, point.interval?)))
                .collect();
            if let Some(band) = band.filter(|band| band.len() > 1) {
                let lower = band.iter().map(|&(x, [low, _])| place(x, low));
                let upper = band.iter().rev().map(|&(x, [_, high])| place(x, high));
                let around: Vec<_> = lower.chain(upper).collect();
                marks.push(Mark::area(&around, &format!("band series-{}", line.series)));
            }
        }
        for line in &self.lines {
            let points: Vec<_> = line.points.iter().map(|point| place(point.x, point.y)).collect();
            let class = format!("series-{} {}", line.series, line.class);
            marks.push(Mark::path(&thinned(&points), &format!("line {class}")));
            // A few points are measurements that one wants to see; many are a curve.
            if points.len() <= 30 && line.class != "dashed" {
                marks.extend(points.iter().map(|&point| Mark::dot(point, &format!("dot {class}"))));
            }
        }
        marks
    }

    fn pointer(&self, size: Size, place: usize) -> Vec<Mark> {
        let Some(&value) = self.xs.get(place) else {
            return Vec::new();
        };
        let x = self.x_scale(size).place(value);
        let mut marks = vec![Mark::line([x, TOP], [x, size.height - BOTTOM], "pointer")];
        for line in &self.lines {
            if let Some(point) = self.value_at(line, value) {
                let y = self.y_scale(size).place(point.y);
                marks.push(Mark::dot([x, y], &format!("dot large series-{}", line.series)));
            }
        }
        marks
    }

    fn name_of(&self, place: usize) -> String {
        let x = self.xs.get(place).copied().unwrap_or_default();
        format!("{} {x}", self.x_name)
    }

    fn readings(&self, place: usize) -> Vec<Reading> {
        let x = self.xs.get(place).copied().unwrap_or(f64::NAN);
        let reading = |line: &Line| {
            let value = match self.value_at(line, x) {
                None => "–".to_owned(),
                Some(Point { y, interval: None, .. }) => (self.format)(y),
                Some(Point {
                    y,
                    interval: Some([low, high]),
                    ..
                }) => format!(
                    "{} ({} to {})",
                    (self.format)(y),
                    (self.format)(low),
                    (self.format)(high)
                ),
            };
            Reading {
                series: line.series,
                class: line.class,
                name: line.name.clone(),
                value,
            }
        };
        self.lines.iter().map(reading).collect()
    }

    fn part(&self, zoom: Zoom) -> Option<AnyDrawing> {
        let [first, last] = [self.xs.get(zoom.first)?, self.xs.get(zoom.last)?];
        let mut lines = self.lines.clone();
        for line in &mut lines {
            line.points.retain(|point| (first..=last).contains(&&point.x));
        }
        Some(Arc::new(Self::new(&self.x_name, lines, self.format)))
    }
}

/// The range of values with a little air; of one value, air around it; of none, 0 to 1.
fn padded(values: impl Iterator<Item = f64>) -> [f64; 2] {
    let range = values.fold([f64::INFINITY, f64::NEG_INFINITY], |[low, high], value| {
        [low.min(value), high.max(value)]
    });
    let [low, high] = range;
    if low > high {
        return [0.0, 1.0];
    }
    let air = match high - low {
        0.0 => low.abs().max(1.0) * 0.5,
        extent => extent * 0.05,
    };
    // Metrics and losses stay above nought where they are.
    let bottom = if low >= 0.0 { (low - air).max(0.0) } else { low - air };
    [bottom, high + air]
}

/// The points that a line of at most two pixels' width shows: of those that share half a pixel the first, the lowest, the
/// highest and the last.
fn thinned(points: &[[f64; 2]]) -> Vec<[f64; 2]> {
    let column = |point: &[f64; 2]| (point[0] * 2.0) as i64;
    let mut kept = Vec::new();
    for group in points.chunk_by(|a, b| column(a) == column(b)) {
        let by_y = |a: &&[f64; 2], b: &&[f64; 2]| a[1].total_cmp(&b[1]);
        let ends = [
            group.first(),
            group.iter().min_by(by_y),
            group.iter().max_by(by_y),
            group.last(),
        ];
        for point in ends.into_iter().flatten() {
            if kept.last() != Some(point) {
                kept.push(*point);
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 400.0,
        height: 200.0,
    };

    fn chart() -> LineChart {
        let line = |name: &str, series, points: &[(f64, f64)]| Line {
            name: name.into(),
            series,
            class: "",
            points: points
                .iter()
                .map(|&(x, y)| Point {
                    x,
                    y,
                    interval: (series == 0).then_some([y - 0.1, y + 0.2]),
                })
                .collect(),
        };
        let lines = vec![
            line("generated", 0, &[(1.0, 0.2), (41.0, 0.5), (81.0, 0.4)]),
            line("reference", 1, &[(1.0, 0.3), (81.0, 0.3), (90.0, f64::NAN)]),
        ];
        LineChart::new("update", lines, |value| format!("{value:.4}"))
    }

    #[test]
    fn readings_are_those_of_the_point_and_a_line_without_it_has_none() {
        let chart = chart();
        assert_eq!((chart.places(), chart.name_of(1)), (3, "update 41".to_owned()));
        let values: Vec<_> = chart.readings(1).into_iter().map(|reading| reading.value).collect();
        assert_eq!(values, ["0.5000 (0.4000 to 0.7000)", "–"]);
        assert_eq!(chart.readings(2)[1].value, "0.3000");
    }

    #[test]
    fn the_nearest_point_is_found_everywhere() {
        let chart = chart();
        let scale = chart.x_scale(SIZE);
        for (x, place) in [
            (-50.0, 0),
            (1.0, 0),
            (20.9, 0),
            (21.1, 1),
            (41.0, 1),
            (62.0, 2),
            (500.0, 2),
        ] {
            assert_eq!(chart.nearest([scale.place(x), 0.0], SIZE), place, "at {x}");
        }
    }

    #[test]
    fn marks_lie_inside_the_drawing() {
        let marks = chart().marks(SIZE);
        let dots: Vec<_> = marks.iter().filter(|mark| matches!(mark, Mark::Dot { .. })).collect();
        assert_eq!(dots.len(), 5, "a dot for each finite point");
        for mark in &marks {
            if let Mark::Dot { x, y, .. } = mark {
                let [x, y] = [x, y].map(|place| place.parse::<f64>().unwrap_or(f64::NAN));
                assert!((LEFT..=SIZE.width - RIGHT).contains(&x) && (TOP..=SIZE.height - BOTTOM).contains(&y));
            }
        }
        let bands = marks
            .iter()
            .filter(|mark| matches!(mark, Mark::Path { class, .. } if class == "band series-0"));
        assert_eq!(bands.count(), 1, "only the line with intervals has a band");
    }

    #[test]
    fn a_chart_without_points_has_axes_and_nothing_to_look_at() {
        let empty = LineChart::new("update", Vec::new(), |value| value.to_string());
        assert_eq!(empty.places(), 0);
        assert!(empty.pointer(SIZE, 0).is_empty() && !empty.marks(SIZE).is_empty());
    }

    #[test]
    fn a_part_has_the_points_of_its_range_and_a_scale_of_its_own() {
        let chart = chart();
        let part = Zoom::between(1, 2)
            .and_then(|zoom| chart.part(zoom))
            .expect("lines have parts");
        assert_eq!((part.places(), part.name_of(0)), (2, "update 41".to_owned()));
        assert_eq!(part.readings(1)[1].value, "0.3000");
        let beyond = Zoom { first: 1, last: 3 };
        assert!(chart.part(beyond).is_none());
    }

    #[test]
    fn thinning_keeps_ends_and_extremes() {
        let many: Vec<_> = (0..1000).map(|x| [f64::from(x) / 1000.0, f64::from(x % 100)]).collect();
        let thin = thinned(&many);
        assert!(thin.len() <= 8, "two half pixels of four points: {}", thin.len());
        assert_eq!((thin[0], thin[thin.len() - 1]), (many[0], many[999]));
        assert!(thin.iter().any(|point| point[1] == 99.0));
        let few = [[0.0, 1.0], [10.0, 3.0]];
        assert_eq!(thinned(&few), few);
    }
}
