//! Texts on the card, and which rows of a table they take.

use std::ops::Range;

use super::Texts;
use crate::ModelError;
use crate::cuda::batch::Rows;
use crate::cuda::gpu::{Buffer, Gpu};
use crate::ops::RowShape;

/// Texts in runs of at most `most` tokens, but at least one.
pub(super) fn passes(texts: &[&[u32]], most: usize) -> Vec<Range<usize>> {
    let mut passes: Vec<Range<usize>> = Vec::new();
    let mut tokens = usize::MAX;
    for (index, text) in texts.iter().enumerate() {
        match passes.last_mut() {
            Some(pass) if tokens + text.len() <= most => {
                pass.end = index + 1;
                tokens += text.len();
            }
            _ => {
                passes.push(index..index + 1);
                tokens = text.len();
            }
        }
    }
    passes
}

impl Texts {
    /// Texts that stand end to end.
    pub(super) fn new(gpu: &Gpu, texts: &[&[u32]]) -> Result<Self, ModelError> {
        let tokens = texts.concat();
        let shapes: Vec<RowShape> = texts.iter().map(|text| RowShape::Full(text.len())).collect();
        let mut starts = vec![0_u32];
        let mut end = 0;
        starts.extend(texts.iter().map(|text| {
            end += text.len() as u32;
            end
        }));
        Ok(Self {
            rows: Rows::new(gpu, &tokens, &positions(texts), &shapes)?,
            starts: gpu.upload(&starts)?,
            single: gpu.upload(&(0..=texts.len() as u32).collect::<Vec<_>>())?,
            count: texts.len(),
        })
    }
}

/// A token's place in its text.
fn positions(texts: &[&[u32]]) -> Vec<u32> {
    texts.iter().flat_map(|text| 0..text.len() as u32).collect()
}

/// Which rows of a table were gathered: the gathering rows by the row that they took.
#[derive(Debug)]
pub(super) struct Gathered {
    /// Gathering rows, those of one taken row together and in order.
    pub(super) order: Buffer,
    /// Where each taken row's begin, and the end.
    pub(super) starts: Buffer,
    /// Taken rows, each once.
    pub(super) ids: Buffer,
    pub(super) count: usize,
}

impl Gathered {
    fn new(gpu: &Gpu, taken: &[u32]) -> Result<Self, ModelError> {
        let mut order: Vec<u32> = (0..taken.len() as u32).collect();
        order.sort_unstable_by_key(|&row| (taken[row as usize], row));
        let (mut ids, mut starts) = (Vec::new(), Vec::new());
        for (place, &row) in order.iter().enumerate() {
            let id = taken[row as usize];
            if ids.last() != Some(&id) {
                ids.push(id);
                starts.push(place as u32);
            }
        }
        starts.push(order.len() as u32);
        Ok(Self {
            order: gpu.upload(&order)?,
            starts: gpu.upload(&starts)?,
            count: ids.len(),
            ids: gpu.upload(&ids)?,
        })
    }

    /// Of words and of positions.
    pub(super) fn of(gpu: &Gpu, texts: &[&[u32]]) -> Result<[Self; 2], ModelError> {
        Ok([Self::new(gpu, &texts.concat())?, Self::new(gpu, &positions(texts))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passes_take_whole_texts_in_order() {
        let tokens = [0_u32; 9];
        let texts: Vec<&[u32]> = [3, 4, 2, 9, 1, 1].iter().map(|&len| &tokens[..len]).collect();
        assert_eq!(passes(&texts, 8), [0..2, 2..3, 3..4, 4..6]);
        let all = passes(&texts, 100);
        assert_eq!((all.len(), &all[0]), (1, &(0..6)));
        assert!(passes(&[], 8).is_empty());
    }
}
