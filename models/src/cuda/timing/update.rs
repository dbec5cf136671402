//! One whole update of a language model.

use super::language_model::{PAIRS, PROMPT, RESPONSE, Shapes, packed};
use super::{ADAM, Timing, median, sequences};
use crate::cuda::decoder::CudaDecoder;
use crate::cuda::gpu::Gpu;
use crate::sample::{Draws, Prompt};
use crate::{ModelError, Policy, Trainable};

const SAMPLES: usize = 2;
const EPOCHS: usize = 4;

/// Times an update of 16 users: two rollouts of each, their log-probabilities under policy and reference, and four epochs of all pairs
/// with a step each. Rewards are left out: they are the embedder's.
pub(super) fn time_update(
    gpu: &Gpu,
    decoder: &mut CudaDecoder,
    shapes: Shapes,
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    let vocabulary = decoder.plan().vocabulary;
    let texts = sequences(PAIRS, PROMPT, vocabulary, 21);
    let prompts: Vec<Prompt<'_>> = (0..PAIRS * SAMPLES)
        .map(|index| Prompt {
            tokens: &texts[index / SAMPLES],
            user: (index / SAMPLES) as u32,
            sample: (index % SAMPLES) as u32,
        })
        .collect();
    let mut update = 0;
    let mut users = 0;
    let seconds = median(2, || {
        let draws = Draws {
            seed: 1,
            update,
            temperature: 1.0,
            limit: RESPONSE,
            end_tokens: Vec::new(),
            slots: prompts.len(),
        };
        update += 1;
        decoder.sample_responses(&prompts, &draws)?;
        let fit = (decoder.tokens_that_fit(false)? / (PROMPT + SAMPLES * RESPONSE)).clamp(1, PAIRS);
        // As many users in one pass as in another.
        users = PAIRS.div_ceil(PAIRS.div_ceil(fit));
        let sizes: Vec<usize> = (0..PAIRS)
            .step_by(users)
            .map(|first| users.min(PAIRS - first))
            .collect();
        // Responses of these lengths; which tokens they are takes no time.
        let mut passes = Vec::new();
        for (&users, number) in sizes.iter().zip(0..) {
            let batch = packed(users, vocabulary, 40 + 2 * number);
            let trunk = decoder.trunk(&batch)?;
            decoder.score(&batch, &trunk, Policy::Current, 1.0)?;
            decoder.score(&batch, &trunk, Policy::Reference, 1.0)?;
            passes.push((batch, trunk, vec![0.01; SAMPLES * RESPONSE * users]));
        }
        for _ in 0..EPOCHS {
            for (batch, trunk, slopes) in &passes {
                let pass = decoder.score_tracked(batch, trunk, 1.0)?;
                decoder.backward(pass, slopes)?;
            }
            decoder.parameters.step(&ADAM, 1.0)?;
        }
        gpu.wait()
    })?;
    report(Timing {
        name: format!(
            "{}: an update of {PAIRS} users, {SAMPLES} rollouts each, {EPOCHS} epochs, {users} users in a pass",
            shapes.name()
        ),
        runs: 2,
        seconds,
        work: Vec::new(),
    });
    Ok(())
}
