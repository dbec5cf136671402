//! Products and elementwise functions on host slices. Every output is summed in one order, whatever the batch.

use gemm::{Parallelism, gemm};
use half::bf16;
use rayon::prelude::*;

/// Rows up to which a product goes through the kernel for few rows.
const FEW_ROWS: usize = 16;
/// Rows of `x` that one task handles where there are many, and those of them that stay in the first cache.
const TASK_INPUTS: usize = 48;
const NEAR_INPUTS: usize = 12;
/// Weight rows that one task handles.
const TASK_ROWS: usize = 96;
const LANES: usize = 8;

/// A weight matrix `[out, in]`, in bf16 where that is exact: half the memory traffic for the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    values: Values,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

/// An element that a kernel widens as it loads.
trait Element: Copy + Send + Sync {
    fn widen(self) -> f32;
    /// # Safety
    /// `from` must have eight elements, and the processor AVX2.
    #[cfg(target_arch = "x86_64")]
    unsafe fn load(from: *const Self) -> std::arch::x86_64::__m256;
}

impl Element for f32 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> std::arch::x86_64::__m256 {
        // SAFETY: the caller's.
        unsafe { std::arch::x86_64::_mm256_loadu_ps(from) }
    }
}

impl Element for bf16 {
    #[inline(always)]
    fn widen(self) -> f32 {
        self.to_f32()
    }
    #[cfg(target_arch = "x86_64")]
    #[inline(always)]
    unsafe fn load(from: *const Self) -> std::arch::x86_64::__m256 {
        use std::arch::x86_64::*;
        // SAFETY: the caller's; a bf16 is the upper half of an f32.
        unsafe {
            let halves = _mm_loadu_si128(from.cast());
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(halves)))
        }
    }
}

impl Matrix {
    /// Takes `[rows, columns]`, row-major.
    pub(crate) fn new(data: Vec<f32>, rows: usize, columns: usize) -> Self {
        debug_assert_eq!(data.len(), rows * columns);
        let exact = data.par_iter().all(|value| value.to_bits() & 0xFFFF == 0);
        let values = if exact {
            Values::Bf16(
                data.into_par_iter()
                    .map(|value| bf16::from_bits((value.to_bits() >> 16) as u16))
                    .collect(),
            )
        } else {
            Values::F32(data)
        };
        Self { values, rows, columns }
    }

    /// Copies a row.
    pub(crate) fn row(&self, index: usize, out: &mut [f32]) {
        let range = index * self.columns..(index + 1) * self.columns;
        match &self.values {
            Values::F32(data) => out.copy_from_slice(&data[range]),
            Values::Bf16(data) => out.iter_mut().zip(&data[range]).for_each(|(o, v)| *o = v.to_f32()),
        }
    }

    /// `x · Wᵀ`: `x` is `[m, columns]`, the result `[m, rows]`.
    pub(crate) fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        let m = x.len() / self.columns;
        out.clear();
        out.resize(m * self.rows, 0.0);
        match &self.values {
            Values::F32(data) => products(data, x, self.columns, m, out),
            Values::Bf16(data) => products(data, x, self.columns, m, out),
        }
    }
}

/// `C[m, n] = A[m, k] · B[k, n]` on one thread, with (row, column) strides; C is row-major with row stride `stride`.
#[allow(clippy::too_many_arguments)]
pub(crate) fn strided_product(
    a: &[f32],
    a_strides: (usize, usize),
    b: &[f32],
    b_strides: (usize, usize),
    c: &mut [f32],
    stride: usize,
    [m, k, n]: [usize; 3],
) {
    let last = |rows: usize, columns: usize, strides: (usize, usize)| {
        rows.saturating_sub(1) * strides.0 + columns.saturating_sub(1) * strides.1
    };
    assert!(last(m, k, a_strides) < a.len() && last(k, n, b_strides) < b.len() && last(m, n, (stride, 1)) < c.len());
    // SAFETY: the last element of each operand lies inside its slice, as asserted, and C overlaps neither.
    unsafe {
        gemm(
            m,
            n,
            k,
            c.as_mut_ptr(),
            1,
            stride as isize,
            false,
            a.as_ptr(),
            a_strides.1 as isize,
            a_strides.0 as isize,
            b.as_ptr(),
            b_strides.1 as isize,
            b_strides.0 as isize,
            0.0,
            1.0,
            false,
            false,
            false,
            Parallelism::None,
        );
    }
}

/// `x · Wᵀ`. Few rows: W streams through once and tasks share its rows out. Many rows: tasks share the rows of `x` out,
/// and a part of W stays in the second cache while they pass.
fn products<E: Element>(w: &[E], x: &[f32], k: usize, m: usize, out: &mut [f32]) {
    let n = w.len() / k;
    if m > FEW_ROWS {
        out.par_chunks_mut(TASK_INPUTS * n)
            .zip(x.par_chunks(TASK_INPUTS * k))
            .for_each(|(out, x)| {
                for (part, w) in w.chunks(TASK_ROWS * k).enumerate() {
                    for (block, x) in x.chunks(NEAR_INPUTS * k).enumerate() {
                        let first = block * NEAR_INPUTS * n + part * TASK_ROWS;
                        rows_times(w, x, k, x.len() / k, &mut out[first..], Strides { weight: 1, input: n });
                    }
                }
            });
        return;
    }
    let mut turned = vec![0.0; n * m];
    turned
        .par_chunks_mut(TASK_ROWS * m)
        .zip(w.par_chunks(TASK_ROWS * k))
        .for_each(|(out, w)| {
            rows_times(w, x, k, m, out, Strides { weight: m, input: 1 });
        });
    for (row, chunk) in turned.chunks_exact(m).enumerate() {
        for (column, &value) in chunk.iter().enumerate() {
            out[column * n + row] = value;
        }
    }
}

/// How far apart outputs stand of neighbouring weight rows, and of neighbouring inputs.
#[derive(Clone, Copy)]
struct Strides {
    weight: usize,
    input: usize,
}

/// The dot products of each row of `w` (`[n, k]`) with each of `x` (`[m, k]`), on one thread.
fn rows_times<E: Element>(w: &[E], x: &[f32], k: usize, m: usize, out: &mut [f32], strides: Strides) {
    #[cfg(target_arch = "x86_64")]
    if has_avx2() {
        // SAFETY: the processor has AVX2 and FMA.
        unsafe { avx2::rows_times(w, x, k, m, out, strides) };
        return;
    }
    for (row, w) in w.chunks_exact(k).enumerate() {
        for (column, x) in x.chunks_exact(k).enumerate() {
            out[row * strides.weight + column * strides.input] = portable_dot(w, x);
        }
    }
}

/// As [`rows_times`], of `f32` rows.
pub(crate) fn dots(w: &[f32], x: &[f32], k: usize, m: usize, out: &mut [f32]) {
    rows_times(w, x, k, m, out, Strides { weight: m, input: 1 });
}

fn portable_dot<E: Element>(w: &[E], x: &[f32]) -> f32 {
    let mut sums = [0.0f32; LANES];
    let (whole_w, rest_w) = w.as_chunks::<LANES>();
    let (whole_x, rest_x) = x.as_chunks::<LANES>();
    for (w, x) in whole_w.iter().zip(whole_x) {
        for lane in 0..LANES {
            sums[lane] += w[lane].widen() * x[lane];
        }
    }
    let rest: f32 = rest_w.iter().zip(rest_x).map(|(w, x)| w.widen() * x).sum();
    sum_lanes(sums) + rest
}

/// Sums lanes in a fixed tree.
#[inline(always)]
fn sum_lanes(s: [f32; LANES]) -> f32 {
    ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))
}

#[cfg(target_arch = "x86_64")]
pub(crate) fn has_avx2() -> bool {
    std::arch::is_x86_feature_detected!("avx2") && std::arch::is_x86_feature_detected!("fma")
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Element, LANES, Strides};

    /// # Safety
    /// The processor must have AVX2 and FMA.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn rows_times<E: Element>(
        w: &[E],
        x: &[f32],
        k: usize,
        m: usize,
        out: &mut [f32],
        strides: Strides,
    ) {
        let n = w.len() / k;
        assert!(x.len() >= m * k);
        let mut row = 0;
        while row < n {
            let rows = (n - row).min(3);
            let mut column = 0;
            while column < m {
                let columns = (m - column).min(4);
                // SAFETY: `rows` and `columns` stay within `n` and `m`, which the slices cover.
                unsafe {
                    let (w, x) = (w.as_ptr().add(row * k), x.as_ptr().add(column * k));
                    let out = &mut out[row * strides.weight + column * strides.input..];
                    match (rows, columns) {
                        (3, 4) => tile::<E, 3, 4>(w, x, k, strides, out),
                        (3, 3) => tile::<E, 3, 3>(w, x, k, strides, out),
                        (3, 2) => tile::<E, 3, 2>(w, x, k, strides, out),
                        (3, _) => tile::<E, 3, 1>(w, x, k, strides, out),
                        (2, 4) => tile::<E, 2, 4>(w, x, k, strides, out),
                        (2, 3) => tile::<E, 2, 3>(w, x, k, strides, out),
                        (2, 2) => tile::<E, 2, 2>(w, x, k, strides, out),
                        (2, _) => tile::<E, 2, 1>(w, x, k, strides, out),
                        (_, 4) => tile::<E, 1, 4>(w, x, k, strides, out),
                        (_, 3) => tile::<E, 1, 3>(w, x, k, strides, out),
                        (_, 2) => tile::<E, 1, 2>(w, x, k, strides, out),
                        _ => tile::<E, 1, 1>(w, x, k, strides, out),
                    }
                }
                column += columns;
            }
            row += rows;
        }
    }

    /// `R` weight rows against `M` inputs: at most 12 sums and 3 + 1 operands, the sixteen registers.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<E: Element, const R: usize, const M: usize>(
        w: *const E,
        x: *const f32,
        k: usize,
        strides: Strides,
        out: &mut [f32],
    ) {
        // SAFETY: the caller's rows have `k` elements each.
        unsafe {
            let mut sums = [[_mm256_setzero_ps(); M]; R];
            let whole = k / LANES * LANES;
            let mut i = 0;
            while i < whole {
                let weights: [__m256; R] = std::array::from_fn(|r| E::load(w.add(r * k + i)));
                for (c, column) in (0..M).map(|c| (c, _mm256_loadu_ps(x.add(c * k + i)))) {
                    for r in 0..R {
                        sums[r][c] = _mm256_fmadd_ps(weights[r], column, sums[r][c]);
                    }
                }
                i += LANES;
            }
            for (r, sums) in sums.iter().enumerate() {
                for (c, &sum) in sums.iter().enumerate() {
                    let rest: f32 = (whole..k)
                        .map(|i| (*w.add(r * k + i)).widen() * *x.add(c * k + i))
                        .sum();
                    out[r * strides.weight + c * strides.input] = sum_lanes(sum) + rest;
                }
            }
        }
    }

    /// The same tree as [`super::sum_lanes`].
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    fn sum_lanes(sums: __m256) -> f32 {
        let four = _mm_add_ps(_mm256_castps256_ps128(sums), _mm256_extractf128_ps::<1>(sums));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
    }
}

/// Runs `f` compiled for AVX2 and FMA where the processor has them: loops inside are vectorised wider.
#[inline(always)]
pub(crate) fn vectorised<T>(f: impl FnOnce() -> T) -> T {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx2")]
        unsafe fn wide<T>(f: impl FnOnce() -> T) -> T {
            f()
        }
        if has_avx2() {
            // SAFETY: the processor has AVX2.
            return unsafe { wide(f) };
        }
    }
    f()
}

/// eˣ to 2 units in the last place, without branches (Cephes' expf); 0 below −87.3.
#[inline(always)]
pub(crate) fn exp(x: f32) -> f32 {
    const MAGIC: f32 = 12_582_912.0; // 1.5 · 2²³: adding it rounds to a whole number
    let clamped = x.clamp(-87.3, 88.0);
    let n = (clamped * std::f32::consts::LOG2_E + MAGIC) - MAGIC;
    let r = (clamped - n * 0.693_359_4) + n * 2.121_944_4e-4;
    let mut p = 1.987_569_1e-4;
    for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 0.166_666_65, 0.5] {
        p = p * r + coefficient;
    }
    let power = f32::from_bits(((n as i32 + 127) << 23) as u32);
    let value = (p * r * r + r + 1.0) * power;
    if x < -87.3 { 0.0 } else { value }
}

/// ln x of a positive normal number to 2 units in the last place, without branches (Cephes' logf).
#[inline(always)]
pub(crate) fn ln(x: f32) -> f32 {
    let bits = x.to_bits() as i32;
    // The mantissa within [√½, √2) and the exponent that goes with it.
    let shifted = bits.wrapping_sub(0x3f35_04f3);
    let exponent = (shifted >> 23) as f32;
    let mantissa = f32::from_bits((bits - (shifted & !0x7f_ffff)) as u32);
    let m = mantissa - 1.0;
    let mut p = 7.037_683_6e-2;
    for coefficient in [
        -0.115_146_1,
        0.116_769_99,
        -0.124_201_41,
        0.142_493_23,
        -0.166_680_57,
        0.200_007_15,
        -0.249_999_94,
        0.333_333_3,
    ] {
        p = p * m + coefficient;
    }
    let square = m * m;
    let value = p * m * square + exponent * -2.121_944_4e-4 - 0.5 * square;
    (m + value) + exponent * 0.693_359_4
}

/// Softmax in place; answers the logarithm of the sum of exponentials.
pub(crate) fn softmax(values: &mut [f32]) -> f32 {
    vectorised(|| {
        let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        for value in values.iter_mut() {
            *value = exp(*value - most);
        }
        let sum = sum(values);
        let factor = 1.0 / sum;
        for value in values.iter_mut() {
            *value *= factor;
        }
        most + sum.ln()
    })
}

/// The sum over eight interleaved lanes, then their tree.
#[inline(always)]
pub(crate) fn sum(values: &[f32]) -> f32 {
    let (whole, rest) = values.as_chunks::<LANES>();
    let mut sums = [0.0f32; LANES];
    for chunk in whole {
        for lane in 0..LANES {
            sums[lane] += chunk[lane];
        }
    }
    sum_lanes(sums) + rest.iter().sum::<f32>()
}

/// `out += Σ weights[i] · rows[i]`, rows being `[len, width]`.
pub(crate) fn weighted_sum(weights: &[f32], rows: &[f32], width: usize, out: &mut [f32]) {
    vectorised(|| {
        for (&weight, row) in weights.iter().zip(rows.chunks_exact(width)) {
            for (out, value) in out.iter_mut().zip(row) {
                *out += weight * value;
            }
        }
    });
}

/// Values as bytes, for tests of bit equality.
#[cfg(test)]
pub(crate) fn bits(values: &[f32]) -> &[u32] {
    bytemuck::cast_slice(values)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform_values;

    #[test]
    fn a_product_is_what_plain_sums_give_for_any_number_of_rows() {
        let (n, k) = (101, 43);
        let w = uniform_values(1, 1, n * k, 1.0);
        for m in [1, 2, 3, 4, 5, 8, 16, 17, 40] {
            let x = uniform_values(1, 2 + m as u32, m * k, 1.0);
            let mut out = Vec::new();
            Matrix::new(w.clone(), n, k).apply(&x, &mut out);
            for row in 0..m {
                for column in 0..n {
                    let dot: f64 = (0..k)
                        .map(|i| f64::from(w[column * k + i]) * f64::from(x[row * k + i]))
                        .sum();
                    assert!((f64::from(out[row * n + column]) - dot).abs() < 1e-5, "m {m}");
                }
            }
        }
    }

    #[test]
    fn a_rows_product_does_not_depend_on_the_others_in_its_batch() {
        let (n, k, m) = (97, 64, 7);
        let matrix = Matrix::new(uniform_values(3, 1, n * k, 1.0), n, k);
        let x = uniform_values(3, 2, m * k, 1.0);
        let (mut together, mut alone) = (Vec::new(), Vec::new());
        matrix.apply(&x, &mut together);
        for row in 0..m {
            matrix.apply(&x[row * k..(row + 1) * k], &mut alone);
            assert_eq!(bits(&alone), bits(&together[row * n..(row + 1) * n]));
        }
    }

    #[test]
    fn bf16_storage_is_used_only_where_exact_and_changes_no_bit() {
        let (n, k, m) = (33, 40, 4);
        let rounded: Vec<f32> = uniform_values(4, 1, n * k, 1.0)
            .into_iter()
            .map(|v| bf16::from_f32(v).to_f32())
            .collect();
        let x = uniform_values(4, 2, m * k, 1.0);
        let (mut narrow, mut wide) = (Vec::new(), Vec::new());
        let matrix = Matrix::new(rounded.clone(), n, k);
        assert!(matches!(matrix.values, Values::Bf16(_)));
        matrix.apply(&x, &mut narrow);
        Matrix {
            values: Values::F32(rounded),
            rows: n,
            columns: k,
        }
        .apply(&x, &mut wide);
        assert_eq!(bits(&narrow), bits(&wide));
    }

    #[test]
    fn exp_and_ln_are_close_to_the_exact_ones() {
        for i in -8700..8800 {
            let x = i as f32 / 100.0;
            let exact = f64::from(x).exp();
            assert!(
                (f64::from(exp(x)) / exact - 1.0).abs() < 3e-7,
                "exp {x}: {} {exact}",
                exp(x)
            );
            let y = exact as f32;
            if y.is_normal() {
                let exact = f64::from(y).ln();
                assert!(
                    (f64::from(ln(y)) - exact).abs() <= 3e-7 * exact.abs().max(1.0),
                    "ln {y}: {} {exact}",
                    ln(y)
                );
            }
        }
        assert_eq!(exp(-1000.0), 0.0);
        assert_eq!(ln(1.0), 0.0);
    }
}
