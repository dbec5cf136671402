//! The points of a kind in the cells of a grid, so that what is near is found without a look at every point.

/// So many points share a cell on the average.
const IN_A_CELL: f64 = 4.0;

/// At most so many cells lie along an axis.
const ALONG: f64 = 512.0;

/// Where in a list the points of each cell are.
#[derive(Clone, Debug, Default)]
pub struct Cells {
    low: [f64; 2],
    /// The edge of a cell.
    edge: f64,
    /// Columns and rows.
    counts: [i64; 2],
    /// Where in `numbers` each cell begins, row after row, and where the last ends.
    starts: Vec<u32>,
    /// The numbers of the points, cell after cell.
    numbers: Vec<u32>,
}

impl Cells {
    /// Sorts points into cells.
    pub fn new(points: &[[f32; 2]]) -> Self {
        let [low, high] = super::camera::bounds(points.iter());
        let extent = [high[0] - low[0], high[1] - low[1]];
        let longest = extent[0].max(extent[1]);
        let edge = (extent[0] * extent[1] * IN_A_CELL / points.len().max(1) as f64)
            .sqrt()
            .max(longest / ALONG)
            .max(f64::MIN_POSITIVE);
        let counts = extent.map(|extent| (extent / edge) as i64 + 1);
        let mut cells = Self {
            low,
            edge,
            counts,
            starts: vec![0; (counts[0] * counts[1]) as usize + 1],
            numbers: vec![0; points.len()],
        };
        let places: Vec<usize> = points.iter().map(|&point| cells.place(point)).collect();
        for &place in &places {
            cells.starts[place + 1] += 1;
        }
        for place in 1..cells.starts.len() {
            cells.starts[place] += cells.starts[place - 1];
        }
        let mut next = cells.starts.clone();
        for (number, &place) in places.iter().enumerate() {
            cells.numbers[next[place] as usize] = number as u32;
            next[place] += 1;
        }
        cells
    }

    /// The column and row in which a point lies, be it in the grid or not.
    fn cell(&self, point: [f64; 2]) -> [i64; 2] {
        // A cast takes what lies outside for the nearest number; half of it leaves room for sums.
        std::array::from_fn(|axis| {
            (((point[axis] - self.low[axis]) / self.edge).floor() as i64).clamp(-(1 << 40), 1 << 40)
        })
    }

    /// The cell's number of a point that was sorted in.
    fn place(&self, point: [f32; 2]) -> usize {
        let cell = self.cell(point.map(f64::from));
        let [column, row]: [i64; 2] = std::array::from_fn(|axis| cell[axis].clamp(0, self.counts[axis] - 1));
        (row * self.counts[0] + column) as usize
    }

    /// Calls `visit` with the points cell by cell, ring after ring around `to`, and ends where no point of a ring can be within
    /// `reach`. Each call says how far that is from then on.
    pub fn around(&self, to: [f64; 2], mut reach: f64, visit: &mut dyn FnMut(u32) -> f64) {
        let [column, row] = self.cell(to);
        let beyond = |at: i64, count: i64| (-at).max(at - count + 1).max(0);
        let farthest = |at: i64, count: i64| at.abs().max((count - 1 - at).abs());
        let nearest = beyond(column, self.counts[0]).max(beyond(row, self.counts[1]));
        let last = farthest(column, self.counts[0]).max(farthest(row, self.counts[1]));
        for ring in nearest..=last {
            // Rounding may have put a point on the wrong side of an edge.
            if (ring - 1) as f64 * self.edge * (1.0 - 1e-9) > reach {
                return;
            }
            for at in (row - ring).max(0)..=(row + ring).min(self.counts[1] - 1) {
                let is_whole = (at - row).abs() == ring;
                let step = if is_whole { 1 } else { (2 * ring).max(1) };
                let mut across = column - ring;
                while across <= column + ring {
                    if is_whole && across < 0 {
                        across = 0;
                    }
                    if across >= self.counts[0] {
                        break;
                    }
                    if across >= 0 {
                        for &number in self.of_cell((at * self.counts[0] + across) as usize) {
                            reach = visit(number);
                        }
                    }
                    across += step;
                }
            }
        }
    }

    fn of_cell(&self, cell: usize) -> &[u32] {
        let range = self.starts[cell] as usize..self.starts[cell + 1] as usize;
        &self.numbers[range]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All points in the order in which they are visited, when everything matters.
    fn visited(points: &[[f32; 2]], to: [f64; 2]) -> Vec<u32> {
        let mut visited = Vec::new();
        Cells::new(points).around(to, f64::INFINITY, &mut |number| {
            visited.push(number);
            f64::INFINITY
        });
        visited
    }

    fn many() -> Vec<[f32; 2]> {
        (0..3000)
            .map(|i| [(i * 37 % 101) as f32, (i * 53 % 997) as f32 / 9.0])
            .collect()
    }

    #[test]
    fn every_point_is_visited_once_from_wherever_one_looks() {
        let points = many();
        for to in [
            [50.0, 50.0],
            [-300.0, 20.0],
            [20.0, 1e9],
            [0.0, 0.0],
            [f64::MAX, f64::MIN],
        ] {
            let mut found = visited(&points, to);
            found.sort_unstable();
            assert!(found.into_iter().eq(0..3000), "{to:?}");
        }
    }

    #[test]
    fn nearer_rings_come_first_and_the_far_ones_not_at_all() {
        let points = many();
        let cells = Cells::new(&points);
        for to in [[50.5, 50.25], [-7.0, 3.0], [101.0, 111.0]] {
            let distance = |number: u32| {
                let [x, y] = points[number as usize].map(f64::from);
                (x - to[0]).hypot(y - to[1])
            };
            let mut nearest = f64::INFINITY;
            let mut looked_at = 0;
            cells.around(to, nearest, &mut |number| {
                looked_at += 1;
                nearest = distance(number).min(nearest);
                nearest
            });
            let expected = (0..3000).map(distance).fold(f64::INFINITY, f64::min);
            assert_eq!(nearest, expected, "{to:?}");
            assert!(looked_at < 300, "{looked_at} points were looked at");
            cells.around([-900.0, 0.0], 20.0, &mut |number| panic!("{number} is too far away"));
        }
    }

    #[test]
    fn no_point_one_point_and_points_in_one_place_have_cells_too() {
        assert!(visited(&[], [0.0, 0.0]).is_empty());
        assert_eq!(visited(&[[3.0, 4.0]], [1.0, 1.0]), [0]);
        assert_eq!(visited(&[[3.0, 4.0]; 3], [1e30, 1.0]), [0, 1, 2]);
        assert_eq!(visited(&[[0.0, 0.0], [1e30, -1e30]], [0.0, 0.0]), [0, 1]);
    }
}
