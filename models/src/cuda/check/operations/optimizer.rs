//! Adam over several parts at once.

use super::{Bench, Given};
use crate::cuda::adam::{Move, Place, adam};
use crate::cuda::gpu::{Buffer, Element, View};
use crate::{AdamConfig, ModelError};

/// A part of a parameter of `rows` × `columns`, of which a copy has rows `stride` apart.
pub(super) struct Shape {
    pub(super) name: &'static str,
    pub(super) rows: usize,
    pub(super) columns: usize,
    pub(super) stride: usize,
    /// First value of the part, and their number.
    pub(super) start: usize,
    pub(super) count: usize,
    pub(super) steps: u32,
    pub(super) copied: bool,
}

impl Shape {
    /// The parameter's copy, from this address on.
    pub(super) fn copy(&self, pointer: u64) -> View {
        View {
            pointer,
            rows: self.rows,
            columns: self.columns,
            stride: self.stride,
        }
    }

    /// Where a value of the parameter stands in its copy.
    pub(super) fn place(&self, value: usize) -> usize {
        value / self.columns * self.stride + value % self.columns
    }
}

/// Blocks of their own and blocks that are not full; four values at once, one at once and the rest of fours; copies with and
/// without gaps.
pub(super) const SHAPES: [Shape; 6] = [
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

/// What a step makes of a value x, its gradient and its moments: the value and the moments.
pub(super) fn stepped(config: &AdamConfig, factor: f64, steps: u32, [x, g, m, v]: [f64; 4]) -> [f64; 3] {
    let (beta1, beta2) = config.betas;
    let correction = |beta: f64| 1.0 - beta.powi(steps as i32);
    let (shrink, decay) = match config.decoupled {
        true => (1.0 - config.lr * config.weight_decay, 0.0),
        false => (1.0, config.weight_decay),
    };
    let g = g * factor + decay * x;
    let first = m * beta1 + g * (1.0 - beta1);
    let second = v * beta2 + g * g * (1.0 - beta2);
    let (m, v) = (first / correction(beta1), second / correction(beta2));
    [x * shrink - m / (v.sqrt() + config.eps) * config.lr, first, second]
}

/// Second moments, which are not negative.
pub(super) fn second_moments(bench: &mut Bench<'_>, count: usize) -> Result<Given, ModelError> {
    let mut second = bench.given_as(count, 0.3, Element::F32)?;
    second.values.iter_mut().for_each(|value| *value = value.abs());
    second.card.write(0, &second.values)?;
    Ok(second)
}

/// The settings that are tried.
pub(super) fn settings() -> [AdamConfig; 2] {
    [true, false].map(|decoupled| AdamConfig {
        lr: 3e-3,
        betas: (0.9, 0.999),
        eps: 1e-8,
        weight_decay: 0.02,
        decoupled,
    })
}

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
    for config in settings() {
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
        let second = second_moments(bench, shape.count)?;
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
        let copy = shape.copy(self.copy.pointer());
        Move {
            values: Place::Own(self.values.card.pointer() + 4 * shape.start as u64),
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
        let mut values = self.values.wide();
        let mut copy = vec![0.0; shape.rows * shape.stride];
        let (mut first, mut second) = (self.first.wide(), self.second.wide());
        for (at, g) in self.gradient.wide().into_iter().enumerate() {
            let place = shape.start + at;
            let before = [values[place], g, first[at], second[at]];
            [values[place], first[at], second[at]] = stepped(config, factor, shape.steps, before);
            if shape.copied {
                copy[shape.place(place)] = values[place];
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
