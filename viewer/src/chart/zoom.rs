//! Which part of a chart is shown.

/// The first and the last point that are shown, by their places in the whole chart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Zoom {
    /// The first point.
    pub first: usize,
    /// The last point, beyond the first.
    pub last: usize,
}

impl Zoom {
    /// From one point to another, in any order; `None` for a single one.
    pub fn between(a: usize, b: usize) -> Option<Self> {
        (a != b).then(|| Self {
            first: a.min(b),
            last: a.max(b),
        })
    }

    /// What is left of it in a chart of `places` points.
    pub fn within(self, places: usize) -> Option<Self> {
        Self::between(self.first, self.last.min(places.saturating_sub(1))).filter(|_| self.first < places)
    }

    /// Half as many points around one, at least three; `None` shows all of `places`.
    pub fn closer(now: Option<Self>, at: usize, places: usize) -> Option<Self> {
        Self::around(at, Self::reach(now, places) / 2, places)
    }

    /// Twice as many points around one; `None` shows all of `places`.
    pub fn further(now: Option<Self>, at: usize, places: usize) -> Option<Self> {
        Self::around(at, Self::reach(now, places) * 2, places)
    }

    /// How many steps it is from the first to the last point.
    fn reach(now: Option<Self>, places: usize) -> usize {
        now.map_or(places.saturating_sub(1), |zoom| zoom.last - zoom.first)
    }

    fn around(at: usize, reach: usize, places: usize) -> Option<Self> {
        let end = places.saturating_sub(1);
        let reach = reach.max(2);
        if reach >= end {
            return None;
        }
        let first = at.saturating_sub(reach / 2).min(end - reach);
        Self::between(first, first + reach)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn zoom(first: usize, last: usize) -> Option<Zoom> {
        Some(Zoom { first, last })
    }

    #[test]
    fn a_range_is_chosen_in_any_direction_and_a_point_is_none() {
        assert_eq!(Zoom::between(7, 3), zoom(3, 7));
        assert_eq!(Zoom::between(3, 3), None);
    }

    #[test]
    fn a_range_stays_inside_a_chart_that_has_become_smaller() {
        let of = |first, last, places| Zoom { first, last }.within(places);
        assert_eq!(of(3, 7, 10), zoom(3, 7));
        assert_eq!(of(3, 7, 6), zoom(3, 5));
        assert_eq!((of(3, 7, 4), of(3, 7, 2), of(3, 7, 0)), (None, None, None));
    }

    #[test]
    fn closer_and_further_keep_the_point_in_view() {
        assert_eq!(Zoom::closer(None, 50, 101), zoom(25, 75));
        assert_eq!(Zoom::closer(zoom(25, 75), 74, 101), zoom(62, 87));
        assert_eq!(Zoom::closer(None, 100, 101), zoom(50, 100), "at the end");
        assert_eq!(
            Zoom::closer(zoom(4, 6), 5, 101),
            zoom(4, 6),
            "three points are the fewest"
        );
        assert_eq!(Zoom::closer(None, 1, 3), None, "so few are never cut");
        assert_eq!(Zoom::further(zoom(25, 75), 50, 101), None);
        assert_eq!(Zoom::further(zoom(4, 6), 5, 101), zoom(3, 7));
    }
}
