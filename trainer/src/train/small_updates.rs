//! What optimizer steps at a small rate do to the log-probabilities of given rollouts.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use models::{AdamConfig, LanguageModel, PackedBatch};
use serde::{Deserialize, Serialize};

use crate::TrainError;

/// A prompt with its responses, as a line of JSON.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlopedRollouts {
    /// Tokens of the prompt.
    pub prompt: Vec<u32>,
    /// Tokens of each response.
    pub responses: Vec<Vec<u32>>,
    /// The objective's slope in each response's log-probability.
    pub slopes: Vec<f32>,
}

/// Log-probabilities after so many steps.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LogprobsAfter {
    /// Optimizer steps.
    pub steps: usize,
    /// Of each response's tokens, in nats, in the order of the rollouts.
    pub logprobs: Vec<Vec<f32>>,
}

/// Reads rollouts from JSON lines.
///
/// # Errors
/// When the file cannot be read, a line does not hold what it should, or there is none.
pub fn read_sloped_rollouts(path: &Path) -> Result<Vec<SlopedRollouts>, TrainError> {
    let io = |source| TrainError::io(path, source);
    let mut all = Vec::new();
    for (index, line) in BufReader::new(File::open(path).map_err(io)?).lines().enumerate() {
        let line = line.map_err(io)?;
        let place = |message: String| TrainError::Mismatch(format!("{}:{}: {message}", path.display(), index + 1));
        let rollouts: SlopedRollouts = serde_json::from_str(&line).map_err(|error| place(error.to_string()))?;
        rollouts.check().map_err(place)?;
        all.push(rollouts);
    }
    if all.is_empty() {
        let message = format!("{}: expected at least one line, found none", path.display());
        return Err(TrainError::Mismatch(message));
    }
    Ok(all)
}

impl SlopedRollouts {
    fn check(&self) -> Result<(), String> {
        if self.prompt.is_empty() {
            return Err("field `prompt`: expected at least one token, found none".to_owned());
        }
        if self.responses.is_empty() {
            return Err("field `responses`: expected at least one, found none".to_owned());
        }
        if let Some(index) = self.responses.iter().position(Vec::is_empty) {
            return Err(format!("field `responses`: {index} (from 0) has no tokens"));
        }
        if self.slopes.len() != self.responses.len() {
            return Err(format!(
                "field `slopes`: expected one for each of {} responses, found {}",
                self.responses.len(),
                self.slopes.len()
            ));
        }
        Ok(())
    }
}

/// Minimises Σ slope · log π(response), the log-probability being the sum over the response's tokens, and tells every token's
/// log-probability before and after each of `counts` steps, which come sorted. Slopes stay as they are given, so that runs of
/// different precision follow one objective.
///
/// # Errors
/// When the model cannot compute.
pub fn small_updates(
    lm: &mut dyn LanguageModel,
    rollouts: &[SlopedRollouts],
    adam: &AdamConfig,
    counts: &[usize],
) -> Result<Vec<LogprobsAfter>, TrainError> {
    let responses: Vec<Vec<&[u32]>> = rollouts
        .iter()
        .map(|rollouts| rollouts.responses.iter().map(Vec::as_slice).collect())
        .collect();
    let rows = rollouts.iter().zip(&responses);
    let batch = PackedBatch::new(rows.map(|(rollouts, responses)| (&rollouts.prompt[..], &responses[..])));
    let slopes: Vec<f32> = rollouts
        .iter()
        .flat_map(|rollouts| rollouts.responses.iter().zip(&rollouts.slopes))
        .flat_map(|(response, &slope)| response.iter().map(move |_| slope))
        .collect();
    // Nothing below the trained parameters changes.
    let trunk = lm.trunk(&batch)?;
    let mut all = Vec::with_capacity(counts.len() + 1);
    let last = counts.last().copied().unwrap_or(0);
    for steps in 0..=last {
        let tracked = lm.score_tracked(&batch, &trunk, 1.0)?;
        if steps == 0 || counts.contains(&steps) {
            let of = |range: &std::ops::Range<usize>| tracked.scores.logprobs[range.clone()].to_vec();
            all.push(LogprobsAfter {
                steps,
                logprobs: batch.responses().iter().map(of).collect(),
            });
        }
        if steps < last {
            lm.backward(tracked, &slopes)?;
            lm.trainable().step(adam, 1.0)?;
        }
    }
    Ok(all)
}
