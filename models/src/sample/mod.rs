//! Sampling responses: a KV cache, prompts computed once, finished sequences leave the batch. On the processor by an engine of its
//! own, on other devices in burn's operations.

mod draw;
mod engine;
mod schedule;
mod waves;

pub(crate) use engine::Engine;
#[cfg(feature = "engine")]
pub(crate) use schedule::check_prompts;

/// A prompt to be continued, and what its draws are keyed by.
#[derive(Debug, Clone, Copy)]
pub struct Prompt<'a> {
    /// The tokens, BOS included.
    pub tokens: &'a [u32],
    /// Index of the user in the whole dataset, so that a response does not depend on who else is in the batch.
    pub user: u32,
    /// Which of the user's responses this is.
    pub sample: u32,
}

/// How responses are drawn.
#[derive(Debug, Clone, PartialEq)]
pub struct Draws {
    /// The run's seed.
    pub seed: u64,
    /// The update that the responses are for.
    pub update: u32,
    /// Divides the logits.
    pub temperature: f64,
    /// Most new tokens of a response.
    pub limit: usize,
    /// A response ends with its first of these, which belongs to it.
    pub end_tokens: Vec<u32>,
    /// Most sequences decoded together.
    pub slots: usize,
}

/// What was drawn for a prompt.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Response {
    /// The tokens, the end token included.
    pub tokens: Vec<u32>,
    /// The sampler's own log-probability of each token, in nats: a check on the scorer, no part of any loss, and of no use
    /// to who reads a response from a file.
    #[serde(skip)]
    pub logprobs: Vec<f32>,
    /// Whether it ended by itself rather than at the limit.
    pub ended: bool,
}
