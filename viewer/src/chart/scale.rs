//! From values to places in a drawing, and the round values that an axis names.

/// A linear scale.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scale {
    values: [f64; 2],
    places: [f64; 2],
}

impl Scale {
    /// The scale that puts `values[0]` at `places[0]` and `values[1]` at `places[1]`. Without extent all values lie in the middle.
    pub fn new(values: [f64; 2], places: [f64; 2]) -> Self {
        Self { values, places }
    }

    /// Where a value lies.
    pub fn place(self, value: f64) -> f64 {
        let [low, high] = self.values;
        let [from, to] = self.places;
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        from + share * (to - from)
    }

    /// The value at a place.
    pub fn value(self, place: f64) -> f64 {
        let back = Self {
            values: self.places,
            places: self.values,
        };
        match self.places[1] >= self.places[0] {
            true => back.place(place),
            false => Self {
                values: [self.places[1], self.places[0]],
                places: [self.values[1], self.values[0]],
            }
            .place(place),
        }
    }
}

/// Round values within a range, about so many, and the step between them: 1, 2 or 5 times a power of ten.
pub fn ticks([low, high]: [f64; 2], about: usize) -> (Vec<f64>, f64) {
    let extent = high - low;
    if extent.partial_cmp(&0.0) != Some(std::cmp::Ordering::Greater) || !extent.is_finite() {
        return (vec![low], 1.0);
    }
    let rough = extent / about.max(1) as f64;
    let power = 10f64.powf(rough.log10().floor());
    let factor = [1.0, 2.0, 5.0]
        .into_iter()
        .find(|factor| factor * power >= rough * 0.999);
    let step = factor.unwrap_or(10.0) * power;
    let first = (low / step - 1e-9).ceil() as i64;
    let last = (high / step + 1e-9).floor() as i64;
    ((first..=last).map(|place| place as f64 * step).collect(), step)
}

/// A tick's value with as many decimals as its step needs.
pub fn tick_label(value: f64, step: f64) -> String {
    let decimals = (-step.log10().floor()).max(0.0);
    if decimals > 5.0 || value.abs() >= 1e6 {
        return format!("{value:.1e}");
    }
    // Minus nought is nought.
    format!("{:.*}", decimals as usize, value + 0.0)
}

/// A value with four significant digits.
pub fn number(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        return "0".to_owned();
    }
    if !(1e-4..1e6).contains(&size) {
        return format!("{value:.3e}");
    }
    let decimals = (3.0 - size.log10().floor()).clamp(0.0, 8.0);
    format!("{value:.*}", decimals as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_goes_there_and_back() {
        let down = Scale::new([0.0, 10.0], [100.0, 0.0]);
        assert_eq!(down.place(2.5), 75.0);
        assert_eq!(down.value(75.0), 2.5);
        let right = Scale::new([1.0, 3.0], [50.0, 150.0]);
        assert_eq!((right.place(2.0), right.value(100.0)), (100.0, 2.0));
        assert_eq!(
            Scale::new([4.0, 4.0], [0.0, 10.0]).place(4.0),
            5.0,
            "one value lies in the middle"
        );
    }

    #[test]
    fn ticks_are_round_and_within_their_range() {
        assert_eq!(ticks([0.0, 10.0], 5).0, [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(ticks([1.0, 41.0], 4).0, [10.0, 20.0, 30.0, 40.0]);
        let (values, step) = ticks([-0.12, 0.31], 4);
        let labels: Vec<_> = values.iter().map(|&value| tick_label(value, step)).collect();
        assert_eq!(labels, ["0.0", "0.2"]);
        assert_eq!(ticks([3.0, 3.0], 4).0, [3.0]);
        assert_eq!(ticks([f64::NEG_INFINITY, 1.0], 4).0.len(), 1);
    }

    #[test]
    fn labels_have_the_decimals_of_their_step() {
        assert_eq!(tick_label(0.15, 0.05), "0.15");
        assert_eq!(tick_label(20.0, 20.0), "20");
        assert_eq!(tick_label(-0.0, 0.5), "0.0");
        assert_eq!(tick_label(0.000_002, 0.000_001), "2.0e-6");
    }

    #[test]
    fn numbers_have_four_significant_digits() {
        assert_eq!(number(0.123_456), "0.1235");
        assert_eq!(number(-12.345), "-12.35");
        assert_eq!(number(1234.6), "1235");
        assert_eq!(number(0.0), "0");
        assert_eq!(number(0.000_012_34), "1.234e-5");
    }
}
