//! Which sequence decodes when: slots are refilled as sequences end, prompts are read once for all their responses.

use std::sync::Arc;

use burn::tensor::Device;
use rayon::prelude::*;

use super::draw::{DrawKey, draw};
use super::engine::{Engine, PromptCache, Sequence};
use super::{Draws, Prompt, Response};
use crate::ModelError;
use crate::decoder::{Decoder, check_tokens};

/// A slot's work.
#[derive(Debug)]
struct Running {
    index: usize,
    sequence: Sequence,
    response: Response,
}

impl Decoder {
    /// Continues each prompt; see [`crate::LanguageModel::sample`].
    pub fn sample_responses(&mut self, prompts: &[Prompt<'_>], draws: &Draws) -> Result<Vec<Response>, ModelError> {
        check_prompts(prompts, draws, self.plan().vocabulary)?;
        if self.device != Device::flex() {
            return self.sample_in_waves(prompts, draws);
        }
        let engine = self.engine()?;
        let mut responses: Vec<Option<Response>> = prompts.iter().map(|_| None).collect();
        let mut running: Vec<Running> = Vec::new();
        let mut waiting = 0;
        let mut last: Option<(&[u32], Arc<PromptCache>)> = None;
        while waiting < prompts.len() || !running.is_empty() {
            while waiting < prompts.len() && running.len() < draws.slots.max(1) {
                let prompt = prompts[waiting];
                let cache = match &last {
                    Some((tokens, cache)) if *tokens == prompt.tokens => cache.clone(),
                    _ => Arc::new(engine.prefill(prompt.tokens)),
                };
                last = Some((prompt.tokens, cache.clone()));
                let mut response = Response::default();
                let over = extend(&mut response, &mut cache.logits.clone(), prompt, draws);
                if over {
                    responses[waiting] = Some(response);
                } else {
                    let first = response.tokens.last().copied().unwrap_or_default();
                    let sequence = Sequence::new(&engine, cache, first, draws.limit);
                    running.push(Running {
                        index: waiting,
                        sequence,
                        response,
                    });
                }
                waiting += 1;
            }
            for (index, response) in step(&engine, &mut running, prompts, draws) {
                responses[index] = Some(response);
            }
        }
        self.keep_engine(engine);
        Ok(responses.into_iter().flatten().collect())
    }
}

/// Refuses draws and prompts that no response can come from.
pub(crate) fn check_prompts(prompts: &[Prompt<'_>], draws: &Draws, vocabulary: usize) -> Result<(), ModelError> {
    if draws.limit == 0 || !(draws.temperature > 0.0 && draws.temperature.is_finite()) {
        let message = format!(
            "sampling needs at least one new token and a positive temperature, found {} and {}",
            draws.limit, draws.temperature
        );
        return Err(ModelError::Input(message));
    }
    for (index, prompt) in prompts.iter().enumerate() {
        let place = format!("prompt {index} (user {})", prompt.user);
        if prompt.tokens.is_empty() {
            return Err(ModelError::Input(format!("{place} has no tokens")));
        }
        check_tokens(prompt.tokens, vocabulary, &place)?;
    }
    Ok(())
}

/// Decodes one token of every running sequence; answers those that are done.
fn step(engine: &Engine, running: &mut Vec<Running>, prompts: &[Prompt<'_>], draws: &Draws) -> Vec<(usize, Response)> {
    if running.is_empty() {
        return Vec::new();
    }
    let mut sequences: Vec<&mut Sequence> = running.iter_mut().map(|run| &mut run.sequence).collect();
    let mut logits = engine.step(&mut sequences);
    let vocabulary = logits.len() / running.len();
    let over: Vec<bool> = running
        .par_iter_mut()
        .zip(logits.par_chunks_exact_mut(vocabulary))
        .map(|(run, logits)| {
            let over = extend(&mut run.response, logits, prompts[run.index], draws);
            run.sequence.next = run.response.tokens.last().copied().unwrap_or_default();
            over
        })
        .collect();
    let mut done = Vec::new();
    let mut index = 0;
    running.retain_mut(|run| {
        let finished = over[index];
        index += 1;
        if finished {
            done.push((run.index, std::mem::take(&mut run.response)));
        }
        !finished
    });
    done
}

/// Draws the next token of a response; whether that was the last.
pub(super) fn extend(response: &mut Response, logits: &mut [f32], prompt: Prompt<'_>, draws: &Draws) -> bool {
    let key = DrawKey {
        seed: draws.seed,
        update: draws.update,
        user: prompt.user,
        sample: prompt.sample,
        position: response.tokens.len() as u32,
    };
    let (token, logprob) = draw(logits, draws.temperature as f32, key);
    response.tokens.push(token);
    response.logprobs.push(logprob);
    response.ended = draws.end_tokens.contains(&token);
    response.ended || response.tokens.len() >= draws.limit
}
