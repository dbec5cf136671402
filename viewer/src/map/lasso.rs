//! The line that one draws around points.

/// Whether a point is inside a closed line: a ray from it crosses the line an odd number of times.
pub fn is_inside(line: &[[f64; 2]], [x, y]: [f64; 2]) -> bool {
    let mut inside = false;
    let mut before = line.last();
    for point in line {
        if let Some(before) = before {
            let spans = (point[1] > y) != (before[1] > y);
            if spans && x < (before[0] - point[0]) * (y - point[1]) / (before[1] - point[1]) + point[0] {
                inside = !inside;
            }
        }
        before = Some(point);
    }
    inside
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bent_line_has_its_inside() {
        // An L.
        let line = [[0.0, 0.0], [4.0, 0.0], [4.0, 1.0], [1.0, 1.0], [1.0, 4.0], [0.0, 4.0]];
        for (point, inside) in [
            ([0.5, 3.0], true),
            ([3.0, 0.5], true),
            ([3.0, 3.0], false),
            ([-1.0, 0.5], false),
        ] {
            assert_eq!(is_inside(&line, point), inside, "{point:?}");
        }
        assert!(!is_inside(&[], [0.0, 0.0]) && !is_inside(&[[1.0, 1.0]], [1.0, 1.0]));
    }
}
