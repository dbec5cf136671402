//! The rows that a language model scores: a prompt once, then each of its responses.

use std::ops::Range;

use crate::ops::RowShape;

/// Rows of tokens that stand end to end without padding, and the response tokens to be scored.
///
/// The responses of one prompt share it: positions of each continue after the prompt, and a response sees the prompt and
/// itself, never its siblings. That is the same mathematics as one row a response, with the prompt computed once.
#[derive(Debug, Clone, Default)]
pub struct PackedBatch {
    pub(crate) tokens: Vec<u32>,
    pub(crate) positions: Vec<u32>,
    pub(crate) rows: Vec<RowShape>,
    /// For every scored token the index of the token whose hidden state predicts it.
    pub(crate) predictors: Vec<u32>,
    pub(crate) scored: Vec<u32>,
    responses: Vec<Range<usize>>,
}

impl PackedBatch {
    /// Packs `rows` of a prompt and its responses. Every response token is scored, in the order given.
    pub fn new<'a>(rows: impl IntoIterator<Item = (&'a [u32], &'a [&'a [u32]])>) -> Self {
        let mut batch = Self::default();
        for (prompt, responses) in rows {
            batch.push(prompt, responses);
        }
        batch
    }

    /// Packs plain sequences: everything after the first token is scored.
    pub fn sequences(sequences: &[&[u32]]) -> Self {
        let mut batch = Self::default();
        for sequence in sequences {
            let (first, rest) = sequence.split_at(sequence.len().min(1));
            batch.push(first, &[rest]);
        }
        batch
    }

    fn push(&mut self, prompt: &[u32], responses: &[&[u32]]) {
        if prompt.is_empty() {
            // Nothing predicts a first token: such a row has no scores.
            self.responses
                .extend(responses.iter().map(|_| self.scored.len()..self.scored.len()));
            return;
        }
        let start = self.tokens.len() as u32;
        self.tokens.extend(prompt);
        self.positions.extend(0..prompt.len() as u32);
        let mut branches = Vec::with_capacity(responses.len());
        for response in responses {
            let first = self.scored.len();
            // The last token predicts nothing that is scored, so it is no input.
            let inputs = &response[..response.len().saturating_sub(1)];
            let branch = self.tokens.len() as u32;
            self.tokens.extend(inputs);
            self.positions
                .extend((0..inputs.len()).map(|i| (prompt.len() + i) as u32));
            branches.push(inputs.len());
            if !response.is_empty() {
                self.predictors.push(start + prompt.len() as u32 - 1);
                self.predictors.extend((0..inputs.len()).map(|i| branch + i as u32));
                self.scored.extend(*response);
            }
            self.responses.push(first..self.scored.len());
        }
        self.rows.push(RowShape::Tree {
            prompt: prompt.len(),
            branches,
        });
    }

    /// Tokens that go through the model.
    pub fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Whether there is nothing to compute.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty()
    }

    /// Where each response's tokens stand among the scored ones, in the order of packing.
    pub fn responses(&self) -> &[Range<usize>] {
        &self.responses
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn responses_share_their_prompt_and_continue_its_positions() {
        let batch = PackedBatch::new([(&[5, 6, 7][..], &[&[8, 9][..], &[10][..]][..])]);
        assert_eq!(batch.tokens, [5, 6, 7, 8]);
        assert_eq!(batch.positions, [0, 1, 2, 3]);
        assert_eq!(batch.scored, [8, 9, 10]);
        assert_eq!(batch.predictors, [2, 3, 2]);
        assert_eq!(batch.responses(), [0..2, 2..3]);
    }

    #[test]
    fn sequences_score_all_but_their_first_token() {
        let batch = PackedBatch::sequences(&[&[1, 2, 3], &[4]]);
        assert_eq!(batch.scored, [2, 3]);
        assert_eq!(batch.responses(), [0..2, 2..2]);
    }
}
