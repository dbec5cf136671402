//! Groups of bars, one bar a series.

use std::sync::Arc;

use super::{AnyDrawing, BOTTOM, Drawing, LEFT, Mark, RIGHT, Reading, Scale, Size, Zoom, value_axis};

/// A series of bars.
#[derive(Clone, Debug, PartialEq)]
pub struct Bars {
    /// Its name in the legend.
    pub name: String,
    /// Its colour's number.
    pub series: usize,
    /// For each group the height, from 0 to 1, and what the legend says of it.
    pub heights: Vec<(f64, String)>,
}

/// Bars, ready to be drawn; heights are shares.
#[derive(Clone, Debug, PartialEq)]
pub struct BarChart {
    /// What the groups are, such as `rank`.
    pub x_name: String,
    /// The groups' names.
    pub groups: Vec<String>,
    /// The series, as many heights in each as there are groups.
    pub series: Vec<Bars>,
}

impl BarChart {
    fn group_width(&self, size: Size) -> f64 {
        (size.width - LEFT - RIGHT) / self.groups.len().max(1) as f64
    }

    fn range(&self) -> [f64; 2] {
        let heights = self.series.iter().flat_map(|bars| &bars.heights);
        let highest = heights.map(|(height, _)| *height).fold(0.0, f64::max);
        [0.0, if highest > 0.0 { highest * 1.05 } else { 1.0 }]
    }

    fn x_axis(&self, size: Size) -> Vec<Mark> {
        let width = self.group_width(size);
        let longest = self.groups.iter().map(|name| name.chars().count()).max().unwrap_or(1);
        // Letters are some 7 pixels wide; labels that would touch are left out evenly.
        let every = ((longest as f64 * 7.0 + 8.0) / width).ceil().max(1.0) as usize;
        let labels = self.groups.iter().enumerate().step_by(every).map(|(place, name)| {
            let x = LEFT + (place as f64 + 0.5) * width;
            Mark::text([x, size.height - BOTTOM + 15.0], name.clone(), "label middle")
        });
        let middle = (LEFT + size.width - RIGHT) / 2.0;
        let name = Mark::text(
            [middle, size.height - 4.0],
            self.x_name.clone(),
            "label middle axis-name",
        );
        labels.chain([name]).collect()
    }
}

impl Drawing for BarChart {
    fn places(&self) -> usize {
        self.groups.len()
    }

    fn nearest(&self, [x, _]: [f64; 2], size: Size) -> usize {
        let place = (x - LEFT) / self.group_width(size);
        (place.max(0.0) as usize).min(self.groups.len().saturating_sub(1))
    }

    fn marks(&self, size: Size) -> Vec<Mark> {
        let percent = |value: f64, _| format!("{:.0} %", value * 100.0);
        let (y_scale, mut marks) = value_axis(self.range(), size, percent);
        marks.extend(self.x_axis(size));
        let width = self.group_width(size);
        let bar = width * 0.8 / self.series.len().max(1) as f64;
        for (number, bars) in self.series.iter().enumerate() {
            let class = format!("bar series-{}", bars.series);
            let drawn = bars.heights.iter().enumerate().filter(|(_, (height, _))| *height > 0.0);
            marks.extend(drawn.map(|(place, (height, _))| {
                let left = LEFT + place as f64 * width + width * 0.1 + number as f64 * bar;
                let corner = [left + bar - 1.0, y_scale.place(0.0)];
                Mark::rectangle([left, y_scale.place(*height)], corner, &class)
            }));
        }
        marks
    }

    fn pointer(&self, size: Size, place: usize) -> Vec<Mark> {
        let width = self.group_width(size);
        let left = LEFT + place as f64 * width;
        let y_scale = Scale::new(self.range(), [size.height - BOTTOM, super::TOP]);
        let corner = [left + width, y_scale.place(0.0)];
        vec![Mark::rectangle([left, super::TOP], corner, "pointer-group")]
    }

    fn name_of(&self, place: usize) -> String {
        let name = self.groups.get(place).map_or("", String::as_str);
        format!("{} {name}", self.x_name)
    }

    fn readings(&self, place: usize) -> Vec<Reading> {
        let reading = |bars: &Bars| Reading {
            series: bars.series,
            class: "",
            name: bars.name.clone(),
            value: bars
                .heights
                .get(place)
                .map_or_else(String::new, |(_, said)| said.clone()),
        };
        self.series.iter().map(reading).collect()
    }

    fn part(&self, Zoom { first, last }: Zoom) -> Option<AnyDrawing> {
        let series = self.series.iter().map(|bars| {
            Some(Bars {
                heights: bars.heights.get(first..=last)?.to_vec(),
                ..bars.clone()
            })
        });
        Some(Arc::new(Self {
            x_name: self.x_name.clone(),
            groups: self.groups.get(first..=last)?.to_vec(),
            series: series.collect::<Option<_>>()?,
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: Size = Size {
        width: 462.0,
        height: 200.0,
    };

    fn chart() -> BarChart {
        let bars = |name: &str, series, heights: [f64; 4]| Bars {
            name: name.into(),
            series,
            heights: heights.map(|height| (height, format!("{height}"))).to_vec(),
        };
        BarChart {
            x_name: "rank".into(),
            groups: ["1", "2–3", "4–7", "8–15"].map(String::from).to_vec(),
            series: vec![
                bars("generated", 0, [0.5, 0.25, 0.25, 0.0]),
                bars("reference", 1, [0.0, 0.5, 0.25, 0.25]),
            ],
        }
    }

    #[test]
    fn every_group_is_found_under_the_pointer() {
        let chart = chart();
        // Four groups share 400 pixels from 50 on.
        for (x, place) in [(0.0, 0), (60.0, 0), (151.0, 1), (300.0, 2), (449.0, 3), (900.0, 3)] {
            assert_eq!(chart.nearest([x, 0.0], SIZE), place, "at {x}");
        }
        assert_eq!(chart.name_of(1), "rank 2–3");
        assert_eq!(chart.readings(1)[1].value, "0.5");
    }

    #[test]
    fn a_bar_without_height_is_not_drawn() {
        let bars = |class: &str| {
            let marks = chart().marks(SIZE);
            let found = marks
                .iter()
                .filter(|mark| matches!(mark, Mark::Path { class: found, .. } if found == class));
            found.count()
        };
        assert_eq!((bars("bar series-0"), bars("bar series-1")), (3, 3));
    }
}
