//! Adam's move of many parameters, or of parts of them, in one launch.

use super::gpu::{Element, Gpu, View};
use super::kernels::ADAM;
use super::launch::Argument;
use crate::rounding::Rounding;
use crate::{AdamConfig, ModelError};

/// Values that a block moves, a multiple of four.
const CHUNK: usize = 8192;

/// Numbers of 64 bits that describe a move to the kernel.
const WORDS: usize = 12;

/// Where the values of a part are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// f32, from this address on.
    Own(u64),
    /// In the copy alone, as bf16 numbers that a rounding keeps so.
    Copy {
        rounding: Rounding,
        /// Where they go besides, side by side, as bf16; 0: nowhere.
        besides: u64,
    },
}

/// A part of a parameter that is moved along its gradient; addresses are those of its first value, of moments and gradient f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) values: Place,
    pub(super) moments: [u64; 2],
    pub(super) gradient: u64,
    /// The parameter's whole rounded copy, and its type.
    pub(super) copy: Option<(View, Element)>,
    /// First value of the part among the parameter's.
    pub(super) start: usize,
    /// Its values: at least one.
    pub(super) count: usize,
    /// Steps that the parameter has made, with this one.
    pub(super) steps: u32,
}

impl Move {
    /// As the kernel reads it: `Move` of `adam.cu`.
    fn words(&self, config: &AdamConfig, first_block: u32) -> [u64; WORDS] {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let (copy, rows, kind) = match self.copy {
            None => (0, [0, 0], 0),
            Some((copy, element)) => {
                // Rows without gaps are one row.
                let gaps = copy.rows > 1 && copy.stride != copy.columns;
                let rows = if gaps { [copy.columns, copy.stride] } else { [0, 0] };
                let kind = if element == Element::Bf16 { 2 } else { 1 };
                (copy.pointer, rows, kind)
            }
        };
        let (values, alone, rounding) = match self.values {
            Place::Own(values) => (values, 0, None),
            Place::Copy { rounding, besides } => (besides, 4, Some(rounding)),
        };
        let (seed, parameter) = rounding.map_or((0, 0), |rounding| (rounding.seed, rounding.parameter));
        let correction = |beta: f64| 1.0 - beta.powi(self.steps as i32);
        let rate = (config.lr / correction(config.betas.0)) as f32;
        let root = correction(config.betas.1).sqrt() as f32;
        [
            values,
            self.moments[0],
            self.moments[1],
            self.gradient,
            copy,
            self.start as u64,
            self.count as u64,
            pair(rows[0] as u32, rows[1] as u32),
            pair(first_block, kind + alone),
            pair(rate.to_bits(), root.to_bits()),
            seed,
            pair(parameter, self.steps),
        ]
    }
}

/// The first block of each of so many values, and the number of all blocks.
fn blocks(counts: impl Iterator<Item = usize>) -> (Vec<u32>, u32) {
    let mut next = 0;
    let firsts = counts.map(|count| {
        let first = next;
        next += count.div_ceil(CHUNK) as u32;
        first
    });
    (firsts.collect(), next)
}

/// Moves all of them along their gradients times `factor`.
///
/// # Safety
/// Their addresses hold so many values, and no two of them the same.
pub(super) unsafe fn adam(gpu: &Gpu, config: &AdamConfig, factor: f64, moves: &[Move]) -> Result<(), ModelError> {
    let (firsts, blocks) = blocks(moves.iter().map(|part| part.count));
    let words = moves.iter().zip(firsts).map(|(part, first)| part.words(config, first));
    let words: Vec<u64> = words.flatten().collect();
    let table = gpu.upload(&words)?;
    let (shrink, decay) = match config.decoupled {
        true => (1.0 - config.lr * config.weight_decay, 0.0),
        false => (1.0, config.weight_decay),
    };
    let (beta1, beta2) = config.betas;
    let numbers = [factor, beta1, beta2, config.eps, shrink, decay].map(|number| Argument::Float(number as f32));
    let mut arguments = vec![(&table).into(), moves.len().into(), CHUNK.into()];
    arguments.extend(numbers);
    // SAFETY: the caller's promise; every part has the blocks that the table says.
    unsafe { gpu.launch(ADAM, Element::F32, [blocks, 1, 1], 256, 0, &arguments) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: AdamConfig = AdamConfig {
        lr: 0.25,
        betas: (0.5, 0.75),
        eps: 1e-8,
        weight_decay: 0.0,
        decoupled: true,
    };

    fn part(copy: Option<(View, Element)>) -> Move {
        Move {
            values: Place::Own(1),
            moments: [2, 3],
            gradient: 4,
            copy,
            start: 6,
            count: 7,
            steps: 2,
        }
    }

    fn copy(rows: usize, columns: usize, stride: usize) -> View {
        View {
            pointer: 5,
            rows,
            columns,
            stride,
        }
    }

    #[test]
    fn every_part_has_blocks_for_all_its_values() {
        let counts = [1, CHUNK, CHUNK + 1, 3 * CHUNK, 5];
        let (firsts, all) = blocks(counts.into_iter());
        assert_eq!(firsts, [0, 1, 2, 4, 7]);
        assert_eq!(all, 8);
        assert_eq!(blocks([].into_iter()), (vec![], 0));
    }

    #[test]
    fn a_move_is_described_as_the_kernel_reads_it() {
        let words = part(Some((copy(3, 8, 12), Element::Bf16))).words(&CONFIG, 9);
        // After two steps 1 − β² is 3/4 and 7/16.
        let (rate, root) = (0.25_f32 / 0.75, 0.4375_f32.sqrt());
        let pair = |low: u32, high: u32| (u64::from(high) << 32) + u64::from(low);
        let expected = [
            1,
            2,
            3,
            4,
            5,
            6,
            7,
            pair(8, 12),
            pair(9, 2),
            pair(rate.to_bits(), root.to_bits()),
            0,
            pair(0, 2),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn a_copy_that_is_all_there_is_comes_with_what_its_rounding_draws_from() {
        let rounding = Rounding {
            seed: 0x0123_4567_89ab_cdef,
            parameter: 8,
        };
        for (element, kind) in [(Element::F32, 5), (Element::Bf16, 6)] {
            let values = Place::Copy { rounding, besides: 11 };
            let part = Move {
                values,
                ..part(Some((copy(1, 8, 8), element)))
            };
            let words = part.words(&CONFIG, 0);
            assert_eq!((words[0], words[8] >> 32), (11, kind));
            assert_eq!(words[10..], [rounding.seed, (2 << 32) + 8]);
        }
    }

    #[test]
    fn a_copy_without_gaps_has_no_rows() {
        for (view, rows) in [(copy(3, 8, 8), 0), (copy(1, 8, 12), 0), (copy(2, 8, 12), 8)] {
            let words = part(Some((view, Element::F32))).words(&CONFIG, 0);
            assert_eq!((words[7] as u32, words[8] >> 32), (rows, 1));
        }
        assert_eq!(part(None).words(&CONFIG, 0)[8] >> 32, 0);
    }
}
