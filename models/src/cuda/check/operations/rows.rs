//! Norms, rotation, gates and scores.

use super::{Bench, activation};
use crate::ModelError;
use crate::cuda::batch::Grouped;
use crate::cuda::gpu::Element;
use crate::cuda::kernels::{
    ADD_NORM, ADD_NORM_8, ADD_PARTS, ADD_ROW, EMBED_GRADIENT, GATE, GATE_8, GATE_BACKWARD, GATE_BACKWARD_8,
    NORM_BACKWARD, NORM_BACKWARD_8, NORM_WEIGHT_PARTS, ROTATE, SCORE, SCORE_BACKWARD,
};
use crate::cuda::launch::Argument;

const NONE: Argument = Argument::Address(0);
const ROWS: usize = 7;

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    for width in [51, 264, 2048] {
        root_norm(bench, width)?;
        gates(bench, width)?;
        added_row(bench, width)?;
        embedding(bench, width)?;
    }
    for dim in [24, 64, 256] {
        rotation(bench, dim)?;
    }
    scores(bench, 517)?;
    scores(bench, 4099)
}

/// RMSNorm of `hidden + added`, with `1 + weight` as Gemma has it, and its gradients.
fn root_norm(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    const EPS: f32 = 1e-6;
    let (hidden, added) = (
        bench.given_as(ROWS * width, 2.0, Element::F32)?,
        bench.given(ROWS * width, 1.0)?,
    );
    let weight = bench.given_as(width, 0.5, Element::F32)?;
    let slope = bench.given(ROWS * width, 1.0)?;
    let before = bench.given_as(ROWS * width, 1.0, Element::F32)?;
    let weights_before = bench.given_as(width, 1.0, Element::F32)?;
    let element = bench.element;
    let (sum, inverse) = (bench.room(ROWS * width, Element::F32)?, bench.room(ROWS, Element::F32)?);
    let (out, rounded) = (bench.room(ROWS * width, element)?, bench.room(ROWS * width, element)?);
    let eight = width.is_multiple_of(8);
    let name = |what: &str| format!("RMS norm of {width}{what}");
    let (x, w, dy) = (hidden.wide(), weight.wide(), slope.wide());
    let sums: Vec<f64> = x.iter().zip(added.wide()).map(|(x, added)| x + added).collect();
    let inverses: Vec<f64> = sums
        .chunks(width)
        .map(|row| 1.0 / (row.iter().map(|x| x * x).sum::<f64>() / width as f64 + f64::from(EPS)).sqrt())
        .collect();
    let at = |of: &dyn Fn(usize, usize, usize) -> f64| -> Vec<f64> {
        (0..ROWS * width).map(|at| of(at, at / width, at % width)).collect()
    };
    // SAFETY: all have ROWS rows of `width`.
    unsafe {
        let mut arguments: Vec<Argument> = vec![
            (&hidden).into(),
            NONE,
            (&added).into(),
            width.into(),
            (&sum).into(),
            (&weight).into(),
            1.0_f32.into(),
            EPS.into(),
            width.into(),
            (&out).into(),
            width.into(),
        ];
        arguments.extend([NONE, Argument::Int(0), NONE, Argument::Int(0), (&inverse).into()]);
        let kernel = if eight { ADD_NORM_8 } else { ADD_NORM };
        bench.launch(kernel, [ROWS, 1, 1], 256, &arguments)?;
    }
    bench.compare_f32(&name(": what is normed"), &sum, &sums)?;
    bench.compare_f32(&name(": 1/rms"), &inverse, &inverses)?;
    let expected = at(&|at, row, column| sums[at] * inverses[row] * (1.0 + w[column]));
    bench.compare(&name(""), &out, &expected)?;
    // SAFETY: as above.
    unsafe {
        let arguments = [
            (&before).into(),
            (&rounded).into(),
            width.into(),
            (&slope).into(),
            width.into(),
            (&sum).into(),
            NONE,
            (&inverse).into(),
            (&weight).into(),
            1.0_f32.into(),
            width.into(),
            Argument::Int(0),
        ];
        let kernel = if eight { NORM_BACKWARD_8 } else { NORM_BACKWARD };
        bench.launch(kernel, [ROWS, 1, 1], 256, &arguments)?;
        const BLOCKS: usize = 3;
        let parts = bench.room(BLOCKS * width, Element::F32)?;
        let arguments = [
            (&parts).into(),
            (&slope).into(),
            width.into(),
            (&sum).into(),
            (&inverse).into(),
            ROWS.into(),
            width.into(),
        ];
        bench.launch(NORM_WEIGHT_PARTS, [BLOCKS, width.div_ceil(256), 1], 256, &arguments)?;
        let arguments = [
            (&weights_before).into(),
            NONE,
            NONE,
            (&parts).into(),
            BLOCKS.into(),
            width.into(),
            width.into(),
            Argument::Int(0),
            Argument::Int(0),
        ];
        bench.launch(ADD_PARTS, [width.div_ceil(32), 1, 1], 512, &arguments)?;
    }
    let dots: Vec<f64> = (0..ROWS)
        .map(|row| {
            let each = (row * width..(row + 1) * width).map(|at| dy[at] * (1.0 + w[at % width]) * sums[at]);
            each.sum::<f64>() * inverses[row].powi(2) / width as f64
        })
        .collect();
    let old = before.wide();
    let expected = at(&|at, row, column| old[at] + inverses[row] * (dy[at] * (1.0 + w[column]) - sums[at] * dots[row]));
    bench.compare_f32(&name(": gradient, added"), &before.card, &expected)?;
    bench.compare(&name(": gradient, rounded"), &rounded, &expected)?;
    let mut expected = weights_before.wide();
    for (at, sum) in sums.iter().enumerate() {
        expected[at % width] += dy[at] * sum * inverses[at / width];
    }
    bench.compare_f32(&name(": weight's gradient"), &weights_before.card, &expected)
}

/// A row added to columns of wider rows.
fn added_row(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    const MORE: usize = 5;
    let (x, row) = (bench.given(ROWS * (width + MORE), 1.0)?, bench.given(width, 1.0)?);
    let (mut expected, added) = (x.wide(), row.wide());
    // SAFETY: x has ROWS rows that are wider than the row.
    unsafe {
        let arguments = [(&x).into(), (width + MORE).into(), (&row).into(), width.into()];
        bench.launch(ADD_ROW, [ROWS, width.div_ceil(256), 1], 256, &arguments)?;
    }
    for row in expected.chunks_mut(width + MORE) {
        row.iter_mut().zip(&added).for_each(|(x, added)| *x += added);
    }
    bench.compare(&format!("a row of {width} added"), &x.card, &expected)
}

/// The gradient of an embedding some of whose rows were taken several times.
fn embedding(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    const SCALE: f32 = 1.5;
    let table = bench.given_as(5 * width, 1.0, Element::F32)?;
    let slope = bench.given_as(ROWS * width, 1.0, Element::F32)?;
    let tokens = [4, 1, 4, 0, 1, 4, 2];
    let grouped = Grouped::new(bench.gpu, &tokens)?;
    // SAFETY: tokens are rows of the table, and there are ROWS of them.
    unsafe {
        let arguments = [
            (&table).into(),
            (&slope).into(),
            (&grouped.order).into(),
            (&grouped.starts).into(),
            (&grouped.ids).into(),
            width.into(),
            SCALE.into(),
        ];
        let grid = [grouped.count, width.div_ceil(256), 1];
        bench.launch(EMBED_GRADIENT, grid, 256, &arguments)?;
    }
    let mut expected = table.wide();
    for (at, slope) in slope.wide().iter().enumerate() {
        expected[tokens[at / width] as usize * width + at % width] += f64::from(SCALE) * slope;
    }
    bench.compare_f32(&format!("gradient of an embedding of {width}"), &table.card, &expected)
}

fn gates(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    for kind in 0..3 {
        let both = bench.given(ROWS * 2 * width, 3.0)?;
        let slope = bench.given(ROWS * width, 1.0)?;
        let element = bench.element;
        let (out, d_both) = (
            bench.room(ROWS * width, element)?,
            bench.room(ROWS * 2 * width, element)?,
        );
        let (eight, threads) = match width.is_multiple_of(8) {
            true => (true, width / 8),
            false => (false, width),
        };
        let grid = [threads.div_ceil(256), ROWS, 1];
        // SAFETY: rows are as wide as said.
        unsafe {
            let arguments = [
                (&out).into(),
                width.into(),
                (&both).into(),
                (2 * width).into(),
                width.into(),
                Argument::Int(kind),
            ];
            bench.launch(if eight { GATE_8 } else { GATE }, grid, 256, &arguments)?;
            let (d_gate, d_up) = (
                d_both.matrix(ROWS, 2 * width).columns(0, width, element),
                d_both.matrix(ROWS, 2 * width).columns(width, width, element),
            );
            let arguments = [
                d_gate.into(),
                (2 * width).into(),
                d_up.into(),
                (2 * width).into(),
                (&slope).into(),
                width.into(),
                (&both).into(),
                (2 * width).into(),
                width.into(),
                Argument::Int(kind),
            ];
            bench.launch(
                if eight { GATE_BACKWARD_8 } else { GATE_BACKWARD },
                grid,
                256,
                &arguments,
            )?;
        }
        let (x, dy) = (both.wide(), slope.wide());
        let (mut expected, mut expected_slopes) = (vec![0.0; ROWS * width], vec![0.0; ROWS * 2 * width]);
        for row in 0..ROWS {
            for column in 0..width {
                let (gate, up) = (x[row * 2 * width + column], x[row * 2 * width + width + column]);
                let (bent, bend) = activation(gate, kind);
                let d = dy[row * width + column];
                expected[row * width + column] = bent * up;
                expected_slopes[row * 2 * width + column] = d * up * bend;
                expected_slopes[row * 2 * width + width + column] = d * bent;
            }
        }
        let name = ["SiLU", "GELU", "GELU by tanh"][kind as usize];
        bench.compare(&format!("gate of {width} by {name}"), &out, &expected)?;
        bench.compare(
            &format!("gate of {width} by {name}: gradient"),
            &d_both,
            &expected_slopes,
        )?;
    }
    Ok(())
}

fn rotation(bench: &mut Bench<'_>, dim: usize) -> Result<(), ModelError> {
    const HEADS: usize = 3;
    let half = dim / 2;
    let x = bench.given(ROWS * HEADS * dim, 1.0)?;
    let positions: Vec<u32> = (0..ROWS as u32).map(|row| row * 5 % 11).collect();
    let angle = |position: u32, i: usize| f64::from(position) * 10_000_f64.powf(-2.0 * i as f64 / dim as f64);
    let table: Vec<f32> = (0..11)
        .flat_map(|position| {
            let cosines = (0..half).map(move |i| angle(position, i).cos() as f32);
            cosines.chain((0..half).map(move |i| angle(position, i).sin() as f32))
        })
        .collect();
    let (at, angles) = (bench.gpu.upload(&positions)?, bench.gpu.upload(&table)?);
    let turn = |bench: &Bench<'_>, sign: f32| {
        let arguments = [
            (&x).into(),
            (HEADS * dim).into(),
            (&at).into(),
            (&angles).into(),
            dim.into(),
            sign.into(),
        ];
        // SAFETY: x has ROWS rows of HEADS heads; positions lie in the table.
        unsafe { bench.launch(ROTATE, [ROWS, HEADS, 1], half.next_multiple_of(32) as u32, &arguments) }
    };
    turn(bench, 1.0)?;
    let before = x.wide();
    let mut expected = before.clone();
    for (row, &position) in positions.iter().enumerate() {
        for head in 0..HEADS {
            let start = (row * HEADS + head) * dim;
            for i in 0..half {
                let (sine, cosine) = angle(position, i).sin_cos();
                let (a, b) = (before[start + i], before[start + half + i]);
                expected[start + i] = a * cosine - b * sine;
                expected[start + half + i] = b * cosine + a * sine;
            }
        }
    }
    bench.compare(&format!("rotation of heads of {dim}"), &x.card, &expected)?;
    turn(bench, -1.0)?;
    bench.compare(&format!("rotation of heads of {dim} and back"), &x.card, &before)
}

fn scores(bench: &mut Bench<'_>, vocabulary: usize) -> Result<(), ModelError> {
    const INVERSE: f32 = 1.25;
    let logits = bench.given_as(ROWS * vocabulary, 9.0, Element::F32)?;
    let slopes = bench.given_as(ROWS, 1.0, Element::F32)?;
    let tokens: Vec<u32> = (0..ROWS).map(|row| (row * 131 % vocabulary) as u32).collect();
    let chosen = bench.gpu.upload(&tokens)?;
    let [logprobs, entropies, lse] = [
        bench.room(ROWS, Element::F32)?,
        bench.room(ROWS, Element::F32)?,
        bench.room(ROWS, Element::F32)?,
    ];
    let element = bench.element;
    let out = bench.room(ROWS * vocabulary, element)?;
    // SAFETY: ROWS rows of `vocabulary`.
    unsafe {
        let arguments = [
            (&logprobs).into(),
            (&entropies).into(),
            (&lse).into(),
            (&logits).into(),
            (&chosen).into(),
            vocabulary.into(),
            INVERSE.into(),
        ];
        bench.launch(SCORE, [ROWS, 1, 1], 1024, &arguments)?;
        let arguments = [
            (&out).into(),
            vocabulary.into(),
            (&logits).into(),
            (&lse).into(),
            (&chosen).into(),
            (&slopes).into(),
            vocabulary.into(),
            INVERSE.into(),
        ];
        bench.launch(SCORE_BACKWARD, [vocabulary.div_ceil(1024), ROWS, 1], 256, &arguments)?;
    }
    let (x, dy) = (logits.wide(), slopes.wide());
    let (mut expected, mut d_logits) = ([Vec::new(), Vec::new(), Vec::new()], Vec::new());
    for (row, x) in x.chunks(vocabulary).enumerate() {
        let x: Vec<f64> = x.iter().map(|x| x * f64::from(INVERSE)).collect();
        let total = x.iter().map(|x| x.exp()).sum::<f64>().ln();
        let own = tokens[row] as usize;
        expected[0].push(x[own] - total);
        expected[1].push(-x.iter().map(|x| (x - total).exp() * (x - total)).sum::<f64>());
        expected[2].push(total);
        let slope = |(token, x): (usize, &f64)| {
            let wanted = f64::from(u8::from(token == own));
            dy[row] * f64::from(INVERSE) * (wanted - (x - total).exp())
        };
        d_logits.extend(x.iter().enumerate().map(slope));
    }
    let name = |what: &str| format!("scores of {vocabulary} tokens: {what}");
    bench.compare_f32(&name("log-probabilities"), &logprobs, &expected[0])?;
    bench.compare_f32(&name("entropies"), &entropies, &expected[1])?;
    bench.compare_f32(&name("logarithms of sums"), &lse, &expected[2])?;
    bench.compare(&name("gradient"), &out, &d_logits)
}
