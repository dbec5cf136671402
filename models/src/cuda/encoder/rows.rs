//! Texts on the card, and which rows of a table they take.

use std::ops::Range;

use super::Texts;
use crate::ModelError;
use crate::cuda::batch::{Grouped, Rows};
use crate::cuda::gpu::Gpu;
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

/// The same, but what the last would have of few tokens goes with those before it.
pub(super) fn passes_of_much(texts: &[&[u32]], most: usize) -> Vec<Range<usize>> {
    let mut passes = passes(texts, most);
    let tokens = |range: &Range<usize>| texts[range.clone()].iter().map(|text| text.len()).sum::<usize>();
    if let Some(last) = passes.pop_if(|last| last.start > 0 && tokens(last) <= most / 8) {
        // There is one before it.
        if let Some(pass) = passes.last_mut() {
            pass.end = last.end;
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

/// Which rows of the tables of words and of positions texts take.
pub(super) fn gathered(gpu: &Gpu, texts: &[&[u32]]) -> Result<[Grouped; 2], ModelError> {
    Ok([
        Grouped::new(gpu, &texts.concat())?,
        Grouped::new(gpu, &positions(texts))?,
    ])
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
        // The last one's token is few beside 16, and not beside 7.
        let texts: Vec<&[u32]> = [8, 8, 1].iter().map(|&len| &tokens[..len]).collect();
        assert_eq!(passes_of_much(&texts, 16), std::slice::from_ref(&(0..3)));
        assert_eq!(passes_of_much(&texts[1..], 7), [0..1, 1..2]);
        assert_eq!(passes_of_much(&texts[2..], 16), std::slice::from_ref(&(0..1)));
        assert!(passes_of_much(&[], 16).is_empty());
    }
}
