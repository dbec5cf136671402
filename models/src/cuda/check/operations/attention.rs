//! Attention over packed rows: texts that see all of themselves, and prompts with their responses.

use super::Bench;
use crate::ModelError;
use crate::cuda::attend::{Asking, Attended, Heads};
use crate::cuda::batch::Rows;
use crate::cuda::gpu::Element;
use crate::ops::RowShape;

/// Query heads, key heads and their size: one that tensor cores do not take, and for each size that has kernels for Hopper too, both
/// heads of their own keys and heads that share them, whose rows such a kernel puts in one tile.
const HEADS: [(usize, usize, usize); 7] = [
    (3, 3, 17),
    (3, 3, 64),
    (4, 2, 64),
    (3, 3, 128),
    (8, 2, 128),
    (2, 2, 256),
    (8, 1, 256),
];

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    for (heads, kv_heads, head_dim) in HEADS {
        for causal in [false, true] {
            attention(bench, [heads, kv_heads, head_dim], causal)?;
        }
    }
    Ok(())
}

/// What each row sees, by the rows themselves.
fn shapes(causal: bool) -> (Vec<RowShape>, Vec<u32>, Vec<Vec<usize>>) {
    let (mut rows, mut positions, mut sees) = (Vec::new(), Vec::new(), Vec::new());
    if !causal {
        for len in [1, 70, 131] {
            let start = positions.len();
            rows.push(RowShape::Full(len));
            positions.extend(0..len as u32);
            sees.extend((0..len).map(|_| (start..start + len).collect::<Vec<_>>()));
        }
        return (rows, positions, sees);
    }
    for (prompt, branches) in [(67, vec![1, 40]), (5, vec![130]), (1, vec![])] {
        let start = positions.len();
        positions.extend(0..prompt as u32);
        sees.extend((0..prompt).map(|token| (start..=start + token).collect::<Vec<_>>()));
        for &branch in &branches {
            let own = positions.len();
            positions.extend((prompt..prompt + branch).map(|position| position as u32));
            sees.extend((0..branch).map(|token| (start..start + prompt).chain(own..=own + token).collect::<Vec<_>>()));
        }
        rows.push(RowShape::Tree { prompt, branches });
    }
    (rows, positions, sees)
}

fn attention(bench: &mut Bench<'_>, [heads, kv_heads, dim]: [usize; 3], causal: bool) -> Result<(), ModelError> {
    let (shapes, positions, sees) = shapes(causal);
    let count = positions.len();
    let rows = Rows::new(bench.gpu, &vec![0; count], &positions, &shapes)?;
    let element = bench.element;
    let with = Heads {
        gpu: bench.gpu.clone(),
        element,
        heads,
        kv_heads,
        head_dim: dim,
    };
    let (queries, keys) = (heads * dim, kv_heads * dim);
    let width = queries + 2 * keys;
    let qkv = bench.given(count * width, 1.0)?;
    let slope = bench.given(count * queries, 1.0)?;
    let mixed = bench.room(count * queries, element)?;
    let lse = bench.room(count * heads, Element::F32)?;
    let slopes = bench.room(count * width, element)?;
    let (all, out) = (qkv.card.matrix(count, width), mixed.matrix(count, queries));
    with.attend(with.split(all), out, &lse, &rows, Asking::All)?;
    let each = slopes.matrix(count, width);
    let parts = [(0, queries), (queries, keys), (queries + keys, keys)];
    let parts = parts.map(|(first, columns)| each.columns(first, columns, element));
    let attended = Attended {
        inputs: with.split(all),
        mixed: out,
        lse: &lse,
        asking: Asking::All,
    };
    let sums = with.attend_backward(attended, slope.card.matrix(count, queries), parts, &rows)?;

    let (x, dy) = (qkv.wide(), slope.wide());
    let scale = (dim as f64).powf(-0.5);
    let (mut expected, mut d_qkv) = (vec![0.0; count * queries], vec![0.0; count * width]);
    for (row, seen) in sees.iter().enumerate() {
        for head in 0..heads {
            let kv_head = head / (heads / kv_heads);
            let q = row * width + head * dim;
            let k = |at: usize| at * width + queries + kv_head * dim;
            let v = |at: usize| k(at) + keys;
            let dot = |a: usize, b: usize, y: &[f64]| (0..dim).map(|i| y[a + i] * x[b + i]).sum::<f64>();
            let weights: Vec<f64> = seen.iter().map(|&at| (scale * dot(q, k(at), &x)).exp()).collect();
            let total: f64 = weights.iter().sum();
            let o = row * queries + head * dim;
            let d_weights: Vec<f64> = seen.iter().map(|&at| dot(o, v(at), &dy)).collect();
            let mean: f64 = weights
                .iter()
                .zip(&d_weights)
                .map(|(weight, d)| weight / total * d)
                .sum();
            for ((&at, weight), d) in seen.iter().zip(&weights).zip(&d_weights) {
                let share = weight / total;
                let d_score = share * (d - mean) * scale;
                for i in 0..dim {
                    expected[o + i] += share * x[v(at) + i];
                    d_qkv[q + i] += d_score * x[k(at) + i];
                    d_qkv[k(at) + i] += d_score * x[q + i];
                    d_qkv[v(at) + i] += share * dy[o + i];
                }
            }
        }
    }
    let kind = if causal {
        "prompts with responses"
    } else {
        "whole texts"
    };
    let name = format!("attention of {heads} heads of {dim} over {kv_heads}, {kind}");
    bench.compare(&name, &mixed, &expected)?;
    bench.compare(&format!("{name}: gradients"), &slopes, &d_qkv)?;
    let Some(sums) = sums else { return Ok(()) };
    let found = bench.read(&sums, rows.tile_count * width, Element::F32)?;
    let over_rows = |values: &mut dyn Iterator<Item = &[f64]>| {
        values.fold(vec![0.0; width], |sum, row| {
            sum.iter().zip(row).map(|(sum, x)| sum + x).collect()
        })
    };
    let found: Vec<f64> = found.into_iter().map(f64::from).collect();
    let found: Vec<f32> = over_rows(&mut found.chunks(width))
        .iter()
        .map(|&sum| sum as f32)
        .collect();
    let expected: Vec<f64> = over_rows(&mut d_qkv.chunks(width));
    bench.compare_values(&format!("{name}: sums of gradients"), &found, &expected);
    Ok(())
}
