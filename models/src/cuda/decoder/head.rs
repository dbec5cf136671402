//! The head: log-probabilities of tokens, and the gradient by logits.

use std::ops::Range;

use super::{CudaDecoder, CudaPass};
use crate::ModelError;
use crate::cuda::batch::Scored;
use crate::cuda::fused::{ScoreProduct, SlopesOf};
use crate::cuda::gpu::{Buffer, Element, View};
use crate::cuda::kernels::{SCORE, SCORE_BACKWARD};
use crate::cuda::launch::Argument;
use crate::cuda::layers::Stack;

/// f32 logits of at most so many bytes at a time; as many bytes of gradients by them.
pub(super) const LOGIT_BYTES: usize = 512 << 20;

impl CudaDecoder {
    /// Whether products with the head end in scores. `x` are its inputs.
    fn scores_in_product(&self, head: &Stack, x: View) -> bool {
        let rank = head.parts[0].rank;
        self.plan.vocabulary.is_multiple_of(8)
            && rank.is_multiple_of(8)
            && self.gpu.fuses(self.element, x.rows, &[x, head.weight(0)])
    }

    /// Log-probabilities of the tokens that are scored, entropies, and ln Σ e^logit, f32. `x` are the head's inputs, a row for each.
    pub(super) fn score_head(
        &self,
        head: &Stack,
        x: View,
        scored: &Scored,
        temperature: f64,
        adapted: bool,
    ) -> Result<[Buffer; 3], ModelError> {
        let (gpu, count, vocabulary) = (&self.gpu, scored.count, self.plan.vocabulary);
        let room = || gpu.elements(count, Element::F32);
        let [logprobs, entropies, lse] = [room()?, room()?, room()?];
        let inverse = 1.0 / temperature as f32;
        if self.scores_in_product(head, x) {
            if adapted {
                head.forward_low(gpu, 0, x)?;
            }
            let (x, weight) = head.factors(0, x, adapted);
            let of = &ScoreProduct {
                tokens: &scored.tokens,
                inverse,
                into: [&logprobs, &entropies, &lse],
            };
            gpu.score_product(x, weight, of)?;
            return Ok([logprobs, entropies, lse]);
        }
        for part in self.head_chunks(count, 4) {
            let logits = gpu.elements(part.len() * vocabulary, Element::F32)?;
            let rows = x.rows(part.start, part.len(), self.element);
            head.forward_f32(gpu, 0, rows, logits.matrix(part.len(), vocabulary), adapted)?;
            let at = |buffer: &Buffer| Argument::Address(buffer.pointer() + 4 * part.start as u64);
            // SAFETY: every buffer has `count` numbers, of which `part` are used.
            unsafe {
                let grid = [part.len() as u32, 1, 1];
                let arguments = [
                    at(&logprobs),
                    at(&entropies),
                    at(&lse),
                    (&logits).into(),
                    at(&scored.tokens),
                    vocabulary.into(),
                    inverse.into(),
                ];
                gpu.launch(SCORE, self.element, grid, 1024, 0, &arguments)?;
            }
        }
        Ok([logprobs, entropies, lse])
    }

    /// Rows that the way back takes at a time.
    pub(super) fn backward_chunks(&self, pass: &CudaPass) -> impl Iterator<Item = Range<usize>> + use<> {
        let x = pass.x.matrix(pass.scored.count, self.head.input_width(0));
        let bytes = if self.scores_in_product(&self.head, x) { 2 } else { 4 };
        self.head_chunks(pass.scored.count, bytes)
    }

    /// The gradient by logits of rows `part` into the first columns of `out`, given `slopes` of all log-probabilities.
    pub(super) fn logit_gradient(
        &self,
        pass: &CudaPass,
        part: Range<usize>,
        slopes: &Buffer,
        out: View,
    ) -> Result<(), ModelError> {
        let (gpu, element, vocabulary) = (&self.gpu, self.element, self.plan.vocabulary);
        let x = pass.x.matrix(pass.scored.count, self.head.input_width(0));
        let rows = x.rows(part.start, part.len(), element);
        let inverse = 1.0 / pass.temperature as f32;
        if self.scores_in_product(&self.head, x) {
            self.head.forward_low(gpu, 0, rows)?;
            let (rows, weight) = self.head.factors(0, rows, true);
            let of = &SlopesOf {
                row: part.start,
                tokens: &pass.scored.tokens,
                lse: &pass.lse,
                slopes,
                inverse,
            };
            let out = out.columns(0, vocabulary, element);
            return gpu.score_product_backward(out, rows, weight, of);
        }
        let logits = gpu.elements(part.len() * vocabulary, Element::F32)?;
        self.head
            .forward_f32(gpu, 0, rows, logits.matrix(part.len(), vocabulary), true)?;
        let at = |buffer: &Buffer| Argument::Address(buffer.pointer() + 4 * part.start as u64);
        // SAFETY: every buffer has as many numbers as there are rows, of which `part` are used.
        unsafe {
            let arguments = [
                out.into(),
                out.stride.into(),
                (&logits).into(),
                at(&pass.lse),
                at(&pass.scored.tokens),
                at(slopes),
                vocabulary.into(),
                inverse.into(),
            ];
            let grid = [vocabulary.div_ceil(1024) as u32, part.len() as u32, 1];
            gpu.launch(SCORE_BACKWARD, element, grid, 256, 0, &arguments)
        }
    }

    /// Rows of logits, or of as many values of `bytes` bytes, that go together.
    fn head_chunks(&self, count: usize, bytes: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let step = (LOGIT_BYTES / bytes / self.plan.vocabulary).clamp(1, 4096);
        (0..count)
            .step_by(step)
            .map(move |start| start..(start + step).min(count))
    }
}
