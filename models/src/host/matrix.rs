//! Weight matrices, laid out for products.

use half::bf16;
use rayon::prelude::*;

use super::elementwise::add_bias;
use super::panels::{Element, Outputs, Panels, Rows, WIDTH, multiply};

/// Inputs up to which tasks share the weights out, which are then read once; above, they share the inputs out.
const FEW_INPUTS: usize = 16;
/// Most inputs of a task: with their outputs they stay in the second cache while the weights pass.
const TASK_INPUTS: usize = 48;
/// Panels of a task where inputs are few.
const TASK_PANELS: usize = 8;

/// A weight matrix `[out, in]`, in bf16 where that is exact: half the memory traffic for the same numbers.
#[derive(Debug, Clone)]
pub(crate) struct Matrix {
    values: Values,
    rows: usize,
    columns: usize,
}

/// Panels of weight rows: `[rows / WIDTH, columns, WIDTH]`.
#[derive(Debug, Clone)]
enum Values {
    F32(Vec<f32>),
    Bf16(Vec<bf16>),
}

impl Matrix {
    /// Takes `[rows, columns]`, row-major.
    pub(crate) fn new(data: &[f32], rows: usize, columns: usize) -> Self {
        assert_eq!(data.len(), rows * columns, "a matrix has rows · columns elements");
        let exact = data.par_iter().all(|value| value.to_bits() & 0xFFFF == 0);
        let values = if exact {
            Values::Bf16(pack(data, columns, |value| {
                bf16::from_bits((value.to_bits() >> 16) as u16)
            }))
        } else {
            Values::F32(pack(data, columns, |value| value))
        };
        Self { values, rows, columns }
    }

    /// Copies a row.
    pub(crate) fn row(&self, index: usize, out: &mut [f32]) {
        fn gather<E: Element>(data: &[E], index: usize, out: &mut [f32]) {
            let first = index / WIDTH * out.len() * WIDTH + index % WIDTH;
            let values = data[first..].iter().step_by(WIDTH);
            out.iter_mut().zip(values).for_each(|(out, value)| *out = value.widen());
        }
        match &self.values {
            Values::F32(data) => gather(data, index, out),
            Values::Bf16(data) => gather(data, index, out),
        }
    }

    /// `x · Wᵀ`: `x` is `[m, columns]`, the result `[m, rows]`.
    pub(crate) fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        out.resize(x.len() / self.columns * self.rows, 0.0);
        match &self.values {
            Values::F32(data) => multiply_rows(self.panels(data), x, out),
            Values::Bf16(data) => multiply_rows(self.panels(data), x, out),
        }
    }

    fn panels<'a, E>(&self, data: &'a [E]) -> Panels<'a, E> {
        Panels {
            data,
            depth: self.columns,
            stride: self.columns * WIDTH,
            columns: self.rows,
        }
    }
}

/// Products of rows, `a · bᵀ`: `a` is `[m, width]`, `b` `[n, width]`, the result `[m, n]`, on all threads, each product summed in one
/// order.
pub fn products(a: &[f32], b: &[f32], width: usize) -> Vec<f32> {
    let mut out = Vec::new();
    if width > 0 && !a.is_empty() && !b.is_empty() {
        Matrix::new(b, b.len() / width, width).apply(a, &mut out);
    }
    out
}

/// A linear layer.
#[derive(Debug, Clone)]
pub(crate) struct Projection {
    pub(crate) weight: Matrix,
    pub(crate) bias: Option<Vec<f32>>,
}

impl Projection {
    /// `x · Wᵀ + b`, `[m, out]`.
    pub(crate) fn apply(&self, x: &[f32], out: &mut Vec<f32>) {
        self.weight.apply(x, out);
        if let Some(bias) = &self.bias {
            add_bias(out, bias);
        }
    }
}

fn pack<T: Copy + Default + Send>(data: &[f32], columns: usize, to: impl Fn(f32) -> T + Sync) -> Vec<T> {
    let rows = data.len() / columns;
    let mut packed = vec![T::default(); rows.div_ceil(WIDTH) * columns * WIDTH];
    packed
        .par_chunks_mut(columns * WIDTH)
        .zip(data.par_chunks(columns * WIDTH))
        .for_each(|(panel, rows)| {
            for (lane, row) in rows.chunks_exact(columns).enumerate() {
                let places = panel[lane..].iter_mut().step_by(WIDTH);
                places.zip(row).for_each(|(place, &value)| *place = to(value));
            }
        });
    packed
}

/// `x` against all panels, `[m, columns]` into `out`, on all threads.
fn multiply_rows<E: Element>(w: Panels<'_, E>, x: &[f32], out: &mut [f32]) {
    let (depth, columns) = (w.depth, w.columns);
    let rows = |x| Rows {
        data: x,
        stride: depth,
        count: x.len() / depth,
    };
    let count = x.len() / depth;
    if count > FEW_INPUTS {
        let share = count
            .div_ceil(2 * rayon::current_num_threads())
            .next_multiple_of(6)
            .min(TASK_INPUTS);
        out.par_chunks_mut(share * columns)
            .zip(x.par_chunks(share * depth))
            .for_each(|(out, x)| {
                multiply(
                    w,
                    rows(x),
                    &mut Outputs {
                        data: out,
                        stride: columns,
                        add: false,
                    },
                )
            });
        return;
    }
    // Each task writes a block of its own, `[m, TASK_PANELS · WIDTH]`; a single row's blocks are the result already.
    let block = TASK_PANELS * WIDTH;
    let task = |(index, out): (usize, &mut [f32])| {
        let own = out.len() / count;
        let panels = Panels {
            data: &w.data[index * TASK_PANELS * w.stride..],
            columns: own,
            ..w
        };
        multiply(
            panels,
            rows(x),
            &mut Outputs {
                data: out,
                stride: own,
                add: false,
            },
        );
    };
    if count <= 1 {
        out.par_chunks_mut(block).enumerate().for_each(task);
        return;
    }
    let mut blocks = vec![0.0; out.len()];
    blocks.par_chunks_mut(block * count).enumerate().for_each(task);
    for (index, values) in blocks.chunks(block * count).enumerate() {
        let own = values.len() / count;
        for (row, values) in values.chunks_exact(own).enumerate() {
            out[row * columns + index * block..][..own].copy_from_slice(values);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::bits;
    use super::*;
    use crate::random::uniform_values;

    #[test]
    fn a_product_is_what_plain_sums_give_for_any_number_of_rows() {
        let (n, k) = (301, 43);
        let w = uniform_values(1, 1, n * k, 1.0);
        let matrix = Matrix::new(&w, n, k);
        for m in [1, 2, 3, 4, 5, 8, 16, 17, 40, 200] {
            let x = uniform_values(1, 2 + m as u32, m * k, 1.0);
            let mut out = vec![7.0; 3];
            matrix.apply(&x, &mut out);
            assert_eq!(out.len(), m * n);
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
        let (n, k) = (297, 64);
        let matrix = Matrix::new(&uniform_values(3, 1, n * k, 1.0), n, k);
        for m in [2, 7, 16, 53] {
            let x = uniform_values(3, 2, m * k, 1.0);
            let (mut together, mut alone) = (Vec::new(), Vec::new());
            matrix.apply(&x, &mut together);
            for row in 0..m {
                matrix.apply(&x[row * k..(row + 1) * k], &mut alone);
                assert_eq!(
                    bits(&alone),
                    bits(&together[row * n..(row + 1) * n]),
                    "row {row} of {m}"
                );
            }
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
        let matrix = Matrix::new(&rounded, n, k);
        assert!(matches!(matrix.values, Values::Bf16(_)));
        matrix.apply(&x, &mut narrow);
        Matrix {
            values: Values::F32(pack(&rounded, k, |value| value)),
            rows: n,
            columns: k,
        }
        .apply(&x, &mut wide);
        assert_eq!(bits(&narrow), bits(&wide));
        let mut row = vec![0.0; k];
        matrix.row(17, &mut row);
        assert_eq!(row, rounded[17 * k..18 * k]);
    }
}
