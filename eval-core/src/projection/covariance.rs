//! The covariance of rows, by tiles whose sums stay in registers.

use super::Rows;
use crate::{Error, parallel};

/// Rows that are read at a time.
const PANEL: usize = 256;
/// Columns of a tile: its four by four sums fit the registers.
const TILE: usize = 4;

/// Σ (x − mean)(x − mean)ᵀ / rows, `[dims, dims]`. Sums go row by row within a panel and panel by panel, whatever the threads.
pub(super) fn covariance(rows: &Rows<'_>, mean: &[f64]) -> Result<Vec<f64>, Error> {
    let dims = mean.len();
    let tiles = dims.div_ceil(TILE);
    let count = rows.store.rows();
    let mut sums = vec![0.0; dims * dims];
    let (mut row, mut first) = (Vec::new(), 0);
    while first < count {
        let height = PANEL.min(count - first);
        // Column tile after column tile, each with its part of every row.
        let mut panel = vec![[0.0; TILE]; tiles * height];
        for place in 0..height {
            rows.read(first + place, &mut row)?;
            row.iter_mut().zip(mean).for_each(|(value, mean)| *value -= mean);
            for (tile, part) in row.chunks(TILE).enumerate() {
                panel[tile * height + place][..part.len()].copy_from_slice(part);
            }
        }
        let column = |tile: usize| &panel[tile * height..(tile + 1) * height];
        let strips = parallel::map(tiles, |tile| {
            let products = (tile..tiles).map(|other| product(column(tile), column(other)));
            products.collect::<Vec<_>>()
        });
        for (tile, strip) in strips.iter().enumerate() {
            for (other, product) in (tile..tiles).zip(strip) {
                add(&mut sums, dims, [tile * TILE, other * TILE], product);
            }
        }
        first += height;
    }
    let count = count.max(1) as f64;
    for i in 0..dims {
        for j in i..dims {
            let value = sums[i * dims + j] / count;
            sums[i * dims + j] = value;
            sums[j * dims + i] = value;
        }
    }
    Ok(sums)
}

fn product(a: &[[f64; TILE]], b: &[[f64; TILE]]) -> [[f64; TILE]; TILE] {
    let mut sums = [[0.0; TILE]; TILE];
    for (a, b) in a.iter().zip(b) {
        for (sums, a) in sums.iter_mut().zip(a) {
            for (sum, b) in sums.iter_mut().zip(b) {
                *sum += a * b;
            }
        }
    }
    sums
}

/// Adds a tile at its place; what lies beyond the last dimension is left out.
fn add(sums: &mut [f64], dims: usize, [top, left]: [usize; 2], tile: &[[f64; TILE]; TILE]) {
    for (i, values) in (top..dims).zip(tile) {
        for (j, value) in (left..dims).zip(values) {
            sums[i * dims + j] += value;
        }
    }
}
