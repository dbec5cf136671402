//! Rows of f16, which take half the bytes of f32: widened to f32, and multiplied with a query without being stored as f32.
//!
//! Every f16 is an f32 exactly, so a dot product has the bits that the kernel gives for the widened row. One query over many
//! rows takes about as long as the rows take to come from memory; widening blocks of them first made it several times that.

use half::f16;
#[cfg(not(target_arch = "wasm32"))]
use half::slice::HalfFloatSliceExt;

use super::kernel::{self, LANES};

/// `row` as f32, to the first places of `into`.
pub(super) fn widen(row: &[f16], into: &mut [f32]) {
    #[cfg(target_arch = "wasm32")]
    wasm::widen(row, into);
    #[cfg(not(target_arch = "wasm32"))]
    row.convert_to_f32_slice(&mut into[..row.len()]);
}

/// Whether no value is infinite or no number.
pub(super) fn all_finite(values: &[f16]) -> bool {
    // Without a branch for each value.
    let exponent = |value: &f16| value.to_bits() & f16::INFINITY.to_bits();
    values.iter().map(exponent).fold(0, u16::max) < f16::INFINITY.to_bits()
}

/// The dot products of one query, padded to whole lanes, with `scores.len()` rows of `dims` values.
pub(super) fn dot_products(query: &[f32], rows: &[f16], dims: usize, scores: &mut [f32]) {
    #[cfg(target_arch = "wasm32")]
    return wasm::dot_products(query.as_chunks().0, rows, dims, scores);
    #[cfg(target_arch = "x86_64")]
    if is_x86_feature_detected!("avx") && is_x86_feature_detected!("f16c") {
        // SAFETY: the processor has the features that the function is compiled for.
        return unsafe { x86::dot_products(query.as_chunks().0, rows, dims, scores) };
    }
    #[cfg(not(target_arch = "wasm32"))]
    plain(query, rows, dims, scores);
}

/// On any processor: row after row is widened.
#[cfg(not(target_arch = "wasm32"))]
fn plain(query: &[f32], rows: &[f16], dims: usize, scores: &mut [f32]) {
    let mut wide = vec![0.0; query.len()];
    for (row, score) in rows.chunks_exact(dims).zip(scores) {
        widen(row, &mut wide);
        kernel::dot_products(query, &wide, query.len(), std::slice::from_mut(score));
    }
}

/// A row in whole chunks, and what is left of it padded with zeros.
#[cfg(any(target_arch = "x86_64", target_arch = "wasm32"))]
fn chunks(row: &[f16]) -> (&[[f16; LANES]], [f16; LANES]) {
    let (whole, rest) = row.as_chunks();
    let mut padded = [f16::ZERO; LANES];
    padded[..rest.len()].copy_from_slice(rest);
    (whole, padded)
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::{
        __m256, _mm_loadu_si128, _mm256_add_ps, _mm256_cvtph_ps, _mm256_loadu_ps, _mm256_mul_ps, _mm256_setzero_ps,
        _mm256_storeu_ps,
    };

    use super::{LANES, chunks, f16, kernel};

    /// Lanes in a register.
    const WIDTH: usize = 8;

    #[target_feature(enable = "avx,f16c")]
    pub(super) fn dot_products(query: &[[f32; LANES]], rows: &[f16], dims: usize, scores: &mut [f32]) {
        for (row, score) in rows.chunks_exact(dims).zip(scores) {
            let (whole, rest) = chunks(row);
            let mut sums = [_mm256_setzero_ps(); LANES / WIDTH];
            for (query, row) in query.iter().zip(whole) {
                add_products(&mut sums, query, row);
            }
            if let Some(query) = query.get(whole.len()) {
                add_products(&mut sums, query, &rest);
            }
            let mut lanes = [0.0; LANES];
            for (sum, lanes) in sums.into_iter().zip(lanes.as_chunks_mut::<WIDTH>().0) {
                // SAFETY: eight f32 are written to eight.
                unsafe { _mm256_storeu_ps(lanes.as_mut_ptr(), sum) };
            }
            *score = kernel::sum_of_lanes(lanes);
        }
    }

    #[inline]
    #[target_feature(enable = "avx,f16c")]
    fn add_products(sums: &mut [__m256; LANES / WIDTH], query: &[f32; LANES], row: &[f16; LANES]) {
        let parts = query.as_chunks::<WIDTH>().0.iter().zip(row.as_chunks::<WIDTH>().0);
        for (sum, (query, row)) in sums.iter_mut().zip(parts) {
            // SAFETY: eight f32 and eight f16, which are 16 bits each, are read from eight.
            let (query, row) = unsafe { (_mm256_loadu_ps(query.as_ptr()), _mm_loadu_si128(row.as_ptr().cast())) };
            *sum = _mm256_add_ps(*sum, _mm256_mul_ps(query, _mm256_cvtph_ps(row)));
        }
    }
}

#[cfg(target_arch = "wasm32")]
mod wasm {
    use std::arch::wasm32::{
        f32x4_add, f32x4_mul, f32x4_splat, i32x4_extend_high_i16x8, i32x4_extend_low_i16x8, i32x4_shl, i32x4_splat,
        v128, v128_and, v128_load, v128_store,
    };

    use super::{LANES, chunks, f16, kernel};

    #[target_feature(enable = "simd128")]
    pub(super) fn dot_products(query: &[[f32; LANES]], rows: &[f16], dims: usize, scores: &mut [f32]) {
        for (row, score) in rows.chunks_exact(dims).zip(scores) {
            let (whole, rest) = chunks(row);
            let mut sums = [f32x4_splat(0.0); LANES / 4];
            for (query, row) in query.iter().zip(whole) {
                sums = plus_products(sums, query, row);
            }
            if let Some(query) = query.get(whole.len()) {
                sums = plus_products(sums, query, &rest);
            }
            let mut lanes = [0.0; LANES];
            for (sum, lanes) in sums.into_iter().zip(lanes.as_chunks_mut::<4>().0) {
                // SAFETY: four f32 are written to four.
                unsafe { v128_store(lanes.as_mut_ptr().cast(), sum) };
            }
            *score = kernel::sum_of_lanes(lanes);
        }
    }

    #[target_feature(enable = "simd128")]
    pub(super) fn widen(row: &[f16], into: &mut [f32]) {
        let (whole, rest) = row.as_chunks::<8>();
        let (into, into_rest) = into[..row.len()].as_chunks_mut::<8>();
        for (row, into) in whole.iter().zip(into) {
            let [low, high] = widened(row);
            // SAFETY: twice four f32 are written to eight.
            unsafe {
                v128_store(into.as_mut_ptr().cast(), low);
                v128_store(into[4..].as_mut_ptr().cast(), high);
            }
        }
        for (value, into) in rest.iter().zip(into_rest) {
            *into = value.to_f32();
        }
    }

    #[inline]
    #[target_feature(enable = "simd128")]
    fn plus_products(sums: [v128; LANES / 4], query: &[f32; LANES], row: &[f16; LANES]) -> [v128; LANES / 4] {
        let ([first, second], [a, b, c, d]) = (row.as_chunks::<8>().0, query.as_chunks::<4>().0) else {
            return sums;
        };
        let ([first_low, first_high], [second_low, second_high]) = (widened(first), widened(second));
        [
            plus_product(sums[0], a, first_low),
            plus_product(sums[1], b, first_high),
            plus_product(sums[2], c, second_low),
            plus_product(sums[3], d, second_high),
        ]
    }

    #[inline]
    #[target_feature(enable = "simd128")]
    fn plus_product(sum: v128, query: &[f32; 4], row: v128) -> v128 {
        // SAFETY: four f32 are read from four.
        let query = unsafe { v128_load(query.as_ptr().cast()) };
        f32x4_add(sum, f32x4_mul(query, row))
    }

    #[inline]
    #[target_feature(enable = "simd128")]
    fn widened(row: &[f16; 8]) -> [v128; 2] {
        // SAFETY: eight f16, which are 16 bits each, are read from eight.
        let row = unsafe { v128_load(row.as_ptr().cast()) };
        [
            from_extended(i32x4_extend_low_i16x8(row)),
            from_extended(i32x4_extend_high_i16x8(row)),
        ]
    }

    /// Four finite f16, each extended with its sign to 32 bits. Exponent and mantissa, put where an f32 has them, are the value
    /// less a factor of 2^112, also where the f16 is subnormal: the product is exact. The shift brings a sign bit to the top.
    #[inline]
    #[target_feature(enable = "simd128")]
    fn from_extended(value: v128) -> v128 {
        let bits = v128_and(i32x4_shl(value, 13), i32x4_splat(0x8fff_e000_u32 as i32));
        f32x4_mul(bits, f32x4_splat(f32::from_bits(0x7780_0000)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Stream;

    /// `count` finite f16, small ones and subnormal ones among them.
    fn generated(count: usize, seed: u64) -> Vec<f16> {
        let stream = Stream::new(seed, 0);
        let values = (0..count).map(|place| f16::from_bits(stream.bits(place as u64) as u16 & 0xbbff));
        values.collect()
    }

    #[test]
    fn rows_of_every_width_give_the_bits_of_the_widened_rows() {
        for (rows, dims) in [(1, 1), (3, 15), (5, 16), (4, 90), (2, 1024)] {
            let stride = kernel::stride(dims);
            let halves = generated(rows * dims, dims as u64);
            let mut query = vec![0.0; stride];
            widen(&generated(dims, 7), &mut query);
            let mut wide = vec![0.0; rows * stride];
            for (row, into) in halves.chunks(dims).zip(wide.chunks_mut(stride)) {
                widen(row, into);
            }
            let mut expected = vec![0.0; rows];
            kernel::dot_products(&query, &wide, stride, &mut expected);
            let bits = |scores: &[f32]| scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
            for run in [dot_products, plain] {
                let mut scores = vec![0.0; rows];
                run(&query, &halves, dims, &mut scores);
                assert_eq!(bits(&scores), bits(&expected), "{rows} rows of {dims}");
            }
        }
    }

    #[test]
    fn only_finite_values_are_finite() {
        assert!(all_finite(&[
            f16::MAX,
            f16::MIN,
            f16::MIN_POSITIVE_SUBNORMAL,
            f16::NEG_ZERO
        ]));
        for value in [f16::INFINITY, f16::NEG_INFINITY, f16::NAN] {
            assert!(!all_finite(&[f16::ONE, value]));
        }
    }
}
