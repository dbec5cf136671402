//! What training knows about a language model.

use crate::packed::PackedBatch;
use crate::sample::{Draws, Prompt, Response};
use crate::{Decoder, Kept, ModelError, Pass, Trainable};

/// Which parameters a score is computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// As trained so far.
    Current,
    /// As loaded: without the adapter, or with the trained parameters as they were.
    Reference,
}

/// Hidden states below everything that training changes: the same for both policies and all epochs of an update.
#[derive(Debug)]
pub struct Trunk(pub Kept);

/// Scores of a batch's response tokens, in the order of packing.
#[derive(Debug, Clone, Default)]
pub struct Scores {
    /// Log-probability of each token, in nats.
    pub logprobs: Vec<f32>,
    /// Entropy of the distribution at each token, in nats.
    pub entropies: Vec<f32>,
}

/// Scores that a loss can be built on: with its slopes in them, [`LanguageModel::backward`] finds its gradients.
#[derive(Debug)]
pub struct TrackedScores {
    /// The scores.
    pub scores: Scores,
    /// What they came from.
    pub pass: Pass,
}

/// A causal language model that can be sampled, scored and tuned.
pub trait LanguageModel: std::fmt::Debug + Send {
    /// Continues each prompt until an end token or `draws.limit` tokens. Order follows `prompts`.
    fn sample(&mut self, prompts: &[Prompt<'_>], draws: &Draws) -> Result<Vec<Response>, ModelError>;
    /// Runs what lies below the trained parameters.
    fn trunk(&self, batch: &PackedBatch) -> Result<Trunk, ModelError>;
    /// Scores every response token of `batch` at `temperature`, without gradients.
    fn score(&self, batch: &PackedBatch, trunk: &Trunk, policy: Policy, temperature: f64)
    -> Result<Scores, ModelError>;
    /// Scores with gradients: the same numbers as [`LanguageModel::score`] under the current policy, bit for bit.
    fn score_tracked(
        &mut self,
        batch: &PackedBatch,
        trunk: &Trunk,
        temperature: f64,
    ) -> Result<TrackedScores, ModelError>;
    /// Adds the gradients of Σ slopes\[i\] · logprobs\[i\], `slopes` having one for each token, to the kept sums.
    ///
    /// # Errors
    /// When a parameter has changed since the pass.
    fn backward(&mut self, tracked: TrackedScores, slopes: &[f32]) -> Result<(), ModelError>;
    /// Tokens of a pass with gradients for which its device has memory now, or would have with `recomputing`; `None` where that is
    /// not counted.
    ///
    /// # Errors
    /// When the device does not tell.
    fn tokens_that_fit(&self, recomputing: bool) -> Result<Option<usize>, ModelError> {
        let _ = recomputing;
        Ok(None)
    }
    /// From now on passes with gradients of more than `tokens` keep what went into each block alone and run the block again on the way
    /// back: the same bits, slower, in less memory (Chen et al., 2016, arXiv 1604.06174). A model that does not know how stays as it is.
    fn recompute_above(&mut self, tokens: usize) {
        let _ = tokens;
    }
    /// The longest sequence the model was made for, in tokens.
    fn max_positions(&self) -> usize;
    /// The parameters that training may change.
    fn trainable(&mut self) -> &mut dyn Trainable;
    /// Writes what training changed: a Hugging Face folder, or a PEFT adapter folder where an adapter is trained.
    fn save(&self, folder: &std::path::Path) -> Result<(), ModelError>;
}

impl LanguageModel for Decoder {
    fn sample(&mut self, prompts: &[Prompt<'_>], draws: &Draws) -> Result<Vec<Response>, ModelError> {
        self.sample_responses(prompts, draws)
    }

    fn trunk(&self, batch: &PackedBatch) -> Result<Trunk, ModelError> {
        Decoder::trunk(self, batch)
    }

    fn score(
        &self,
        batch: &PackedBatch,
        trunk: &Trunk,
        policy: Policy,
        temperature: f64,
    ) -> Result<Scores, ModelError> {
        if batch.scored.is_empty() {
            return Ok(Scores::default());
        }
        self.score_plain(batch, trunk, policy, temperature)?.read()
    }

    fn score_tracked(
        &mut self,
        batch: &PackedBatch,
        trunk: &Trunk,
        temperature: f64,
    ) -> Result<TrackedScores, ModelError> {
        if batch.scored.is_empty() {
            return Err(ModelError::Input(
                "a batch without response tokens has no loss".to_owned(),
            ));
        }
        Decoder::score_tracked(self, batch, trunk, temperature)
    }

    fn backward(&mut self, tracked: TrackedScores, slopes: &[f32]) -> Result<(), ModelError> {
        self.tuned.backward::<1>(tracked.pass, slopes)
    }

    fn max_positions(&self) -> usize {
        self.plan.max_positions
    }

    fn trainable(&mut self) -> &mut dyn Trainable {
        &mut self.tuned
    }

    fn save(&self, folder: &std::path::Path) -> Result<(), ModelError> {
        self.save_trained(folder)
    }
}
