//! How much memory a pass takes.

use super::CudaDecoder;
use super::head::LOGIT_BYTES;
use crate::ModelError;
use crate::cuda::layers::Stack;

/// What is left to others: the workspaces of libraries, kernels, and pieces too small to use.
const SPARE: usize = 1 << 30;

impl CudaDecoder {
    /// Tokens of a pass with gradients, forward and backward, for which there is memory now; at least one. Where blocks are run again on
    /// the way back it has room for more.
    ///
    /// # Errors
    /// When the driver does not tell how much is free.
    pub(in crate::cuda) fn tokens_that_fit(&self, again: bool) -> Result<usize, ModelError> {
        let head = 2 * LOGIT_BYTES + LOGIT_BYTES / 4 * self.head.gradient_width() / self.plan.vocabulary;
        let taken = SPARE + head + self.parameters.missing_moments();
        let available = self.gpu.available()?.saturating_sub(taken);
        // A tenth for what does not lie side by side.
        Ok((available / 10 * 9 / self.bytes_of_a_token(again)).max(1))
    }

    /// Bytes that a token of a pass with gradients takes where most is held: all that the way back needs, or what went into each block
    /// and all of one, and what one block's way back holds meanwhile.
    pub(in crate::cuda) fn bytes_of_a_token(&self, again: bool) -> usize {
        let (plan, element) = (&self.plan, self.element.bytes());
        let trained = &self.layers[self.first_trained..];
        let (queries, keys) = (plan.heads * plan.head_dim, plan.kv_heads * plan.head_dim);
        let inputs = |stack: &Stack| -> usize {
            let own = stack.parts.iter().any(|part| part.rank > 0);
            let parts = if own { stack.parts.len() } else { 1 };
            (0..parts).map(|part| stack.input_width(part)).sum()
        };
        let kept = |layer: &super::Layer| {
            let output = &layer.output;
            let wide = if output.parts[0].rank > 0 {
                output.input_width(0)
            } else {
                0
            };
            let rounded = inputs(&layer.qkv)
                + (queries + 2 * keys)
                + queries
                + wide
                + inputs(&layer.gate_up)
                + 2 * plan.intermediate
                + layer.down.input_width(0);
            // Two sums of the residual stream, two norms' statistics, and the softmax'.
            rounded * element + 4 * (2 * plan.hidden + 2 + plan.heads)
        };
        let each = trained.iter().map(kept);
        let saved: usize = match again {
            false => each.sum(),
            true => 4 * plan.hidden * trained.len() + each.max().unwrap_or(0),
        };
        let held = trained.last().map_or(0, |layer| {
            let rounded = layer.down.gradient_width()
                + plan.intermediate
                + layer.gate_up.gradient_width()
                + 3 * plan.hidden
                + layer.output.gradient_width()
                + queries
                + layer.qkv.gradient_width();
            // The residual's gradient and its fresh part, and parts of keys' and values' gradients.
            rounded * element + 4 * (2 * plan.hidden + 2 * queries + plan.heads)
        });
        // The head's inputs, of response tokens alone; counted as if all were, with their gradients.
        let head = (self.head.input_width(0) + plan.hidden) * element + 4 * 2 * plan.hidden;
        // What lies below goes along for the pass and is kept for the next.
        let trunk = 2 * (4 * plan.hidden + plan.hidden * element);
        saved + held + head + trunk
    }
}
