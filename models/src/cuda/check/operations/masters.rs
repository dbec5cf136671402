//! Adam over parts whose values are bf16 numbers in the copy alone.

use super::optimizer::{SHAPES, Shape, second_moments, settings, stepped};
use super::{Bench, Check, Given};
use crate::cuda::adam::{Move, Place, adam};
use crate::cuda::gpu::{Buffer, Element};
use crate::rounding::{Rounding, to_nearest};
use crate::{AdamConfig, ModelError};

const FACTOR: f64 = 0.5;

/// How many values may have a draw that f32 does not decide, as a share of all.
const OPEN: f64 = 0.005;

pub(super) fn check(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    for config in settings() {
        let mut parts = Vec::new();
        for (shape, parameter) in SHAPES.iter().filter(|shape| shape.copied).zip(3..) {
            parts.push(Part::new(bench, shape, parameter)?);
        }
        let moves: Vec<Move> = parts.iter().map(|part| part.next_move(bench.element)).collect();
        // SAFETY: every part has so many values, and its copy the parameter's rows.
        unsafe { adam(bench.gpu, &config, FACTOR, &moves)? };
        let (mut open, mut all) = (0, 0);
        for part in &parts {
            open += part.compare(bench, &config)?;
            all += part.shape.count;
        }
        (bench.report)(Check {
            name: format!(
                "{}, bf16 numbers: draws that f32 leaves open, {:?}",
                name(&config),
                bench.element
            ),
            error: open as f64 / all as f64,
            bound: OPEN,
        });
    }
    in_parts(bench)
}

fn name(config: &AdamConfig) -> &'static str {
    if config.decoupled { "AdamW" } else { "Adam" }
}

/// What a part is made of.
struct Part<'a> {
    shape: &'a Shape,
    rounding: Rounding,
    copy: Given,
    gradient: Given,
    first: Given,
    second: Given,
    besides: Buffer,
}

impl<'a> Part<'a> {
    fn new(bench: &mut Bench<'_>, shape: &'a Shape, parameter: u32) -> Result<Self, ModelError> {
        Ok(Self {
            shape,
            rounding: Rounding {
                seed: bench.seed ^ 0x9e37_79b9_7f4a_7c15,
                parameter,
            },
            copy: bf16_numbers(bench, shape.rows * shape.stride)?,
            gradient: bench.given_as(shape.count, 1.0, Element::F32)?,
            first: bench.given_as(shape.count, 0.3, Element::F32)?,
            second: second_moments(bench, shape.count)?,
            besides: bench.room(shape.count, Element::Bf16)?,
        })
    }

    fn next_move(&self, element: Element) -> Move {
        let shape = self.shape;
        Move {
            values: Place::Copy {
                rounding: self.rounding,
                besides: self.besides.pointer(),
            },
            moments: [self.first.card.pointer(), self.second.card.pointer()],
            gradient: self.gradient.card.pointer(),
            copy: Some((shape.copy(self.copy.card.pointer()), element)),
            start: shape.start,
            count: shape.count,
            steps: shape.steps,
        }
    }

    /// Compares the copy with what the processor draws: both ends of what the kernel's f32 may have come to, under the bits of the value's
    /// place. What stands before and after the part and between rows stays. Returns at how many values both ends differ.
    fn compare(&self, bench: &mut Bench<'_>, config: &AdamConfig) -> Result<usize, ModelError> {
        let shape = self.shape;
        let mut expected = self.copy.values.clone();
        let found = bench.read(&self.copy.card, expected.len(), bench.element)?;
        let before = [&self.gradient, &self.first, &self.second].map(Given::wide);
        let (mut first, mut second) = (Vec::new(), Vec::new());
        let [mut low, mut high] = [Vec::new(), Vec::new()];
        for at in 0..shape.count {
            let x = f64::from(expected[shape.place(shape.start + at)]);
            let [g, m, v] = [before[0][at], before[1][at], before[2][at]];
            let [moved, m_next, v_next] = stepped(config, FACTOR, shape.steps, [x, g, m, v]);
            first.push(m_next);
            second.push(v_next);
            // 1 − β₂ alone is 2e-5 off in f32; all else is a few roundings of the terms.
            let terms = m.abs() + (1.0 - config.betas.0) * (g.abs() + x.abs());
            let step = (moved - x).abs();
            let error = 2e-5 * step + 2f64.powi(-22) * (x.abs() + step * terms / m_next.abs().max(1e-30));
            low.push((moved - error) as f32);
            high.push((moved + error) as f32);
        }
        for end in [&mut low, &mut high] {
            self.rounding.round(shape.steps, shape.start, end);
        }
        for at in 0..shape.count {
            let place = shape.place(shape.start + at);
            expected[place] = found[place].clamp(low[at], high[at]);
        }
        let name = |what: &str| format!("{}, bf16 numbers, {}: {what}", name(config), shape.name);
        let mut exactly = |what: &str, found: &[f32], expected: &[f32]| {
            (bench.report)(Check::new(
                format!("{}, {:?}", name(what), bench.element),
                found,
                expected,
                0.0,
            ));
        };
        exactly("values", &found, &expected);
        let besides: Vec<half::bf16> = self.besides.read(0, shape.count)?;
        let besides: Vec<f32> = besides.iter().map(|value| value.to_f32()).collect();
        let own: Vec<f32> = (0..shape.count)
            .map(|at| found[shape.place(shape.start + at)])
            .collect();
        exactly("the same side by side", &besides, &own);
        bench.compare_f32(&name("first moments"), &self.first.card, &first)?;
        bench.compare_f32(&name("second moments"), &self.second.card, &second)?;
        Ok(low.iter().zip(&high).filter(|(low, high)| low != high).count())
    }
}

/// bf16 numbers within ±1, in the type that is tried.
fn bf16_numbers(bench: &mut Bench<'_>, count: usize) -> Result<Given, ModelError> {
    let mut numbers = bench.given(count, 1.0)?;
    if bench.element == Element::F32 {
        to_nearest(&mut numbers.values);
        numbers.card.write(0, &numbers.values)?;
    }
    Ok(numbers)
}

/// A parameter that moves as one, four values at a time, and the same in parts that do not begin at fours: the same bits.
fn in_parts(bench: &mut Bench<'_>) -> Result<(), ModelError> {
    const SHAPE: Shape = Shape {
        name: "in parts",
        rows: 30,
        columns: 64,
        stride: 72,
        start: 0,
        count: 30 * 64,
        steps: 4,
        copied: true,
    };
    let [config, _] = settings();
    let one = Part::new(bench, &SHAPE, 11)?;
    let all = one.next_move(bench.element);
    let element = bench.element;
    let copies = [&[0, SHAPE.count][..], &[0, 77, 1200, SHAPE.count]].map(|cuts| -> Result<_, ModelError> {
        let [first, second] = [&one.first, &one.second].map(|given| bench.upload(&given.values, Element::F32));
        let (first, second, copy) = (first?, second?, bench.upload(&one.copy.values, element)?);
        let moves = cuts.windows(2).map(|cut| Move {
            values: Place::Copy {
                rounding: one.rounding,
                besides: 0,
            },
            moments: [&first, &second].map(|moments| moments.pointer() + 4 * cut[0] as u64),
            gradient: all.gradient + 4 * cut[0] as u64,
            copy: Some((SHAPE.copy(copy.pointer()), element)),
            start: cut[0],
            count: cut[1] - cut[0],
            ..all
        });
        let moves: Vec<Move> = moves.collect();
        // SAFETY: the parts lie one behind the other in the parameter.
        unsafe { adam(bench.gpu, &config, FACTOR, &moves)? };
        bench.read(&copy, SHAPE.rows * SHAPE.stride, element)
    });
    let [whole, parts] = copies;
    let name = format!("AdamW, bf16 numbers: parts beside the whole, {element:?}");
    (bench.report)(Check::new(name, &parts?, &whole?, 0.0));
    Ok(())
}
