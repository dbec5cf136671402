//! Packed tokens on the card: what each sees, and where each is scored.

use super::gpu::{Buffer, Gpu};
use crate::ModelError;
use crate::ops::RowShape;
use crate::packed::PackedBatch;

/// Rows of tokens that stand end to end.
#[derive(Debug)]
pub(super) struct Rows {
    pub(super) count: usize,
    pub(super) longest: usize,
    pub(super) tokens: Buffer,
    pub(super) positions: Buffer,
    /// Two ranges of keys for each query.
    pub(super) sees: Buffer,
    /// The range of queries that see each key.
    pub(super) seen: Buffer,
    /// The same for the kernels on tensor cores: start, length, start and length of the prompt that is seen too, first child and
    /// number of children of each segment; and the segment and place of every 64 rows.
    pub(super) segments: Buffer,
    pub(super) tiles: Buffer,
    pub(super) tile_count: usize,
    pub(super) causal: bool,
    /// Whether every row is a text whose tokens see all of it.
    pub(super) texts: bool,
}

impl Rows {
    pub(super) fn new(gpu: &Gpu, tokens: &[u32], positions: &[u32], rows: &[RowShape]) -> Result<Self, ModelError> {
        let mut sees: Vec<u32> = Vec::with_capacity(4 * tokens.len());
        let mut seen: Vec<u32> = Vec::with_capacity(2 * tokens.len());
        let mut segments: Vec<[u32; 6]> = Vec::new();
        let mut start = 0_u32;
        for row in rows {
            let end = start + row.len() as u32;
            match row {
                RowShape::Full(_) => {
                    segments.push([start, end - start, 0, 0, 0, 0]);
                    for _ in start..end {
                        sees.extend([0, 0, start, end]);
                        seen.extend([start, end]);
                    }
                }
                RowShape::Tree { prompt, branches } => {
                    let prompt_end = start + *prompt as u32;
                    let children = segments.len() as u32 + 1;
                    segments.push([start, prompt_end - start, 0, 0, children, branches.len() as u32]);
                    for token in start..prompt_end {
                        sees.extend([0, 0, start, token + 1]);
                        seen.extend([token, end]);
                    }
                    let mut first = prompt_end;
                    for branch in branches {
                        let branch_end = first + *branch as u32;
                        segments.push([first, branch_end - first, start, prompt_end - start, 0, 0]);
                        for token in first..branch_end {
                            sees.extend([start, prompt_end, first, token + 1]);
                            seen.extend([token, branch_end]);
                        }
                        first = branch_end;
                    }
                }
            }
            start = end;
        }
        let tiles_of =
            |(number, segment): (usize, &[u32; 6])| (0..segment[1].div_ceil(64)).map(move |tile| [number as u32, tile]);
        let mut tiles: Vec<[u32; 2]> = segments.iter().enumerate().flat_map(tiles_of).collect();
        let causal = rows.iter().all(|row| matches!(row, RowShape::Tree { .. }));
        // What takes longest begins first: rows late in their text, which see most, or the longest texts, where a text's tiles stay
        // together because they read the same keys.
        tiles.sort_by_key(|&[number, tile]| {
            let [_, len, _, prompt, ..] = segments[number as usize];
            std::cmp::Reverse(if causal { tile + prompt.div_ceil(64) } else { len })
        });
        Ok(Self {
            segments: gpu.upload(segments.as_flattened())?,
            tiles: gpu.upload(tiles.as_flattened())?,
            tile_count: tiles.len(),
            causal,
            texts: rows.iter().all(|row| matches!(row, RowShape::Full(_))),
            count: tokens.len(),
            longest: positions.iter().max().map_or(0, |&most| most as usize + 1),
            tokens: gpu.upload(tokens)?,
            positions: gpu.upload(positions)?,
            sees: gpu.upload(&sees)?,
            seen: gpu.upload(&seen)?,
        })
    }

    pub(super) fn of(gpu: &Gpu, batch: &PackedBatch) -> Result<Self, ModelError> {
        Self::new(gpu, &batch.tokens, &batch.positions, &batch.rows)
    }
}

/// Places by the id that each names: those of one id together and in order.
#[derive(Debug)]
pub(super) struct Grouped {
    /// Ids, each once, in ascending order.
    pub(super) ids: Buffer,
    pub(super) count: usize,
    /// The places, and where each id's begin among them, and the end.
    pub(super) order: Buffer,
    pub(super) starts: Buffer,
}

impl Grouped {
    pub(super) fn new(gpu: &Gpu, named: &[u32]) -> Result<Self, ModelError> {
        let (ids, order, starts) = group(named);
        Ok(Self {
            count: ids.len(),
            ids: gpu.upload(&ids)?,
            order: gpu.upload(&order)?,
            starts: gpu.upload(&starts)?,
        })
    }
}

fn group(named: &[u32]) -> (Vec<u32>, Vec<u32>, Vec<u32>) {
    let mut order: Vec<u32> = (0..named.len() as u32).collect();
    order.sort_unstable_by_key(|&place| (named[place as usize], place));
    let (mut ids, mut starts) = (Vec::new(), Vec::new());
    for (at, &place) in order.iter().enumerate() {
        let id = named[place as usize];
        if ids.last() != Some(&id) {
            ids.push(id);
            starts.push(at as u32);
        }
    }
    starts.push(order.len() as u32);
    (ids, order, starts)
}

/// Where tokens are scored: which row predicts each, and for the way back which scores each predicting row has.
#[derive(Debug)]
pub(super) struct Scored {
    pub(super) count: usize,
    pub(super) tokens: Buffer,
    pub(super) predictors: Buffer,
    pub(super) by_row: Grouped,
}

impl Scored {
    pub(super) fn of(gpu: &Gpu, batch: &PackedBatch) -> Result<Self, ModelError> {
        Ok(Self {
            count: batch.scored.len(),
            tokens: gpu.upload(&batch.scored)?,
            predictors: gpu.upload(&batch.predictors)?,
            by_row: Grouped::new(gpu, &batch.predictors)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::group;

    #[test]
    fn places_of_an_id_stand_together_in_order() {
        let (ids, order, starts) = group(&[7, 2, 7, 9, 2, 7]);
        assert_eq!(ids, [2, 7, 9]);
        assert_eq!(order, [1, 4, 0, 2, 5, 3]);
        assert_eq!(starts, [0, 2, 5, 6]);
        assert_eq!(group(&[]), (vec![], vec![], vec![0]));
    }
}
