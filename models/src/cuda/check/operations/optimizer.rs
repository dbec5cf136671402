//! Adam over several parts at once.

use super::{Bench, Given};
use crate::cuda::adam::{Move, adam};
use crate::cuda::gpu::{Buffer, Element, View};
use crate::{AdamConfig, ModelError};

/// A part of a parameter of `rows` × `columns`, of which a copy has rows `stride` apart.
struct Shape {
    name: &'static str,
    rows: usize,
    columns: usize,
    stride: usize,
    /// First value of the part, and their number.
    start: usize,
    count: usize,
    steps: u32,
    copied: bool,
}

/// Blocks of their own and blocks that are not full; four values at once, one at once and the rest of fours; copies with and
/// without gaps.
const SHAPES: [Shape; 6] = [
    Shape {
        name: "one value",
        rows: 1,
        columns: 1,
        stride: 1,
        start: 0,
        count: 1,
        steps: 1,
        copied: true,
    },
    Shape {
        name: "a row of odd length",
        rows: 1,
        columns: 1003,
        stride: 1003,
        start: 0,
        count: 1003,
        steps: 7,
        copied: true,
    },
    Shape {
        name: "three blocks",
        rows: 17,
        columns: 1024,
        stride: 1024,
        start: 0,
        count: 17 * 1024,
        steps: 7,
        copied: true,
    },
    Shape {
        name: "rows with gaps",
        rows: 13,
        columns: 24,
        stride: 40,
        start: 0,
        count: 13 * 24,
        steps: 2,
        copied: true,
    },
    Shape {
        name: "a part from within a row to within another",
        rows: 300,
        columns: 51,
        stride: 64,
        start: 77,
        count: 12_001,
        steps: 3,
        copied: true,
    },
    Shape {
        name: "a part without a copy",
        rows: 4,
        columns: 64,
        stride: 64,
        start: 128,
        count: 128,
        steps: 30,
        copied: false,
    },
];

/// What a part is made of.
struct Part<'a> {
    shape: &'a Shape,
    values: Given,
    gradient: Given,
    first: Given,
    second: Given,
    copy: Buffer,
}

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    for decoupled in [true, false] {
        let config = AdamConfig {
            lr: 3e-3,
            betas: (0.9, 0.999),
            eps: 1e-8,
            weight_decay: 0.02,
            decoupled,
        };
        let mut parts = Vec::new();
        for shape in &SHAPES {
            parts.push(Part::new(bench, shape)?);
        }
        let moves: Vec<Move> = parts.iter().map(|part| part.next_move(bench.element)).collect();
        // SAFETY: every part has so many values, and its copy the parameter's rows.
        unsafe { adam(bench.gpu, &config, 0.5, &moves)? };
        for part in &parts {
            part.compare(bench, &config, 0.5)?;
        }
    }
    Ok(())
}

impl<'a> Part<'a> {
    fn new(bench: &mut Bench<'_>, shape: &'a Shape) -> Result<Self, ModelError> {
        let mut given = |count, bound| bench.given_as(count, bound, Element::F32);
        let values = given(shape.rows * shape.columns, 1.0)?;
        let (gradient, first) = (given(shape.count, 1.0)?, given(shape.count, 0.3)?);
        let mut second = given(shape.count, 0.3)?;
        // Second moments are not negative.
        second.values.iter_mut().for_each(|value| *value = value.abs());
        second.card.write(0, &second.values)?;
        let copy = bench.gpu.zeros(shape.rows * shape.stride, bench.element)?;
        Ok(Self {
            shape,
            values,
            gradient,
            first,
            second,
            copy,
        })
    }

    fn next_move(&self, element: Element) -> Move {
        let shape = self.shape;
        let copy = View {
            pointer: self.copy.pointer(),
            rows: shape.rows,
            columns: shape.columns,
            stride: shape.stride,
        };
        Move {
            values: self.values.card.pointer() + 4 * shape.start as u64,
            moments: [self.first.card.pointer(), self.second.card.pointer()],
            gradient: self.gradient.card.pointer(),
            copy: shape.copied.then_some((copy, element)),
            start: shape.start,
            count: shape.count,
            steps: shape.steps,
        }
    }

    fn compare(&self, bench: &mut Bench<'_>, config: &AdamConfig, factor: f64) -> Result<(), ModelError> {
        let shape = self.shape;
        let (beta1, beta2) = config.betas;
        let correction = |beta: f64| 1.0 - beta.powi(shape.steps as i32);
        let (shrink, decay) = match config.decoupled {
            true => (1.0 - config.lr * config.weight_decay, 0.0),
            false => (1.0, config.weight_decay),
        };
        let mut values = self.values.wide();
        let mut copy = vec![0.0; shape.rows * shape.stride];
        let (mut first, mut second) = (self.first.wide(), self.second.wide());
        for (at, g) in self.gradient.wide().into_iter().enumerate() {
            let place = shape.start + at;
            let x = values[place];
            let g = g * factor + decay * x;
            first[at] = first[at] * beta1 + g * (1.0 - beta1);
            second[at] = second[at] * beta2 + g * g * (1.0 - beta2);
            let (m, v) = (first[at] / correction(beta1), second[at] / correction(beta2));
            values[place] = x * shrink - m / (v.sqrt() + config.eps) * config.lr;
            if shape.copied {
                copy[place / shape.columns * shape.stride + place % shape.columns] = values[place];
            }
        }
        let kind = if config.decoupled { "AdamW" } else { "Adam" };
        let name = |what: &str| format!("{kind}, {}: {what}", shape.name);
        // Values that are not of the part, and what stands between a copy's rows, stay as they were.
        bench.compare_f32(&name("values"), &self.values.card, &values)?;
        bench.compare_f32(&name("first moments"), &self.first.card, &first)?;
        bench.compare_f32(&name("second moments"), &self.second.card, &second)?;
        bench.compare(&name("rounded copy"), &self.copy, &copy)
    }
}
