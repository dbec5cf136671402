//! Vectors on a plane: principal component analysis of the items' vectors, in f64 with sums in a fixed order.
//!
//! ```
//! use eval_core::projection::PrincipalAxes;
//! use eval_core::retrieval::{EmbeddingStore, Similarity};
//!
//! // Items along a line, and a profile beside it.
//! let items = EmbeddingStore::from_f32(vec![0.0, 0.0, 2.0, 2.0, 4.0, 4.0], 2)?;
//! let axes = PrincipalAxes::fit(&items, Similarity::Dot)?;
//! assert!((axes.explained()[0] - 1.0).abs() < 1e-12); // all of the variance lies on the line
//! let profile = EmbeddingStore::from_f32(vec![2.0, 2.0], 2)?;
//! assert_eq!(axes.project(&profile)?, [[0.0, 0.0]]); // the mean of the items
//! # Ok::<(), eval_core::Error>(())
//! ```

mod covariance;
mod eigen;

use crate::retrieval::{EmbeddingStore, Similarity};
use crate::{Error, ErrorKind};

/// The two axes along which items differ most.
#[derive(Clone, Debug, PartialEq)]
pub struct PrincipalAxes {
    /// Whether vectors are scaled to length 1 first.
    scaled: bool,
    mean: Vec<f64>,
    axes: [Vec<f64>; 2],
    explained: [f64; 2],
}

impl PrincipalAxes {
    /// Finds the axes: the eigenvectors of the items' covariance with the largest eigenvalues, each with its largest component,
    /// the first of equal ones, above 0. Under cosine the vectors are scaled to length 1 first.
    ///
    /// Takes time by rows × dims². An axis along which items do not differ is all zeros.
    ///
    /// # Errors
    /// [`ErrorKind::ZeroVector`] under cosine.
    pub fn fit(items: &EmbeddingStore, similarity: Similarity) -> Result<Self, Error> {
        let scaled = similarity == Similarity::Cosine;
        let rows = Rows {
            store: items,
            scaled,
            what: "item",
        };
        let mean = rows.mean()?;
        let covariance = covariance::covariance(&rows, &mean)?;
        let variance: f64 = (0..mean.len())
            .map(|place| covariance[place * mean.len() + place])
            .sum();
        let found = eigen::top_two(&covariance, mean.len());
        let share = |value: f64| match variance > 0.0 {
            true => (value / variance).clamp(0.0, 1.0),
            false => 0.0,
        };
        let [first, second] = found;
        Ok(Self {
            scaled,
            mean,
            explained: [share(first.value), share(second.value).min(share(first.value))],
            axes: [first.vector, second.vector].map(upright),
        })
    }

    /// The share of the items' variance along each axis, the first the larger.
    pub fn explained(&self) -> [f64; 2] {
        self.explained
    }

    /// Where vectors lie on both axes; the mean of the items is at `[0, 0]`.
    ///
    /// # Errors
    /// [`ErrorKind::DimsDiffer`], and under cosine [`ErrorKind::ZeroVector`].
    pub fn project(&self, vectors: &EmbeddingStore) -> Result<Vec<[f32; 2]>, Error> {
        if vectors.dims() != self.mean.len() {
            let (items, queries) = (self.mean.len(), vectors.dims());
            return Err(ErrorKind::DimsDiffer { items, queries }.into());
        }
        let rows = Rows {
            store: vectors,
            scaled: self.scaled,
            what: "query",
        };
        let mut row = Vec::new();
        let mut points = Vec::with_capacity(vectors.rows());
        for number in 0..vectors.rows() {
            rows.read(number, &mut row)?;
            row.iter_mut().zip(&self.mean).for_each(|(value, mean)| *value -= mean);
            let along = |axis: &Vec<f64>| dot(axis, &row) as f32;
            points.push([along(&self.axes[0]), along(&self.axes[1])]);
        }
        Ok(points)
    }
}

/// Rows as they are analysed.
struct Rows<'a> {
    store: &'a EmbeddingStore,
    scaled: bool,
    what: &'static str,
}

impl Rows<'_> {
    fn read(&self, number: usize, row: &mut Vec<f64>) -> Result<(), Error> {
        row.clear();
        row.extend(self.store.row(number).iter().map(|&value| f64::from(value)));
        if self.scaled {
            let length = dot(row, row).sqrt();
            if length == 0.0 {
                let (what, row) = (self.what, number);
                return Err(ErrorKind::ZeroVector { what, row }.into());
            }
            row.iter_mut().for_each(|value| *value /= length);
        }
        Ok(())
    }

    fn mean(&self) -> Result<Vec<f64>, Error> {
        let mut mean = vec![0.0; self.store.dims()];
        let mut row = Vec::new();
        for number in 0..self.store.rows() {
            self.read(number, &mut row)?;
            mean.iter_mut().zip(&row).for_each(|(sum, value)| *sum += value);
        }
        let count = self.store.rows().max(1) as f64;
        mean.iter_mut().for_each(|sum| *sum /= count);
        Ok(mean)
    }
}

/// In the order of the places.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).fold(0.0, |sum, (a, b)| sum + a * b)
}

/// The vector or its opposite: an eigenvector is as good in both directions, so a rule decides.
fn upright(mut vector: Vec<f64>) -> Vec<f64> {
    let largest = vector.iter().fold(
        0.0f64,
        |largest, &value| if value.abs() > largest.abs() { value } else { largest },
    );
    if largest < 0.0 {
        vector.iter_mut().for_each(|value| *value = -*value);
    }
    vector
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Stream;

    fn store(values: &[f32], dims: usize) -> EmbeddingStore {
        EmbeddingStore::from_f32(values.to_vec(), dims).unwrap()
    }

    #[test]
    fn axes_of_a_cross_are_its_arms_and_point_upwards() {
        // Variance 8 along (0, −1), 2 along (1, 0), none along the third.
        let items = store(&[0., 4., 7., 0., -4., 7., 2., 0., 7., -2., 0., 7.], 3);
        let axes = PrincipalAxes::fit(&items, Similarity::Dot).unwrap();
        let explained = axes.explained();
        assert!(
            (explained[0] - 0.8).abs() < 1e-12 && (explained[1] - 0.2).abs() < 1e-12,
            "{explained:?}"
        );
        let points = axes.project(&store(&[1.0, 3.0, 9.0], 3)).unwrap();
        assert_eq!(points, [[3.0, 1.0]]);
    }

    #[test]
    fn under_cosine_lengths_do_not_count() {
        let (items, longer) = (
            store(&[1., 0., 0., 1., 1., 1.], 2),
            store(&[3., 0., 0., 0.5, 2., 2.], 2),
        );
        let axes = |items: &EmbeddingStore| PrincipalAxes::fit(items, Similarity::Cosine).unwrap();
        let points = |items: &EmbeddingStore| axes(items).project(&store(&[2.0, 0.0], 2)).unwrap()[0];
        let ([a, b], [c, d]) = (points(&items), points(&longer));
        assert!((a - c).abs() < 1e-6 && (b - d).abs() < 1e-6);
        let error = PrincipalAxes::fit(&store(&[1., 0., 0., 0.], 2), Similarity::Cosine).unwrap_err();
        assert!(error.to_string().starts_with("item row 1 is all zeros"), "{error}");
        let error = axes(&items).project(&store(&[0., 0.], 2)).unwrap_err();
        assert!(error.to_string().starts_with("query row 0 is all zeros"), "{error}");
    }

    #[test]
    fn items_that_are_all_the_same_lie_on_one_point() {
        for dims in [1, 2, 5, 9] {
            let items = store(&vec![1.5; dims * 3], dims);
            let axes = PrincipalAxes::fit(&items, Similarity::Dot).unwrap();
            assert_eq!(axes.explained(), [0.0, 0.0]);
            assert_eq!(axes.project(&items).unwrap(), [[0.0; 2]; 3]);
        }
        let axes = PrincipalAxes::fit(&store(&[], 4), Similarity::Dot).unwrap();
        assert_eq!(axes.explained(), [0.0, 0.0]);
        let error = axes.project(&store(&[1.0], 1)).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::DimsDiffer { items: 4, queries: 1 }));
    }

    #[test]
    fn a_single_dimension_is_the_first_axis() {
        let items = store(&[-1.0, 5.0], 1);
        let axes = PrincipalAxes::fit(&items, Similarity::Dot).unwrap();
        assert_eq!(axes.explained(), [1.0, 0.0]);
        assert_eq!(axes.project(&items).unwrap(), [[-3.0, 0.0], [3.0, 0.0]]);
    }

    #[test]
    fn projections_are_as_spread_as_the_shares_say_and_do_not_correlate() {
        let stream = Stream::new(3, 0);
        let value = |place: u64| stream.below(place, 2001) as f32 / 1000.0 - 1.0;
        // Columns of falling spread, more rows than one panel has, and dimensions that fill no tile.
        let (rows, dims) = (1000, 13);
        let values: Vec<f32> = (0..rows * dims)
            .map(|place| value(place as u64) / (1 + place % dims) as f32)
            .collect();
        let items = store(&values, dims);
        let axes = PrincipalAxes::fit(&items, Similarity::Dot).unwrap();
        let points = axes.project(&items).unwrap();
        let moment = |i: usize, j: usize| {
            let products = points.iter().map(|point| f64::from(point[i]) * f64::from(point[j]));
            products.sum::<f64>() / rows as f64
        };
        let column = |dim: usize| {
            let values = values.iter().skip(dim).step_by(dims).map(|&value| f64::from(value));
            let mean = values.clone().sum::<f64>() / rows as f64;
            values.map(|value| (value - mean) * (value - mean)).sum::<f64>() / rows as f64
        };
        let variance: f64 = (0..dims).map(column).sum();
        let [first, second] = axes.explained();
        assert!((moment(0, 0) / variance - first).abs() < 1e-6);
        assert!((moment(1, 1) / variance - second).abs() < 1e-6);
        assert!(moment(0, 1).abs() < 1e-6);
        assert!(first > second);
    }
}
