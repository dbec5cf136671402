//! The largest eigenvalues of a symmetric matrix.
//!
//! Orthogonal iteration on a few more vectors than are asked for, each round rotated to the best that they span (Rayleigh–Ritz);
//! Golub & Van Loan, Matrix Computations, 8.2 and 8.4.

use super::dot;
use crate::parallel;
use crate::random::Stream;

/// Vectors that are iterated. The more, the faster the first two come out.
const BLOCK: usize = 8;
/// Rounds at most; close eigenvalues may not be told apart by then, and need not be.
const ROUNDS: usize = 1000;
/// What may be wrong with an eigenvector, relative to the sum of all eigenvalues.
const TOLERANCE: f64 = 1e-12;

/// An eigenvalue with its vector, of length 1 or all zeros where the value is 0.
#[derive(Debug)]
pub(super) struct Eigen {
    pub(super) value: f64,
    pub(super) vector: Vec<f64>,
}

/// The two largest of a matrix `[dims, dims]` without negative eigenvalues.
pub(super) fn top_two(matrix: &[f64], dims: usize) -> [Eigen; 2] {
    let sum: f64 = (0..dims).map(|place| matrix[place * dims + place]).sum();
    let draws = Stream::new(0, 0);
    let start = |vector: usize, place: usize| draws.below((vector * dims + place) as u64, 2001) as f64 - 1000.0;
    let block = BLOCK.min(dims);
    let mut vectors: Vec<Vec<f64>> = (0..block)
        .map(|vector| (0..dims).map(|place| start(vector, place)).collect())
        .collect();
    orthonormalise(&mut vectors);
    let mut values = vec![0.0; block];
    for _ in 0..ROUNDS {
        let images: Vec<Vec<f64>> = vectors.iter().map(|vector| times(matrix, vector)).collect();
        let small: Vec<Vec<f64>> = vectors
            .iter()
            .map(|vector| images.iter().map(|image| dot(vector, image)).collect())
            .collect();
        let (found, rotation) = diagonalise(small);
        values = found;
        vectors = rotate(&vectors, &rotation);
        let images = rotate(&images, &rotation);
        let wrong = |place: usize| {
            let differences = images[place].iter().zip(&vectors[place]);
            differences
                .map(|(image, value)| (image - values[place] * value).abs())
                .fold(0.0, f64::max)
        };
        if (0..block.min(2)).all(|place| wrong(place) <= TOLERANCE * sum) {
            break;
        }
        vectors = images;
        orthonormalise(&mut vectors);
    }
    let mut found = values.into_iter().zip(vectors);
    let mut next = || match found.next() {
        // Rounding leaves a little where there is nothing.
        Some((value, vector)) if value > TOLERANCE * sum => Eigen { value, vector },
        _ => Eigen {
            value: 0.0,
            vector: vec![0.0; dims],
        },
    };
    [next(), next()]
}

fn times(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    let dims = vector.len();
    parallel::map(dims, |row| dot(&matrix[row * dims..(row + 1) * dims], vector))
}

/// Gram and Schmidt's way, twice, which is enough; a vector that the ones before span becomes zero.
fn orthonormalise(vectors: &mut [Vec<f64>]) {
    for place in 0..vectors.len() {
        let (before, rest) = vectors.split_at_mut(place);
        let Some(vector) = rest.first_mut() else { return };
        let length = dot(vector, vector).sqrt();
        for _ in 0..2 {
            for other in &*before {
                let along = dot(other, vector);
                vector
                    .iter_mut()
                    .zip(other)
                    .for_each(|(value, other)| *value -= along * other);
            }
        }
        let left = dot(vector, vector).sqrt();
        let scale = if left > 1e-13 * length { 1.0 / left } else { 0.0 };
        vector.iter_mut().for_each(|value| *value *= scale);
    }
}

/// Sums of the vectors: the i-th by column i of `rotation`.
fn rotate(vectors: &[Vec<f64>], rotation: &[Vec<f64>]) -> Vec<Vec<f64>> {
    (0..vectors.len())
        .map(|column| {
            let mut sum = vec![0.0; vectors[column].len()];
            for (vector, row) in vectors.iter().zip(rotation) {
                sum.iter_mut()
                    .zip(vector)
                    .for_each(|(sum, value)| *sum += row[column] * value);
            }
            sum
        })
        .collect()
}

/// Eigenvalues of a small symmetric matrix, descending, and their vectors as columns: Jacobi's rotations.
fn diagonalise(mut matrix: Vec<Vec<f64>>) -> (Vec<f64>, Vec<Vec<f64>>) {
    let size = matrix.len();
    let mut vectors: Vec<Vec<f64>> = (0..size)
        .map(|row| (0..size).map(|column| f64::from(u8::from(row == column))).collect())
        .collect();
    // Each sweep squares what is left beside the diagonal: a handful is enough for any matrix.
    for _ in 0..30 {
        for p in 0..size {
            for q in p + 1..size {
                if matrix[p][q] != 0.0 {
                    turn(&mut matrix, &mut vectors, p, q);
                }
            }
        }
    }
    let mut order: Vec<usize> = (0..size).collect();
    order.sort_by(|&a, &b| matrix[b][b].total_cmp(&matrix[a][a]));
    let values = order.iter().map(|&place| matrix[place][place]).collect();
    let columns = vectors
        .iter()
        .map(|row| order.iter().map(|&place| row[place]).collect())
        .collect();
    (values, columns)
}

/// Turns axes p < q so that the matrix has 0 between them.
fn turn(matrix: &mut [Vec<f64>], vectors: &mut [Vec<f64>], p: usize, q: usize) {
    let theta = (matrix[q][q] - matrix[p][p]) / (2.0 * matrix[p][q]);
    let tangent = theta.signum() / (theta.abs() + (theta * theta + 1.0).sqrt());
    let cosine = 1.0 / (tangent * tangent + 1.0).sqrt();
    let sine = tangent * cosine;
    let turned = |row: &mut Vec<f64>| {
        let (a, b) = (row[p], row[q]);
        row[p] = cosine * a - sine * b;
        row[q] = sine * a + cosine * b;
    };
    matrix.iter_mut().for_each(turned);
    vectors.iter_mut().for_each(turned);
    let (before, from) = matrix.split_at_mut(q);
    for (above, below) in before[p].iter_mut().zip(&mut from[0]) {
        let (a, b) = (*above, *below);
        *above = cosine * a - sine * b;
        *below = sine * a + cosine * b;
    }
    matrix[p][q] = 0.0;
    matrix[q][p] = 0.0;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_matrices_have_the_eigenvalues_of_their_characteristic_polynomials() {
        // (2 − λ)² − 1 = 0 and, beside it, 5.
        let (values, vectors) = diagonalise(vec![vec![2., 1., 0.], vec![1., 2., 0.], vec![0., 0., 5.]]);
        for (found, expected) in values.iter().zip([5.0, 3.0, 1.0]) {
            assert!((found - expected).abs() < 1e-15, "{values:?}");
        }
        assert!((vectors[0][1].abs() - 0.5f64.sqrt()).abs() < 1e-15, "{vectors:?}");
    }

    #[test]
    fn equal_eigenvalues_give_two_axes_at_right_angles() {
        let dims = 12;
        let mut matrix = vec![0.0; dims * dims];
        (0..dims).for_each(|place| matrix[place * dims + place] = 2.0);
        let [first, second] = top_two(&matrix, dims);
        assert!((first.value - 2.0).abs() < 1e-12 && (second.value - 2.0).abs() < 1e-12);
        assert!(dot(&first.vector, &second.vector).abs() < 1e-12);
        assert!((dot(&second.vector, &second.vector) - 1.0).abs() < 1e-12);
    }
}
