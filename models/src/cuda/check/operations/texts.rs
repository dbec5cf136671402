//! What an encoder has beside: embeddings, LayerNorm, biases and pooling.

use super::{Bench, activation};
use crate::ModelError;
use crate::cuda::gpu::Element;
use crate::cuda::kernels::{
    ADD_BIAS, ADD_BIAS_8, ADD_PARTS, BEND, BEND_8, BEND_BACKWARD, BEND_BACKWARD_8, COLUMN_PARTS, COLUMN_PARTS_8,
    EMBED_TEXT, EMBED_TEXT_8, Kernel, LAYER_NORM, LAYER_NORM_8, LAYER_NORM_BACKWARD, LAYER_NORM_BACKWARD_8, MOVE_ROWS,
    MOVE_ROWS_8, POOL, POOL_8, POOL_BACKWARD, POOL_BACKWARD_8, SCATTER, SCATTER_8,
};
use crate::cuda::launch::Argument;

const ROWS: usize = 11;

/// The kernel for rows of `width`, and across how many threads.
fn choose(plain: Kernel, eight: Kernel, width: usize) -> (Kernel, usize) {
    match width.is_multiple_of(8) {
        true => (eight, width / 8),
        false => (plain, width),
    }
}

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    for width in [51, 264, 1024, 1040] {
        sums(bench, width)?;
        layer_norm(bench, width)?;
        columns(bench, width)?;
        embeddings(bench, width)?;
        pooling(bench, width)?;
    }
    Ok(())
}

/// Sums of three planes of `rows` rows of `width`, by the engine's kernel; those with a bit in `fresh` are written.
fn add_parts(
    bench: &Bench<'_>,
    (outs, fresh): ([Argument; 3], i32),
    parts: Argument,
    rows: usize,
    width: usize,
) -> Result<(), ModelError> {
    let planes = outs.iter().filter(|out| !matches!(out, Argument::Address(0))).count();
    let [first, second, third] = outs;
    let arguments = [
        first,
        second,
        third,
        parts,
        rows.into(),
        width.into(),
        width.into(),
        (rows * width).into(),
        Argument::Int(fresh),
    ];
    // SAFETY: parts has so many planes; outs have `width` values.
    unsafe { bench.launch(ADD_PARTS, [width.div_ceil(32), planes, 1], 512, &arguments) }
}

/// More rows than a thread reads at once, added to two gradients and written as a third.
fn sums(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    const PARTS: usize = 301;
    let parts = bench.given_as(3 * PARTS * width, 1.0, Element::F32)?;
    let outs = [
        bench.given_as(width, 1.0, Element::F32)?,
        bench.given_as(width, 1.0, Element::F32)?,
        bench.given_as(width, 1.0, Element::F32)?,
    ];
    let each = [(&outs[0]).into(), (&outs[1]).into(), (&outs[2]).into()];
    add_parts(bench, (each, 0b100), (&parts).into(), PARTS, width)?;
    let all = parts.wide();
    for (plane, (own, out)) in all.chunks(PARTS * width).zip(&outs).enumerate() {
        let mut expected = if plane == 2 { vec![0.0; width] } else { out.wide() };
        for row in own.chunks(width) {
            expected.iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
        }
        let name = format!("sums of {PARTS} parts of {width}, gradient {plane}");
        bench.compare_f32(&name, &out.card, &expected)?;
    }
    Ok(())
}

fn layer_norm(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    const EPS: f32 = 1e-6;
    let (x, delta) = (bench.given(ROWS * width, 1.0)?, bench.given(ROWS * width, 1.0)?);
    let [added, weight, bias] = [
        bench.given_as(width, 1.0, Element::F32)?,
        bench.given_as(width, 1.0, Element::F32)?,
        bench.given_as(width, 1.0, Element::F32)?,
    ];
    let (slope, more) = (bench.given(ROWS * width, 1.0)?, bench.given(ROWS * width, 1.0)?);
    let element = bench.element;
    let (sum, out, d_sum) = (
        bench.room(ROWS * width, element)?,
        bench.room(ROWS * width, element)?,
        bench.room(ROWS * width, element)?,
    );
    let eight = width.is_multiple_of(8) && width <= 1024;
    // SAFETY: ROWS rows of `width`.
    unsafe {
        let arguments = [
            (&out).into(),
            (&sum).into(),
            (&x).into(),
            (&delta).into(),
            (&added).into(),
            (&weight).into(),
            (&bias).into(),
            ROWS.into(),
            width.into(),
            EPS.into(),
        ];
        let kernel = if eight { LAYER_NORM_8 } else { LAYER_NORM };
        bench.launch(kernel, [ROWS.div_ceil(4), 1, 1], 128, &arguments)?;
    }
    let name = |what: &str| format!("layer norm of {width}{what}");
    let (one, other, row) = (x.wide(), delta.wide(), added.wide());
    let expected: Vec<f64> = (0..ROWS * width)
        .map(|at| one[at] + other[at] + row[at % width])
        .collect();
    bench.compare(&name(": what is normed"), &sum, &expected)?;
    // What follows is of the rounded sum.
    let sums: Vec<f64> = bench
        .read(&sum, ROWS * width, element)?
        .into_iter()
        .map(f64::from)
        .collect();
    let (w, b) = (weight.wide(), bias.wide());
    let statistics: Vec<(f64, f64)> = sums
        .chunks(width)
        .map(|row| {
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width as f64;
            (mean, 1.0 / (variance + f64::from(EPS)).sqrt())
        })
        .collect();
    let normal = |at: usize| (sums[at] - statistics[at / width].0) * statistics[at / width].1;
    let expected: Vec<f64> = (0..ROWS * width)
        .map(|at| normal(at) * w[at % width] + b[at % width])
        .collect();
    bench.compare(&name(""), &out, &expected)?;

    // Two blocks of warps, so that parts are summed too.
    const BLOCKS: usize = 2;
    let part_rows = if eight { BLOCKS } else { 4 * BLOCKS };
    let parts = bench.gpu.zeros(3 * part_rows * width, Element::F32)?;
    let outs = [
        bench.given_as(width, 1.0, Element::F32)?,
        bench.given_as(width, 1.0, Element::F32)?,
        bench.given_as(width, 1.0, Element::F32)?,
    ];
    // SAFETY: parts has a row for each warp or block, three times.
    unsafe {
        let arguments = [
            (&d_sum).into(),
            (&parts).into(),
            (&slope).into(),
            (&more).into(),
            (&sum).into(),
            (&weight).into(),
            ROWS.into(),
            width.into(),
            EPS.into(),
        ];
        let kernel = if eight {
            LAYER_NORM_BACKWARD_8
        } else {
            LAYER_NORM_BACKWARD
        };
        let threads = if eight { 32 * width.div_ceil(256) } else { 128 };
        bench.launch(kernel, [BLOCKS, 1, 1], threads as u32, &arguments)?;
    }
    let each = [(&outs[0]).into(), (&outs[1]).into(), (&outs[2]).into()];
    add_parts(bench, (each, 0), (&parts).into(), part_rows, width)?;
    let (dy, dz) = (slope.wide(), more.wide());
    let mut expected = vec![0.0; ROWS * width];
    let mut gradients = outs.each_ref().map(|out| out.wide());
    for (row, (_, inverse)) in statistics.iter().enumerate() {
        let at = |column: usize| row * width + column;
        let d = |column: usize| dy[at(column)] + dz[at(column)];
        let mean = |of: &dyn Fn(usize) -> f64| (0..width).map(of).sum::<f64>() / width as f64;
        let plain = mean(&|column| d(column) * w[column]);
        let dots = mean(&|column| d(column) * w[column] * normal(at(column)));
        for column in 0..width {
            let own = inverse * (d(column) * w[column] - plain - normal(at(column)) * dots);
            expected[at(column)] = own;
            gradients[0][column] += d(column) * normal(at(column));
            gradients[1][column] += d(column);
            gradients[2][column] += own;
        }
    }
    bench.compare(&name(": gradient"), &d_sum, &expected)?;
    let whats = [
        ": weight's gradient",
        ": bias' gradient",
        ": gradient of the bias before",
    ];
    for ((what, out), gradient) in whats.iter().zip(&outs).zip(&gradients) {
        bench.compare_f32(&name(what), &out.card, gradient)?;
    }
    Ok(())
}

/// Biases, their gradients, and the non-linearity.
fn columns(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    let (x, row) = (bench.given(ROWS * width, 2.0)?, bench.given(width, 1.0)?);
    let (slope, bias) = (
        bench.given(ROWS * width, 1.0)?,
        bench.given_as(width, 1.0, Element::F32)?,
    );
    let sums = bench.given_as(width, 1.0, Element::F32)?;
    let bends = bench.given_as(width, 1.0, Element::F32)?;
    let element = bench.element;
    let out = bench.room(ROWS * width, element)?;
    let (a, b, dy) = (x.wide(), bias.wide(), slope.wide());
    const BLOCKS: usize = 3;
    let parts = bench.room(BLOCKS * width, Element::F32)?;
    let none = Argument::Address(0);
    // SAFETY: ROWS rows of `width`; parts has BLOCKS.
    unsafe {
        let (kernel, threads) = choose(COLUMN_PARTS, COLUMN_PARTS_8, width);
        let across = threads.div_ceil(256);
        let arguments = [(&parts).into(), (&x).into(), ROWS.into(), width.into()];
        bench.launch(kernel, [BLOCKS, across, 1], 256, &arguments)?;
        add_parts(bench, ([(&sums).into(), none, none], 0), (&parts).into(), BLOCKS, width)?;
        let (kernel, _) = choose(BEND, BEND_8, width);
        let arguments = [
            (&out).into(),
            (&x).into(),
            (&bias).into(),
            width.into(),
            Argument::Int(1),
        ];
        bench.launch(kernel, [ROWS, across, 1], 256, &arguments)?;
    }
    let mut expected = sums.wide();
    a.iter().enumerate().for_each(|(at, x)| expected[at % width] += x);
    bench.compare_f32(&format!("sums of columns of {width}"), &sums.card, &expected)?;
    let bent: Vec<f64> = (0..a.len()).map(|at| activation(a[at] + b[at % width], 1).0).collect();
    bench.compare(&format!("GELU of {width} with a bias"), &out, &bent)?;
    // SAFETY: as above.
    unsafe {
        let (kernel, threads) = choose(BEND_BACKWARD, BEND_BACKWARD_8, width);
        let arguments = [
            (&slope).into(),
            (&parts).into(),
            (&x).into(),
            (&bias).into(),
            ROWS.into(),
            width.into(),
            Argument::Int(1),
        ];
        bench.launch(kernel, [BLOCKS, threads.div_ceil(256), 1], 256, &arguments)?;
        add_parts(
            bench,
            ([(&bends).into(), none, none], 0),
            (&parts).into(),
            BLOCKS,
            width,
        )?;
        let (kernel, threads) = choose(ADD_BIAS, ADD_BIAS_8, width);
        let arguments = [(&x).into(), (&row).into(), width.into()];
        bench.launch(kernel, [ROWS, threads.div_ceil(256), 1], 256, &arguments)?;
    }
    let slopes: Vec<f64> = (0..a.len())
        .map(|at| dy[at] * activation(a[at] + b[at % width], 1).1)
        .collect();
    bench.compare(&format!("GELU of {width}: gradient"), &slope.card, &slopes)?;
    let mut expected = bends.wide();
    slopes
        .iter()
        .enumerate()
        .for_each(|(at, slope)| expected[at % width] += slope);
    bench.compare_f32(&format!("GELU of {width}: bias' gradient"), &bends.card, &expected)?;
    let r = row.wide();
    let expected: Vec<f64> = (0..a.len()).map(|at| a[at] + r[at % width]).collect();
    bench.compare(&format!("bias of {width}"), &x.card, &expected)
}

fn embeddings(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    const WORDS: usize = 13;
    let (words, places) = (bench.given(WORDS * width, 1.0)?, bench.given(ROWS * width, 1.0)?);
    let (kind, slope) = (bench.given(width, 1.0)?, bench.given(ROWS * width, 1.0)?);
    let table = bench.given_as(WORDS * width, 1.0, Element::F32)?;
    let tokens: Vec<u32> = (0..ROWS as u32).map(|row| row * row % 5 * 3).collect();
    let positions: Vec<u32> = (0..ROWS as u32).rev().collect();
    let element = bench.element;
    let out = bench.room(ROWS * width, element)?;
    let mut order: Vec<u32> = (0..ROWS as u32).collect();
    order.sort_by_key(|&row| (tokens[row as usize], row));
    let (mut ids, mut starts) = (Vec::new(), Vec::new());
    for (at, &row) in order.iter().enumerate() {
        if ids.last() != Some(&tokens[row as usize]) {
            ids.push(tokens[row as usize]);
            starts.push(at as u32);
        }
    }
    starts.push(ROWS as u32);
    let upload = |values: &[u32]| bench.gpu.upload(values);
    let [token, position, order, starts, id] = [
        upload(&tokens)?,
        upload(&positions)?,
        upload(&order)?,
        upload(&starts)?,
        upload(&ids)?,
    ];
    // SAFETY: tokens, positions and ids are rows of their tables.
    unsafe {
        let (kernel, _) = choose(EMBED_TEXT, EMBED_TEXT_8, width);
        let arguments = [
            (&out).into(),
            (&words).into(),
            (&places).into(),
            (&kind).into(),
            (&token).into(),
            (&position).into(),
            width.into(),
        ];
        bench.launch(kernel, [ROWS, 1, 1], 128, &arguments)?;
        let (kernel, threads) = choose(SCATTER, SCATTER_8, width);
        let arguments = [
            (&table).into(),
            (&slope).into(),
            (&order).into(),
            (&starts).into(),
            (&id).into(),
            width.into(),
        ];
        bench.launch(kernel, [ids.len(), threads.div_ceil(128), 1], 128, &arguments)?;
    }
    let (w, p, k, dy) = (words.wide(), places.wide(), kind.wide(), slope.wide());
    let at = |row: usize, column: usize, of: &[u32]| of[row] as usize * width + column;
    let expected: Vec<f64> = (0..ROWS * width)
        .map(|i| (i / width, i % width))
        .map(|(row, column)| w[at(row, column, &tokens)] + p[at(row, column, &positions)] + k[column])
        .collect();
    bench.compare(&format!("embeddings of {width}"), &out, &expected)?;
    let mut expected = table.wide();
    for (i, slope) in dy.iter().enumerate() {
        expected[at(i / width, i % width, &tokens)] += slope;
    }
    bench.compare_f32(
        &format!("embeddings of {width}: gradient of words"),
        &table.card,
        &expected,
    )
}

fn pooling(bench: &mut Bench<'_>, width: usize) -> Result<(), ModelError> {
    const STARTS: [u32; 4] = [0, 1, 6, ROWS as u32];
    let texts = STARTS.len() - 1;
    let hidden = bench.given(ROWS * width, 1.0)?;
    let slope = bench.given_as(texts * width, 1.0, Element::F32)?;
    let starts = bench.gpu.upload(&STARTS)?;
    let (x, dy) = (hidden.wide(), slope.wide());
    let element = bench.element;
    for mean in [false, true] {
        let out = bench.room(texts * width, Element::F32)?;
        let d_hidden = bench.room(ROWS * width, element)?;
        let takes = Argument::Int(i32::from(mean));
        // SAFETY: texts lie among the rows.
        unsafe {
            let (kernel, threads) = choose(POOL, POOL_8, width);
            let across = threads.div_ceil(128);
            let arguments = [(&out).into(), (&hidden).into(), (&starts).into(), width.into(), takes];
            bench.launch(kernel, [texts, across, 1], 128, &arguments)?;
            let (kernel, _) = choose(POOL_BACKWARD, POOL_BACKWARD_8, width);
            let arguments = [
                (&d_hidden).into(),
                (&slope).into(),
                (&starts).into(),
                width.into(),
                takes,
            ];
            bench.launch(kernel, [texts, across, 2], 128, &arguments)?;
        }
        let (mut expected, mut slopes) = (vec![0.0; texts * width], vec![0.0; ROWS * width]);
        for text in 0..texts {
            let (first, end) = (STARTS[text] as usize, STARTS[text + 1] as usize);
            let end = if mean { end } else { first + 1 };
            for row in first..end {
                for column in 0..width {
                    let share = 1.0 / (end - first) as f64;
                    expected[text * width + column] += share * x[row * width + column];
                    slopes[row * width + column] = share * dy[text * width + column];
                }
            }
        }
        let kind = if mean { "mean" } else { "first row" };
        bench.compare_f32(&format!("pooling of {width} by {kind}"), &out, &expected)?;
        bench.compare(&format!("pooling of {width} by {kind}: gradient"), &d_hidden, &slopes)?;
    }
    let (taken, back) = (
        bench.room(texts * width, element)?,
        bench.gpu.zeros(ROWS * width, element)?,
    );
    let (kernel, threads) = choose(MOVE_ROWS, MOVE_ROWS_8, width);
    for (out, from, way) in [(&taken, &hidden.card, 0), (&back, &taken, 1)] {
        let arguments = [
            out.into(),
            from.into(),
            (&starts).into(),
            width.into(),
            Argument::Int(way),
        ];
        // SAFETY: starts are rows of the longer one.
        unsafe { bench.launch(kernel, [texts, threads.div_ceil(128), 1], 128, &arguments)? };
    }
    let mut expected = vec![0.0; ROWS * width];
    for &start in &STARTS[..texts] {
        let own = start as usize * width..(start as usize + 1) * width;
        expected[own.clone()].copy_from_slice(&x[own]);
    }
    bench.compare(&format!("rows of {width} taken and put back"), &back, &expected)
}
