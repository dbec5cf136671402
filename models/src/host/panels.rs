//! The one product of the host: rows of numbers against panels of sixteen columns.
//!
//! An output is the sum over `depth` in ascending order, one fused multiply-add after another where the processor has
//! them: it depends on its row and its column alone, not on how many rows or columns are computed beside it.

use half::bf16;

/// Columns of a panel.
pub(crate) const WIDTH: usize = 16;

/// A matrix `[depth, columns]` in panels: each holds [`WIDTH`] columns, `[depth, WIDTH]`, the last filled up.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Panels<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) depth: usize,
    /// From a panel's beginning to the next one's, in elements.
    pub(crate) stride: usize,
    pub(crate) columns: usize,
}

/// Rows that stand `stride` apart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rows<'a> {
    pub(crate) data: &'a [f32],
    pub(crate) stride: usize,
    pub(crate) count: usize,
}

/// Where the outputs of [`multiply`] go: rows `stride` apart.
#[derive(Debug)]
pub(crate) struct Outputs<'a> {
    pub(crate) data: &'a mut [f32],
    pub(crate) stride: usize,
    /// Adds to what is there rather than replacing it.
    pub(crate) add: bool,
}

/// An element that a kernel widens as it loads.
pub(crate) trait Element: Copy + Send + Sync {
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

/// `[rows, depth] · [depth, columns]` on one thread.
///
/// # Panics
/// If a slice is too short for its shape.
pub(crate) fn multiply<E: Element>(w: Panels<'_, E>, x: Rows<'_>, out: &mut Outputs<'_>) {
    if x.count == 0 || w.columns == 0 {
        return;
    }
    let panels = w.columns.div_ceil(WIDTH);
    assert!(
        (panels - 1) * w.stride + w.depth * WIDTH <= w.data.len()
            && (x.count - 1) * x.stride + w.depth <= x.data.len()
            && (x.count - 1) * out.stride + w.columns <= out.data.len(),
        "a product's operands are shorter than its shape"
    );
    #[cfg(target_arch = "x86_64")]
    if super::has_avx2() {
        // SAFETY: the processor has AVX2 and FMA, and the slices cover the shape.
        unsafe { avx2::multiply(w, x, out) };
        return;
    }
    portable(w, x, out);
}

fn portable<E: Element>(w: Panels<'_, E>, x: Rows<'_>, out: &mut Outputs<'_>) {
    for panel in 0..w.columns.div_ceil(WIDTH) {
        let columns = (w.columns - panel * WIDTH).min(WIDTH);
        let weights = w.data[panel * w.stride..].as_chunks::<WIDTH>().0;
        for row in 0..x.count {
            let to = &mut out.data[row * out.stride + panel * WIDTH..][..columns];
            let mut sums = [0.0; WIDTH];
            if out.add {
                sums[..columns].copy_from_slice(to);
            }
            for (weights, &x) in weights[..w.depth].iter().zip(&x.data[row * x.stride..]) {
                for (sum, weight) in sums.iter_mut().zip(weights) {
                    *sum += weight.widen() * x;
                }
            }
            to.copy_from_slice(&sums[..columns]);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod avx2 {
    use std::arch::x86_64::*;

    use super::{Element, Outputs, Panels, Rows, WIDTH};

    /// # Safety
    /// The processor must have AVX2 and FMA, and the slices cover the shape.
    #[target_feature(enable = "avx2,fma")]
    pub(super) unsafe fn multiply<E: Element>(w: Panels<'_, E>, x: Rows<'_>, out: &mut Outputs<'_>) {
        // SAFETY: the caller's. Few rows take several panels at a time, so that enough sums are under way.
        unsafe {
            match x.count {
                1 => sweep::<E, 4, 1>(w, x, out),
                2 => sweep::<E, 3, 2>(w, x, out),
                3 => sweep::<E, 2, 3>(w, x, out),
                4 => sweep::<E, 1, 4>(w, x, out),
                5 => sweep::<E, 1, 5>(w, x, out),
                _ => blocks(w, x, out),
            }
        }
    }

    /// `M` rows against all panels, `P` at a time.
    ///
    /// # Safety
    /// As [`multiply`]; `x` has `M` rows.
    #[target_feature(enable = "avx2,fma")]
    unsafe fn sweep<E: Element, const P: usize, const M: usize>(w: Panels<'_, E>, x: Rows<'_>, out: &mut Outputs<'_>) {
        let panels = w.columns.div_ceil(WIDTH);
        let mut panel = 0;
        while panel < panels {
            // SAFETY: the caller's, for the panels that there are.
            unsafe {
                if panel + P <= panels {
                    tile::<E, P, M>(w, panel, x, 0, out);
                    panel += P;
                } else {
                    tile::<E, 1, M>(w, panel, x, 0, out);
                    panel += 1;
                }
            }
        }
    }

    /// Panel by panel, six rows at a time: twelve sums, two weights and a row's element are the sixteen registers.
    ///
    /// # Safety
    /// As [`multiply`].
    #[target_feature(enable = "avx2,fma")]
    unsafe fn blocks<E: Element>(w: Panels<'_, E>, x: Rows<'_>, out: &mut Outputs<'_>) {
        for panel in 0..w.columns.div_ceil(WIDTH) {
            let mut row = 0;
            while row < x.count {
                // SAFETY: the caller's, for the rows that are left.
                unsafe {
                    row += match x.count - row {
                        1 => tile::<E, 1, 1>(w, panel, x, row, out),
                        2 => tile::<E, 1, 2>(w, panel, x, row, out),
                        3 => tile::<E, 1, 3>(w, panel, x, row, out),
                        4 | 7 | 8 => tile::<E, 1, 4>(w, panel, x, row, out),
                        5 | 9 | 10 => tile::<E, 1, 5>(w, panel, x, row, out),
                        _ => tile::<E, 1, 6>(w, panel, x, row, out),
                    }
                }
            }
        }
    }

    /// `M` rows from `row` on against `P` panels from `panel` on; answers `M`.
    ///
    /// # Safety
    /// As [`multiply`], for these rows and panels.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn tile<E: Element, const P: usize, const M: usize>(
        w: Panels<'_, E>,
        panel: usize,
        x: Rows<'_>,
        row: usize,
        out: &mut Outputs<'_>,
    ) -> usize {
        const HALF: usize = WIDTH / 2;
        let columns = w.columns - panel * WIDTH;
        // SAFETY: every address lies in a row or panel that the caller vouches for; a part of a panel goes through `part`.
        unsafe {
            let weights: [*const E; P] = std::array::from_fn(|p| w.data.as_ptr().add((panel + p) * w.stride));
            let inputs = x.data.as_ptr().add(row * x.stride);
            let outputs = out.data.as_mut_ptr().add(row * out.stride + panel * WIDTH);
            let mut sums = [[[_mm256_setzero_ps(); 2]; P]; M];
            if out.add {
                for (m, sums) in sums.iter_mut().enumerate() {
                    for (p, sums) in sums.iter_mut().enumerate() {
                        let from = outputs.add(m * out.stride + p * WIDTH);
                        *sums = load_part(from, (columns - p * WIDTH).min(WIDTH));
                    }
                }
            }
            for i in 0..w.depth {
                let loaded: [[__m256; 2]; P] = std::array::from_fn(|p| {
                    [
                        E::load(weights[p].add(i * WIDTH)),
                        E::load(weights[p].add(i * WIDTH + HALF)),
                    ]
                });
                for (m, sums) in sums.iter_mut().enumerate() {
                    let value = _mm256_broadcast_ss(&*inputs.add(m * x.stride + i));
                    for p in 0..P {
                        sums[p][0] = _mm256_fmadd_ps(loaded[p][0], value, sums[p][0]);
                        sums[p][1] = _mm256_fmadd_ps(loaded[p][1], value, sums[p][1]);
                    }
                }
            }
            for (m, sums) in sums.iter().enumerate() {
                for (p, &sums) in sums.iter().enumerate() {
                    let to = outputs.add(m * out.stride + p * WIDTH);
                    store_part(to, sums, (columns - p * WIDTH).min(WIDTH));
                }
            }
        }
        M
    }

    /// # Safety
    /// `from` must have `len ≤ WIDTH` elements, and the processor AVX2.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn load_part(from: *const f32, len: usize) -> [__m256; 2] {
        // SAFETY: the caller's.
        unsafe {
            if len == WIDTH {
                return [_mm256_loadu_ps(from), _mm256_loadu_ps(from.add(8))];
            }
            let mut part = [0.0f32; WIDTH];
            part.as_mut_ptr().copy_from_nonoverlapping(from, len);
            [_mm256_loadu_ps(part.as_ptr()), _mm256_loadu_ps(part.as_ptr().add(8))]
        }
    }

    /// # Safety
    /// `to` must have `len ≤ WIDTH` elements, and the processor AVX2.
    #[inline]
    #[target_feature(enable = "avx2,fma")]
    unsafe fn store_part(to: *mut f32, sums: [__m256; 2], len: usize) {
        // SAFETY: the caller's.
        unsafe {
            if len == WIDTH {
                _mm256_storeu_ps(to, sums[0]);
                _mm256_storeu_ps(to.add(8), sums[1]);
                return;
            }
            let mut part = [0.0f32; WIDTH];
            _mm256_storeu_ps(part.as_mut_ptr(), sums[0]);
            _mm256_storeu_ps(part.as_mut_ptr().add(8), sums[1]);
            to.copy_from_nonoverlapping(part.as_ptr(), len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::uniform_values;

    /// Every count of rows and odd sizes, with and without `add`: within rounding of a sum in `f64`.
    #[test]
    fn a_product_is_what_plain_sums_give() {
        for (depth, columns) in [(1usize, 1usize), (7, 16), (43, 101), (64, 33)] {
            let stride = depth * WIDTH + 8;
            let data = uniform_values(1, 1, columns.div_ceil(WIDTH) * stride, 1.0);
            for count in 1..=20 {
                let x = uniform_values(1, 2 + count as u32, count * (depth + 3), 1.0);
                let before = uniform_values(1, 100, count * (columns + 5), 1.0);
                for add in [false, true] {
                    let mut values = before.clone();
                    let panels = Panels {
                        data: &data,
                        depth,
                        stride,
                        columns,
                    };
                    let rows = Rows {
                        data: &x,
                        stride: depth + 3,
                        count,
                    };
                    multiply(
                        panels,
                        rows,
                        &mut Outputs {
                            data: &mut values,
                            stride: columns + 5,
                            add,
                        },
                    );
                    for (index, &value) in values.iter().enumerate() {
                        let (row, column) = (index / (columns + 5), index % (columns + 5));
                        if column >= columns {
                            assert_eq!(value, before[index], "an element beside the output changed");
                            continue;
                        }
                        let weight = |i: usize| data[column / WIDTH * stride + i * WIDTH + column % WIDTH];
                        let sum: f64 = (0..depth)
                            .map(|i| f64::from(weight(i)) * f64::from(x[row * (depth + 3) + i]))
                            .sum();
                        let expected = sum + if add { f64::from(before[index]) } else { 0.0 };
                        assert!(
                            (f64::from(value) - expected).abs() < 1e-5,
                            "{count} rows, {index}: {value} {expected}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn the_portable_product_agrees() {
        let (depth, columns, count) = (50, 37_usize, 9);
        let data = uniform_values(2, 1, columns.div_ceil(WIDTH) * depth * WIDTH, 1.0);
        let x = uniform_values(2, 2, count * depth, 1.0);
        let panels = Panels {
            data: &data,
            depth,
            stride: depth * WIDTH,
            columns,
        };
        let rows = Rows {
            data: &x,
            stride: depth,
            count,
        };
        let [mut fast, mut plain] = [vec![0.5; count * columns], vec![0.5; count * columns]];
        multiply(
            panels,
            rows,
            &mut Outputs {
                data: &mut fast,
                stride: columns,
                add: true,
            },
        );
        portable(
            panels,
            rows,
            &mut Outputs {
                data: &mut plain,
                stride: columns,
                add: true,
            },
        );
        for (fast, plain) in fast.iter().zip(&plain) {
            assert!((fast - plain).abs() < 1e-5, "{fast} {plain}");
        }
    }

    #[test]
    #[should_panic(expected = "shorter than its shape")]
    fn a_short_slice_is_refused() {
        let panels = Panels {
            data: &[0.0f32; 16],
            depth: 2,
            stride: 32,
            columns: 1,
        };
        let rows = Rows {
            data: &[0.0; 2],
            stride: 2,
            count: 1,
        };
        multiply(
            panels,
            rows,
            &mut Outputs {
                data: &mut [0.0],
                stride: 1,
                add: false,
            },
        );
    }
}
