//! Matrix products.

use super::{Bench, activation};
use crate::ModelError;
use crate::cuda::gemm::{Epilogue, Factor, Scale};
use crate::cuda::gpu::Element;

/// `left · right`, rows × inner and inner × columns, each read by its own strides.
fn product(
    [rows, inner, columns]: [usize; 3],
    left: impl Fn(usize, usize) -> f64,
    right: impl Fn(usize, usize) -> f64,
) -> Vec<f64> {
    let mut out = vec![0.0; rows * columns];
    for row in 0..rows {
        for k in 0..inner {
            let x = left(row, k);
            for column in 0..columns {
                out[row * columns + column] += x * right(k, column);
            }
        }
    }
    out
}

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    let gpu = bench.gpu;
    for [rows, inner, columns] in [[1, 1, 1], [37, 53, 29], [130, 264, 72]] {
        let name = |what: &str| format!("product {rows}×{inner}×{columns}{what}");
        let left = bench.given(rows * inner, 1.0)?;
        let right = bench.given(inner * columns, 1.0)?;
        let before = bench.given_as(rows * columns, 1.0, Element::F32)?;
        let (a, b) = (left.wide(), right.wide());
        let element = bench.element;
        let out = bench.room(rows * columns, element)?;
        let view = out.matrix(rows, columns);
        let (x, y) = (left.card.matrix(rows, inner), right.card.matrix(inner, columns));
        gpu.multiply(
            (view, element),
            Factor::Plain(x),
            Factor::Plain(y),
            element,
            Scale::times(0.7),
        )?;
        let expected = product(
            [rows, inner, columns],
            |i, k| 0.7 * a[i * inner + k],
            |k, j| b[k * columns + j],
        );
        bench.compare(&name(""), &out, &expected)?;
        let y = right.card.matrix(columns, inner);
        gpu.multiply(
            (view, element),
            Factor::Plain(x),
            Factor::Transposed(y),
            element,
            Scale::ONE,
        )?;
        let transposed = product([rows, inner, columns], |i, k| a[i * inner + k], |k, j| b[j * inner + k]);
        bench.compare(&name(", right transposed"), &out, &transposed)?;
        let x = left.card.matrix(inner, rows);
        let y = right.card.matrix(inner, columns);
        let sums = before.card.matrix(rows, columns);
        gpu.multiply(
            (sums, Element::F32),
            Factor::Transposed(x),
            Factor::Plain(y),
            element,
            Scale::ADD,
        )?;
        let mut expected = product(
            [rows, inner, columns],
            |i, k| a[k * rows + i],
            |k, j| b[k * columns + j],
        );
        expected
            .iter_mut()
            .zip(before.wide())
            .for_each(|(sum, before)| *sum += before);
        bench.compare_f32(&name(", left transposed, added in f32"), &before.card, &expected)?;
        if element == Element::Bf16 && inner.is_multiple_of(8) && columns.is_multiple_of(8) {
            epilogues(bench, [rows, inner, columns])?;
        }
    }
    Ok(())
}

/// A bias, and GELU, as the product takes them.
fn epilogues(bench: &mut Bench<'_>, [rows, inner, columns]: [usize; 3]) -> Result<(), ModelError> {
    let (gpu, element) = (bench.gpu, bench.element);
    let x = bench.given(rows * inner, 0.3)?;
    let weight = bench.given(columns * inner, 0.3)?;
    let bias = bench.given(columns, 1.0)?;
    let (a, w, b) = (x.wide(), weight.wide(), bias.wide());
    let mut sums = product([rows, inner, columns], |i, k| a[i * inner + k], |k, j| w[j * inner + k]);
    sums.iter_mut()
        .enumerate()
        .for_each(|(at, sum)| *sum += b[at % columns]);
    let bent: Vec<f64> = sums.iter().map(|&sum| activation(sum, 2).0).collect();
    let (out, kept) = (
        bench.room(rows * columns, element)?,
        bench.room(rows * columns, element)?,
    );
    let multiply = |epilogue| {
        let into = (out.matrix(rows, columns), element);
        let (x, w) = (x.card.matrix(rows, inner), weight.card.matrix(columns, inner));
        gpu.multiply_then(into, Factor::Plain(x), Factor::Transposed(w), element, epilogue)
    };
    let bias = bias.card.pointer();
    multiply(Epilogue::Bias(bias))?;
    bench.compare("product with a bias", &out, &sums)?;
    multiply(Epilogue::Gelu(bias))?;
    bench.compare("product with a bias and GELU", &out, &bent)?;
    multiply(Epilogue::GeluKept(bias, kept.matrix(rows, columns)))?;
    bench.compare("product with a bias and GELU, kept", &kept, &sums)?;
    bench.compare("product with a bias and GELU after what is kept", &out, &bent)
}
