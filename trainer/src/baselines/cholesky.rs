//! The inverse of a symmetric positive definite matrix, in double precision.

use rayon::prelude::*;

/// Columns factorised, and columns inverted, together: their rows stay in the cache while others pass by.
const BLOCK: usize = 32;

/// A matrix that has no Cholesky factor.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("the matrix is not positive definite: pivot {pivot} is {value}")]
pub struct NotPositive {
    /// The row.
    pub pivot: usize,
    /// What was to have a square root.
    pub value: f64,
}

/// The inverse of a symmetric positive definite `matrix`, `[size, size]`, of which only the lower triangle is read; whole.
///
/// # Errors
/// When the matrix is not positive definite.
pub(super) fn inverse(mut matrix: Vec<f64>, size: usize) -> Result<Vec<f64>, NotPositive> {
    factorise(&mut matrix, size)?;
    let columns = inverse_columns(&matrix, size);
    // A⁻¹ = L⁻ᵀ·L⁻¹: row i of `columns` is column i of L⁻¹, which is 0 before place i.
    matrix
        .par_chunks_mut(BLOCK * size)
        .enumerate()
        .for_each(|(block, rows)| {
            for (column, other) in columns.chunks_exact(size).enumerate() {
                for (row, values) in (block * BLOCK..).zip(rows.chunks_exact_mut(size)) {
                    let from = row.max(column);
                    values[column] = dot(&columns[row * size + from..(row + 1) * size], &other[from..]);
                }
            }
        });
    Ok(matrix)
}

/// Replaces the lower triangle by the factor L of A = L·Lᵀ, block of columns by block of columns.
fn factorise(matrix: &mut [f64], size: usize) -> Result<(), NotPositive> {
    for first in (0..size).step_by(BLOCK) {
        let last = (first + BLOCK).min(size);
        let (upper, lower) = matrix.split_at_mut(last * size);
        for row in first..last {
            let (above, from_row) = upper.split_at_mut(row * size);
            let values = &mut from_row[..size];
            eliminate(values, above, first..row, size);
            let value = values[row] - dot(&values[..row], &values[..row]);
            if value.is_nan() || value <= 0.0 {
                return Err(NotPositive { pivot: row, value });
            }
            values[row] = value.sqrt();
        }
        lower
            .par_chunks_exact_mut(size)
            .for_each(|values| eliminate(values, upper, first..last, size));
    }
    Ok(())
}

/// Computes the entries of `columns` in one row of L; all entries before them are there already.
fn eliminate(values: &mut [f64], factor: &[f64], columns: std::ops::Range<usize>, size: usize) {
    for column in columns {
        let other = &factor[column * size..][..=column];
        values[column] = (values[column] - dot(&values[..column], &other[..column])) / other[column];
    }
}

/// The columns of L⁻¹, one a row.
fn inverse_columns(factor: &[f64], size: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; size * size];
    inverse
        .par_chunks_mut(BLOCK * size)
        .enumerate()
        .for_each(|(block, columns)| {
            for place in block * BLOCK..size {
                let row = &factor[place * size..][..=place];
                for (column, values) in (block * BLOCK..=place).zip(columns.chunks_exact_mut(size)) {
                    let unit = f64::from(u8::from(place == column));
                    values[place] = (unit - dot(&row[column..place], &values[column..place])) / row[place];
                }
            }
        });
    inverse
}

/// Summed over eight lanes, which the processor adds at once.
fn dot(first: &[f64], second: &[f64]) -> f64 {
    const LANES: usize = 8;
    let (whole, rest) = first.as_chunks::<LANES>();
    let (other_whole, other_rest) = second.as_chunks::<LANES>();
    let mut lanes = [0.0; LANES];
    for (a, b) in whole.iter().zip(other_whole) {
        for lane in 0..LANES {
            lanes[lane] += a[lane] * b[lane];
        }
    }
    lanes.iter().sum::<f64>() + rest.iter().zip(other_rest).map(|(a, b)| a * b).sum::<f64>()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_two_by_two_matrix_has_the_inverse_of_the_textbook() {
        let inverse = inverse(vec![4.0, f64::NAN, 2.0, 3.0], 2).unwrap();
        let expected = [3.0 / 8.0, -2.0 / 8.0, -2.0 / 8.0, 4.0 / 8.0];
        assert!(
            inverse
                .iter()
                .zip(expected)
                .all(|(found, expected)| (found - expected).abs() < 1e-15),
            "{inverse:?}"
        );
    }

    #[test]
    fn a_matrix_times_its_inverse_is_the_unit_matrix_across_blocks() {
        let size = 2 * BLOCK + 7;
        // Diagonally dominant, hence positive definite.
        let entry = |row: usize, column: usize| match row == column {
            true => size as f64,
            false => ((row * column + row + column) % 13) as f64 / 13.0,
        };
        let matrix: Vec<f64> = (0..size * size)
            .map(|place| entry(place / size, place % size))
            .collect();
        let inverse = inverse(matrix.clone(), size).unwrap();
        for row in 0..size {
            for column in 0..size {
                let product: f64 = (0..size)
                    .map(|k| matrix[row * size + k] * inverse[k * size + column])
                    .sum();
                assert!(
                    (product - f64::from(u8::from(row == column))).abs() < 1e-12,
                    "{row} {column} {product}"
                );
            }
        }
    }

    #[test]
    fn a_matrix_that_is_not_positive_definite_is_an_error_that_names_the_pivot() {
        assert_eq!(
            inverse(vec![1.0, 2.0, 2.0, 1.0], 2),
            Err(NotPositive { pivot: 1, value: -3.0 })
        );
    }
}
