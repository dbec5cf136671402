//! Dot products in a fixed order: lane `l` of 16 sums the products of columns `l, l + 16, …` in turn, then the lanes are
//! added pairwise, lane `l` with `l + 8`, `l + 4`, `l + 2`, `l + 1`. Each product is rounded before it is added.
//!
//! How many rows a tile takes at once, and how wide the processor's registers are, changes the speed and not one bit.

use std::ops::Range;

/// Number of running sums; rows are padded with zeros to a multiple of it.
pub(super) const LANES: usize = 16;

/// `dims` rounded up to whole lanes.
pub(super) fn stride(dims: usize) -> usize {
    dims.next_multiple_of(LANES)
}

/// The dot products of all rows of `queries` with all rows of `items`, to `scores[query * items + item]`.
///
/// Of the tiles tried on an AMD EPYC, 2 × 2 was the quickest, with AVX2 (one core: 16 G multiply-adds a second against
/// 14 for 1 × 4) and with SSE2: its running sums fit the registers. `examples/retrieval_speed.rs` measures it.
pub(super) fn dot_products(queries: &[f32], items: &[f32], stride: usize, scores: &mut [f32]) {
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx2") {
        // SAFETY: the processor has the feature that the function is compiled for.
        return unsafe { dot_products_avx2(queries, items, stride, scores) };
    }
    in_tiles::<2, 2>(queries, items, stride, scores);
}

#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2")]
fn dot_products_avx2(queries: &[f32], items: &[f32], stride: usize, scores: &mut [f32]) {
    in_tiles::<2, 2>(queries, items, stride, scores);
}

/// Tiles of `Q` queries by `I` items, and smaller ones at the edges. The items' rows stay in the nearest cache meanwhile.
#[inline(always)]
fn in_tiles<const Q: usize, const I: usize>(queries: &[f32], items: &[f32], stride: usize, scores: &mut [f32]) {
    let (query_rows, item_rows) = (queries.len() / stride, items.len() / stride);
    let at = |query: usize, item: usize| query * item_rows + item;
    for item in blocks(item_rows, I) {
        for query in blocks(query_rows, Q) {
            if item.len() == I && query.len() == Q {
                let sums = tile::<Q, I>(rows(queries, stride, query.start), rows(items, stride, item.start));
                for (sums, query) in sums.iter().zip(query) {
                    scores[at(query, item.start)..][..I].copy_from_slice(sums);
                }
                continue;
            }
            for query in query {
                for item in item.clone() {
                    let sums = tile::<1, 1>(rows(queries, stride, query), rows(items, stride, item));
                    scores[at(query, item)] = sums[0][0];
                }
            }
        }
    }
}

/// `0..rows` in ranges of `size`, the last one shorter.
fn blocks(rows: usize, size: usize) -> impl Iterator<Item = Range<usize>> {
    (0..rows).step_by(size).map(move |first| first..rows.min(first + size))
}

/// `N` rows from `first` on, as chunks of lanes.
#[inline(always)]
fn rows<const N: usize>(values: &[f32], stride: usize, first: usize) -> [&[[f32; LANES]]; N] {
    std::array::from_fn(|row| values[(first + row) * stride..][..stride].as_chunks().0)
}

/// The products of each query with each item. The running sums fit the processor's registers, or the shape is a bad one.
#[inline(always)]
fn tile<const Q: usize, const I: usize>(queries: [&[[f32; LANES]]; Q], items: [&[[f32; LANES]]; I]) -> [[f32; I]; Q] {
    let mut sums = [[Lanes([0.0; LANES]); I]; Q];
    let chunks = queries[0].len();
    // Said once, so that the loop needs no bounds checks.
    let (queries, items) = (queries.map(|row| &row[..chunks]), items.map(|row| &row[..chunks]));
    for chunk in 0..chunks {
        for (sums, query) in sums.iter_mut().zip(&queries) {
            for (sum, item) in sums.iter_mut().zip(&items) {
                *sum = sum.plus_product(&query[chunk], &item[chunk]);
            }
        }
    }
    sums.map(|sums| sums.map(Lanes::sum))
}

/// The running sums of one dot product.
#[derive(Clone, Copy)]
struct Lanes([f32; LANES]);

impl Lanes {
    #[inline(always)]
    fn plus_product(self, a: &[f32; LANES], b: &[f32; LANES]) -> Self {
        let mut sums = self.0;
        for lane in 0..LANES {
            sums[lane] += a[lane] * b[lane];
        }
        Self(sums)
    }

    #[inline(always)]
    fn sum(self) -> f32 {
        sum_of_lanes(self.0)
    }
}

/// The lanes added pairwise.
#[inline(always)]
pub(super) fn sum_of_lanes(mut lanes: [f32; LANES]) -> f32 {
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0]
}

/// The length of a row, in f64, where no square of an f32 overflows or vanishes. The lanes are those of the dot product.
pub(super) fn length(row: &[f32]) -> f64 {
    let mut lanes = [0.0f64; LANES];
    for chunk in row.chunks(LANES) {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += f64::from(value) * f64::from(value);
        }
    }
    let mut width = LANES / 2;
    while width > 0 {
        for lane in 0..width {
            lanes[lane] += lanes[lane + width];
        }
        width /= 2;
    }
    lanes[0].sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    /// The documented order, said as plainly as possible.
    fn plain(a: &[f32], b: &[f32]) -> f32 {
        let mut lanes = [0.0f32; 16];
        (0..a.len()).for_each(|column| lanes[column % 16] += a[column] * b[column]);
        let eight: Vec<f32> = (0..8).map(|l| lanes[l] + lanes[l + 8]).collect();
        let four: Vec<f32> = (0..4).map(|l| eight[l] + eight[l + 4]).collect();
        (four[0] + four[2]) + (four[1] + four[3])
    }

    fn generated(count: usize, stride: usize, seed: u64) -> Vec<f32> {
        let stream = Stream::new(seed, 0);
        (0..count * stride)
            .map(|i| stream.bits(i as u64) as i32 as f32 / 2f32.powi(31))
            .collect()
    }

    #[test]
    fn every_tile_shape_gives_the_bits_of_the_documented_order() {
        for (query_rows, item_rows, stride) in [(1, 1, 16), (5, 7, 48), (4, 12, 160), (3, 1, 1024)] {
            let (queries, items) = (generated(query_rows, stride, 1), generated(item_rows, stride, 2));
            let expected: Vec<u32> = queries
                .chunks(stride)
                .flat_map(|query| items.chunks(stride).map(move |item| plain(query, item).to_bits()))
                .collect();
            let run = |kernel: fn(&[f32], &[f32], usize, &mut [f32])| {
                let mut scores = vec![0.0; query_rows * item_rows];
                kernel(&queries, &items, stride, &mut scores);
                scores.into_iter().map(f32::to_bits).collect::<Vec<_>>()
            };
            assert_eq!(run(dot_products), expected);
            assert_eq!(run(in_tiles::<1, 1>), expected);
            assert_eq!(run(in_tiles::<2, 2>), expected);
            assert_eq!(run(in_tiles::<1, 4>), expected);
            assert_eq!(run(in_tiles::<3, 2>), expected);
        }
    }

    #[test]
    fn lengths_of_tiny_and_huge_vectors_are_right() {
        assert_eq!(length(&[3e-30, 4e-30]) as f32, 5e-30);
        assert_eq!(length(&[3e30, 4e30]) as f32, 5e30);
    }
}
