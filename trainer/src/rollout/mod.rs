//! Writing profiles: prompts through the language model, its words to the embedder.

use models::text::Tokenizer;
use models::{Draws, LanguageModel, Prompt, Response};

use crate::TrainError;
use crate::progress::Progress;

/// How profiles are sampled and handed on.
#[derive(Debug, Clone, PartialEq)]
pub struct RolloutOptions {
    /// The run's seed.
    pub seed: u64,
    /// Divides the logits.
    pub temperature: f64,
    /// Most new tokens of a profile, and most tokens of it that the embedder sees.
    pub response_length: usize,
    /// Tokens that end a profile.
    pub end_tokens: Vec<u32>,
    /// Profiles decoded together.
    pub slots: usize,
    /// Text before a profile when it is embedded.
    pub query_prefix: String,
    /// The embedder's own limit, in tokens.
    pub embedder_limit: usize,
}

/// One profile to be written.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// The prompt's tokens.
    pub prompt: &'a [u32],
    /// The user's number over train, val and test.
    pub user: u32,
    /// Which of the user's profiles.
    pub sample: u32,
}

/// A written profile.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
pub struct Profile {
    /// What was sampled.
    pub response: Response,
    /// Its text, special tokens dropped.
    pub text: String,
    /// The embedder's tokens of the text, cut to the limit.
    pub tokens: Vec<u32>,
}

/// Samples profiles for `requests` at global update `update`, in their order; each depends on its own request alone.
pub fn write_profiles(
    model: &mut dyn LanguageModel,
    tokenizers: Tokenizers<'_>,
    options: &RolloutOptions,
    requests: &[Request<'_>],
    update: u32,
) -> Result<Vec<Profile>, TrainError> {
    let draws = Draws {
        seed: options.seed,
        update,
        temperature: options.temperature,
        limit: options.response_length,
        end_tokens: options.end_tokens.clone(),
        slots: options.slots,
    };
    let mut profiles = Vec::with_capacity(requests.len());
    // A progress line needs pieces; a piece of many slots' worth keeps the slots full nearly all the time.
    let piece = (options.slots * 8).max(64);
    let shown = requests.len() > piece;
    let mut progress = shown.then(|| Progress::start("profiles", "profiles", Some(requests.len() as u64)));
    for requests in requests.chunks(piece) {
        if crate::interrupt::requested() {
            return Err(TrainError::Interrupted);
        }
        let prompts: Vec<Prompt<'_>> = requests
            .iter()
            .map(|request| Prompt {
                tokens: request.prompt,
                user: request.user,
                sample: request.sample,
            })
            .collect();
        for response in model.sample(&prompts, &draws)? {
            profiles.push(tokenizers.profile(response, options)?);
        }
        if let Some(progress) = &mut progress {
            let new = &profiles[profiles.len() - requests.len()..];
            progress.count("tokens", new.iter().map(|profile| profile.response.tokens.len()).sum());
            progress.add(requests.len() as u64);
        }
    }
    if let Some(progress) = progress {
        progress.finish();
    }
    Ok(profiles)
}

/// The two tokenizers that a profile passes through.
#[derive(Debug, Clone, Copy)]
pub struct Tokenizers<'a> {
    /// The language model's.
    pub lm: &'a Tokenizer,
    /// The embedder's.
    pub embedder: &'a Tokenizer,
}

impl Tokenizers<'_> {
    fn profile(self, response: Response, options: &RolloutOptions) -> Result<Profile, TrainError> {
        let text = self.lm.decode(&response.tokens)?;
        let tokens = self.embed_tokens(&text, options)?;
        Ok(Profile { response, text, tokens })
    }

    /// The embedder's tokens of a profile's text.
    pub fn embed_tokens(self, text: &str, options: &RolloutOptions) -> Result<Vec<u32>, TrainError> {
        let limit = options.response_length.min(options.embedder_limit);
        let query = format!("{}{text}", options.query_prefix);
        Ok(self.embedder.encode_limited(&query, limit)?)
    }
}
