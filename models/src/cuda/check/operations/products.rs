//! Matrix products.

use super::{Bench, Check, activation};
use crate::ModelError;
use crate::cuda::fused::{After, ScoreProduct, SlopesOf, Then};
use crate::cuda::gemm::{Epilogue, Factor, Scale};
use crate::cuda::gpu::{Buffer, Element, Gpu, View};
use crate::plan::Activation;

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
    for shape in [[256, 8, 8], [300, 72, 264], [517, 136, 328]] {
        // Rows of such sizes begin at multiples of 16 bytes.
        if gpu.fuses(bench.element, shape[0], &[]) {
            fused_forward(bench, shape)?;
            fused_backward(bench, shape)?;
            scores(bench, shape)?;
        }
    }
    Ok(())
}

/// Products that end in something, as they go forward.
fn fused_forward(bench: &mut Bench<'_>, [rows, inner, columns]: [usize; 3]) -> Result<(), ModelError> {
    let (gpu, element) = (bench.gpu, bench.element);
    let x = bench.given(rows * inner, 0.5)?;
    let weight = bench.given(columns * inner, 0.5)?;
    let (bias, added) = (bench.given(columns, 1.0)?, bench.given_as(columns, 1.0, Element::F32)?);
    let other = bench.given(rows * columns, 1.0)?;
    let (a, w, o) = (x.wide(), weight.wide(), other.wide());
    let plain = product([rows, inner, columns], |i, k| a[i * inner + k], |k, j| w[j * inner + k]);
    let with = |bias: Vec<f64>| -> Vec<f64> {
        let each = plain.iter().enumerate();
        each.map(|(at, sum)| sum + bias[at % columns]).collect()
    };
    let (biased, added_to) = (with(bias.wide()), with(added.wide()));
    let room = || bench.room(rows * columns, element);
    let (out, second, third) = (room()?, room()?, room()?);
    let name = |what: &str| format!("product {rows}×{inner}×{columns} and {what}");
    let view = |buffer: &Buffer| buffer.matrix(rows, columns);
    let run = |after| {
        let (x, w) = (x.card.matrix(rows, inner), weight.card.matrix(columns, inner));
        gpu.forward_then(view(&out), x, w, after)
    };
    run(After::Bias(bias.card.matrix(1, bias.values.len())))?;
    bench.compare(&name("a bias"), &out, &biased)?;
    let of = |values: &[f64], kind| -> [Vec<f64>; 2] {
        let (value, slope) = values.iter().map(|&x| activation(x, kind)).unzip();
        [value, slope]
    };
    let [bent, slope] = of(&biased, 2);
    run(After::Gelu(&bias.card))?;
    bench.compare(&name("GELU"), &out, &bent)?;
    run(After::GeluKept(&bias.card, view(&second)))?;
    bench.compare(&name("GELU beside its derivative"), &out, &bent)?;
    bench.compare(&name("GELU's derivative"), &second, &slope)?;
    run(After::Add(&added.card, view(&other.card)))?;
    let sums: Vec<f64> = added_to.iter().zip(&o).map(|(one, other)| one + other).collect();
    bench.compare(&name("a bias and a matrix"), &out, &sums)?;
    for (kind, by) in [(0, Activation::Silu), (2, Activation::GeluTanh)] {
        let [bent, slope] = of(&plain, kind);
        let times = |values: &[f64]| -> Vec<f64> { values.iter().zip(&o).map(|(one, other)| one * other).collect() };
        let (gated, by_gate) = (times(&bent), times(&slope));
        run(After::Gate(by, view(&other.card)))?;
        bench.compare(&name(&format!("a gate by {by:?}")), &out, &gated)?;
        third.copy_from(&other.card)?;
        run(After::GateKept(by, view(&third), view(&second)))?;
        bench.compare(&name(&format!("a gate by {by:?}, kept")), &out, &gated)?;
        bench.compare(&name(&format!("the derivative by {by:?}'s gate")), &second, &by_gate)?;
        bench.compare(&name(&format!("the derivative beside {by:?}'s gate")), &third, &bent)?;
    }
    Ok(())
}

/// The same on the way back.
fn fused_backward(bench: &mut Bench<'_>, [rows, inner, columns]: [usize; 3]) -> Result<(), ModelError> {
    let (gpu, element) = (bench.gpu, bench.element);
    let dy = bench.given(rows * inner, 0.5)?;
    let weight = bench.given(inner * columns, 0.5)?;
    let [first, other] = [bench.given(rows * columns, 1.0)?, bench.given(rows * columns, 1.0)?];
    let (a, w) = (dy.wide(), weight.wide());
    let plain = product(
        [rows, inner, columns],
        |i, k| a[i * inner + k],
        |k, j| w[k * columns + j],
    );
    let both = |of: &dyn Fn(f64, f64) -> f64, other: Vec<f64>| -> Vec<f64> {
        plain.iter().zip(other).map(|(&one, other)| of(one, other)).collect()
    };
    let (out, second) = (
        bench.room(rows * columns, element)?,
        bench.room(rows * columns, element)?,
    );
    let high = Gpu::rows_of_sums(rows);
    let sums = bench.room(high * columns, Element::F32)?;
    let view = |buffer: &Buffer| buffer.matrix(rows, columns);
    let name = |what: &str| format!("product {rows}×{inner}×{columns} back and {what}");
    let run = |then| {
        let (dy, w) = (dy.card.matrix(rows, inner), weight.card.matrix(inner, columns));
        gpu.backward_then(view(&out), dy, w, then)
    };
    run(Then::Add(view(&first.card)))?;
    let added = both(&|one, other| one + other, first.wide());
    bench.compare(&name("a matrix"), &out, &added)?;
    run(Then::Times(view(&first.card), &sums))?;
    let times = both(&|one, other| one * other, first.wide());
    bench.compare(&name("times a matrix"), &out, &times)?;
    let parts: Vec<f32> = sums.read(0, high * columns)?;
    let by_column = |values: &mut dyn Iterator<Item = f64>| {
        let mut sums = vec![0.0; columns];
        values.enumerate().for_each(|(at, value)| sums[at % columns] += value);
        sums
    };
    let found = by_column(&mut parts.into_iter().map(f64::from));
    let found = gpu.upload(&found.iter().map(|&sum| sum as f32).collect::<Vec<_>>())?;
    // They are of what was rounded once before.
    let expected = by_column(&mut times.iter().copied());
    bench.compare_f32(&name("sums of its columns"), &found, &expected)?;
    run(Then::TimesTwo(view(&first.card), view(&other.card), view(&second)))?;
    bench.compare(&name("times the first of two"), &out, &times)?;
    let times = both(&|one, other| one * other, other.wide());
    bench.compare(&name("times the second of two"), &second, &times)
}

/// Scores of tokens under a head, and the gradient by its logits.
fn scores(bench: &mut Bench<'_>, [rows, inner, columns]: [usize; 3]) -> Result<(), ModelError> {
    let (gpu, element, inverse) = (bench.gpu, bench.element, 0.8_f32);
    let x = bench.given(rows * inner, 1.0)?;
    let weight = bench.given(columns * inner, 1.0)?;
    let slopes = bench.given_as(rows, 1.0, Element::F32)?;
    let tokens: Vec<u32> = (0..rows).map(|row| (row * 61 % columns) as u32).collect();
    let (a, w) = (x.wide(), weight.wide());
    let logits = product([rows, inner, columns], |i, k| a[i * inner + k], |k, j| w[j * inner + k]);
    let (mut expected, mut gradient) = ([vec![], vec![], vec![]], vec![]);
    for (row, logits) in logits.chunks(columns).enumerate() {
        let logits: Vec<f64> = logits.iter().map(|logit| logit * f64::from(inverse)).collect();
        let most = logits.iter().copied().fold(f64::MIN, f64::max);
        let lse = most + logits.iter().map(|logit| (logit - most).exp()).sum::<f64>().ln();
        let share = |logit: f64| (logit - lse).exp();
        let entropy = -logits.iter().map(|&logit| share(logit) * (logit - lse)).sum::<f64>();
        let values = [logits[tokens[row] as usize] - lse, entropy, lse];
        expected.iter_mut().zip(values).for_each(|(all, value)| all.push(value));
        let slope = f64::from(slopes.values[row] * inverse);
        gradient.extend(logits.iter().enumerate().map(|(column, &logit)| {
            let one = if column == tokens[row] as usize { 1.0 } else { 0.0 };
            slope * (one - share(logit))
        }));
    }
    let tokens = gpu.upload(&tokens)?;
    let room = || bench.room(rows, Element::F32);
    let found = [room()?, room()?, room()?];
    let (x, w) = (x.card.matrix(rows, inner), weight.card.matrix(columns, inner));
    let of = &ScoreProduct {
        tokens: &tokens,
        inverse,
        into: found.each_ref(),
    };
    gpu.score_product(x, w, of)?;
    let name = |what: &str| format!("head {rows}×{inner}×{columns}: {what}");
    let names = ["log-probabilities", "entropies", "ln Σ e^logit"];
    for ((what, found), expected) in names.into_iter().zip(&found).zip(&expected) {
        let expected: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
        // Nothing is rounded to bf16 on the way.
        (bench.report)(Check::new(name(what), &found.read(0, rows)?, &expected, 1e-4));
    }
    let out = bench.room(rows * columns, element)?;
    let skipped = rows / 3;
    let of = &SlopesOf {
        row: skipped,
        tokens: &tokens,
        lse: &found[2],
        slopes: &slopes.card,
        inverse,
    };
    let rest = |view: View| view.rows(skipped, rows - skipped, element);
    gpu.score_product_backward(rest(out.matrix(rows, columns)), rest(x), w, of)?;
    let found = bench.read(&out, rows * columns, element)?;
    let found = gpu.upload(&found[skipped * columns..])?;
    bench.compare_f32(&name("gradient by logits"), &found, &gradient[skipped * columns..])
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
