//! Adam's move of many parameters, or of parts of them, in one launch.

use super::gpu::{Element, Gpu, View};
use super::kernels::ADAM;
use super::launch::Argument;
use crate::{AdamConfig, ModelError};

/// Values that a block moves, a multiple of four.
const CHUNK: usize = 8192;

/// Numbers of 64 bits that describe a move to the kernel.
const WORDS: usize = 10;

/// A part of a parameter that is moved along its gradient; addresses are those of its first value, of moments and gradient f32.
#[derive(Debug, Clone, Copy)]
pub(super) struct Move {
    pub(super) values: u64,
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
        let correction = |beta: f64| 1.0 - beta.powi(self.steps as i32);
        let rate = (config.lr / correction(config.betas.0)) as f32;
        let root = correction(config.betas.1).sqrt() as f32;
        [
            self.values,
            self.moments[0],
            self.moments[1],
            self.gradient,
            copy,
            self.start as u64,
            self.count as u64,
            pair(rows[0] as u32, rows[1] as u32),
            pair(first_block, kind),
            pair(rate.to_bits(), root.to_bits()),
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
            values: 1,
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
        ];
        assert_eq!(words, expected);
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
