//! Rollouts, scores and training of the published language models.

use std::time::Instant;

use super::update::time_update;
use super::{ADAM, Timing, median, sequences, traced};
use crate::cuda::decoder::{CudaDecoder, CudaDecoderOptions};
use crate::cuda::gpu::{Element, Gpu};
use crate::cuda::nccl::{Nccl, nccl_unique_id};
use crate::plan::{Activation, DecoderPlan, Rope, RopeScaling};
use crate::sample::{Draws, Prompt};
use crate::{LoraConfig, ModelError, PackedBatch, Policy, Trainable, TrainedPart};

/// The language models of the published runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shapes {
    /// Gemma-2B with adapters of rank 1024.
    Gemma2b,
    /// Llama-3-8B with its last four blocks trained.
    Llama8b,
}

impl Shapes {
    /// What the model is made of.
    pub fn plan(self) -> DecoderPlan {
        let rope = |theta| Rope {
            theta,
            scaling: RopeScaling::None,
        };
        match self {
            Self::Gemma2b => DecoderPlan {
                model_type: "gemma".to_owned(),
                vocabulary: 256_000,
                hidden: 2048,
                intermediate: 16_384,
                layers: 18,
                heads: 8,
                kv_heads: 1,
                head_dim: 256,
                norm_eps: 1e-6,
                norm_adds_one: true,
                activation: Activation::GeluTanh,
                embedding_scale: Some(2048_f32.sqrt()),
                rope: rope(10_000.0),
                tied: true,
                attention_bias: false,
                mlp_bias: false,
                max_positions: 8192,
            },
            Self::Llama8b => DecoderPlan {
                model_type: "llama".to_owned(),
                vocabulary: 128_256,
                hidden: 4096,
                intermediate: 14_336,
                layers: 32,
                heads: 32,
                kv_heads: 8,
                head_dim: 128,
                norm_eps: 1e-5,
                norm_adds_one: false,
                activation: Activation::Silu,
                embedding_scale: None,
                rope: rope(500_000.0),
                tied: false,
                attention_bias: false,
                mlp_bias: false,
                max_positions: 8192,
            },
        }
    }

    /// What the published runs train of it.
    pub fn part(self) -> TrainedPart {
        match self {
            Self::Gemma2b => TrainedPart::Lora(LoraConfig {
                rank: 1024,
                alpha: 2048.0,
                targets: LoraConfig::ALL_TARGETS.iter().map(|&name| name.to_owned()).collect(),
            }),
            Self::Llama8b => TrainedPart::LastLayers(4),
        }
    }

    /// For lines of tables.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gemma2b => "gemma-2b",
            Self::Llama8b => "llama-3-8b",
        }
    }
}

pub(super) const PROMPT: usize = 1024;
pub(super) const RESPONSE: usize = 512;
pub(super) const PAIRS: usize = 16;

/// Times sampling at each of `batches`, scoring of four users' rollouts, and training on 16 users' pairs.
///
/// # Errors
/// When something does not run.
pub fn time(gpu: &Gpu, shapes: Shapes, batches: &[usize], report: &mut dyn FnMut(Timing)) -> Result<(), ModelError> {
    let options = CudaDecoderOptions {
        gpu: gpu.clone(),
        element: Element::Bf16,
        part: shapes.part(),
        seed: 1,
    };
    let start = Instant::now();
    let mut decoder = CudaDecoder::random(shapes.plan(), &options)?;
    gpu.wait()?;
    report(Timing {
        name: format!("{}: random weights", shapes.name()),
        runs: 1,
        seconds: start.elapsed().as_secs_f64(),
        work: Vec::new(),
    });
    for &batch in batches {
        rollouts(gpu, &mut decoder, shapes, batch, report)?;
    }
    decoder.forget_sampler()?;
    scores(gpu, &mut decoder, shapes, report)?;
    time_update(gpu, &mut decoder, shapes, report)?;
    decoder.forget_sampler()?;
    pairs(gpu, &mut decoder, shapes, report)?;
    steps(gpu, &mut decoder, shapes, report)
}

fn rollouts(
    gpu: &Gpu,
    decoder: &mut CudaDecoder,
    shapes: Shapes,
    batch: usize,
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    let prompts = sequences(batch, PROMPT, decoder.plan().vocabulary, 1);
    let prompts: Vec<Prompt<'_>> = prompts
        .iter()
        .zip(0..)
        .map(|(tokens, user)| Prompt {
            tokens,
            user,
            sample: 0,
        })
        .collect();
    let draws = Draws {
        seed: 1,
        update: 0,
        temperature: 1.0,
        limit: RESPONSE,
        end_tokens: Vec::new(),
        slots: batch,
    };
    // The first call compiles, captures and merges.
    let seconds = median(1 + usize::from(batch < 256), || {
        decoder.sample_responses(&prompts, &draws).map(drop)
    })?;
    report(Timing {
        name: format!(
            "{}: rollouts, {PROMPT} + {RESPONSE} tokens, batch {batch}",
            shapes.name()
        ),
        runs: 1,
        seconds,
        work: vec![("tokens/s", (batch * RESPONSE) as f64 / seconds)],
    });
    let prefill = Draws { limit: 1, ..draws };
    let seconds = median(2, || decoder.sample_responses(&prompts, &prefill).map(drop))?;
    gpu.start_trace();
    decoder.sample_responses(&prompts, &prefill)?;
    traced(gpu, &format!("{}: prompts, batch {batch}", shapes.name()), report);
    report(Timing {
        name: format!("{}: prompts alone, batch {batch}", shapes.name()),
        runs: 2,
        seconds,
        work: vec![("tokens/s", (batch * PROMPT) as f64 / seconds)],
    });
    Ok(())
}

fn scores(
    gpu: &Gpu,
    decoder: &mut CudaDecoder,
    shapes: Shapes,
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    let batch = packed(4, decoder.plan().vocabulary, 2);
    let seconds = median(3, || {
        let trunk = decoder.trunk(&batch)?;
        decoder.score(&batch, &trunk, Policy::Current, 1.0)?;
        decoder.score(&batch, &trunk, Policy::Reference, 1.0)?;
        gpu.wait()
    })?;
    report(Timing {
        name: format!(
            "{}: log-probabilities of 8 rollouts, policy and reference",
            shapes.name()
        ),
        runs: 3,
        seconds,
        work: Vec::new(),
    });
    gpu.start_trace();
    let trunk = decoder.trunk(&batch)?;
    decoder.score(&batch, &trunk, Policy::Current, 1.0)?;
    decoder.score(&batch, &trunk, Policy::Reference, 1.0)?;
    traced(gpu, &format!("{}: log-probabilities", shapes.name()), report);
    Ok(())
}

fn pairs(
    gpu: &Gpu,
    decoder: &mut CudaDecoder,
    shapes: Shapes,
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    let batch = packed(1, decoder.plan().vocabulary, 3);
    let slopes: Vec<f32> = (0..2 * RESPONSE)
        .map(|i| if i < RESPONSE { 0.01 } else { -0.01 })
        .collect();
    let trunk = decoder.trunk(&batch)?;
    let seconds = median(3, || {
        for _ in 0..PAIRS {
            let pass = decoder.score_tracked(&batch, &trunk, 1.0)?;
            decoder.backward(pass, &slopes)?;
        }
        decoder.parameters.step(&ADAM, 1.0)?;
        gpu.wait()
    })?;
    report(Timing {
        name: format!(
            "{}: one pair forward and backward, of {PAIRS} and a step",
            shapes.name()
        ),
        runs: 3,
        seconds: seconds / PAIRS as f64,
        work: Vec::new(),
    });
    together(gpu, decoder, shapes, report)?;
    let seconds = median(3, || {
        decoder.score_tracked(&batch, &trunk, 1.0)?;
        gpu.wait()
    })?;
    let once = |decoder: &mut CudaDecoder| -> Result<(), ModelError> {
        let pass = decoder.score_tracked(&batch, &trunk, 1.0)?;
        decoder.backward(pass, &slopes)
    };
    decoder.recompute_above(0);
    let again = median(3, || {
        once(decoder)?;
        gpu.wait()
    });
    decoder.recompute_above(usize::MAX);
    report(Timing {
        name: format!("{}: one pair, blocks run again on the way back", shapes.name()),
        runs: 3,
        seconds: again?,
        work: Vec::new(),
    });
    gpu.start_trace();
    once(decoder)?;
    traced(gpu, &format!("{}: a pair", shapes.name()), report);
    report(Timing {
        name: format!("{}: one pair forward", shapes.name()),
        runs: 3,
        seconds,
        work: Vec::new(),
    });
    Ok(())
}

/// The same pairs with as many in a pass as fit.
fn together(
    gpu: &Gpu,
    decoder: &mut CudaDecoder,
    shapes: Shapes,
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    const PAIR: usize = PROMPT + 2 * RESPONSE;
    let fit = (decoder.tokens_that_fit(false)? / PAIR).clamp(1, PAIRS);
    let passes = PAIRS.div_ceil(fit);
    let users = PAIRS.div_ceil(passes);
    let batch = packed(users, decoder.plan().vocabulary, 3);
    let slopes = vec![0.01; 2 * RESPONSE * users];
    let trunk = decoder.trunk(&batch)?;
    let seconds = median(2, || {
        for _ in 0..passes {
            let pass = decoder.score_tracked(&batch, &trunk, 1.0)?;
            decoder.backward(pass, &slopes)?;
        }
        decoder.parameters.step(&ADAM, 1.0)?;
        gpu.wait()
    })?;
    report(Timing {
        name: format!(
            "{}: one pair of {} and a step, {users} in a pass, for which there is memory",
            shapes.name(),
            passes * users
        ),
        runs: 2,
        seconds: seconds / (passes * users) as f64,
        work: Vec::new(),
    });
    Ok(())
}

/// An optimizer step by itself: of this card alone, and over NCCL with one rank, which has all the copies of several and none of
/// what they send; last with parameters that are bf16 numbers.
fn steps(
    gpu: &Gpu,
    decoder: &mut CudaDecoder,
    shapes: Shapes,
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    let batch = packed(1, decoder.plan().vocabulary, 4);
    let slopes = vec![0.01; 2 * RESPONSE];
    let trunk = decoder.trunk(&batch)?;
    let reached = vec![true; decoder.parameters.trained().len()];
    let all: Vec<_> = decoder
        .parameters
        .trained()
        .iter()
        .map(|spec| 0..spec.scalars())
        .collect();
    let mut nccl = match nccl_unique_id() {
        Ok(id) => Some(Nccl::join(gpu, id, [0, 1], Element::F32, Box::new(|| false))?),
        Err(_) => None,
    };
    for how in [
        "alone",
        "over NCCL, one rank",
        "over NCCL, one rank, in parts",
        "over NCCL, one rank, in parts, bf16 masters",
    ] {
        if how.ends_with("parts") {
            decoder.parameters.keep_parts(&all)?;
        }
        if how.ends_with("masters") {
            decoder.parameters.keep_bf16(1)?;
        }
        let mut times = Vec::new();
        for _ in 0..4 {
            let pass = decoder.score_tracked(&batch, &trunk, 1.0)?;
            decoder.backward(pass, &slopes)?;
            gpu.wait()?;
            let start = Instant::now();
            match &mut nccl {
                _ if how == "alone" => decoder.parameters.step(&ADAM, 1.0)?,
                Some(nccl) => decoder.parameters.step_over(nccl, &reached, &ADAM, 1.0)?,
                None => return Ok(()),
            }
            gpu.wait()?;
            times.push(start.elapsed().as_secs_f64());
        }
        // The first made the moments.
        times.remove(0);
        times.sort_by(f64::total_cmp);
        report(Timing {
            name: format!("{}: optimizer step, {how}", shapes.name()),
            runs: 3,
            seconds: times[1],
            work: Vec::new(),
        });
    }
    Ok(())
}

/// `users` prompts with two responses each.
pub(super) fn packed(users: usize, vocabulary: usize, seed: u32) -> PackedBatch {
    let prompts = sequences(users, PROMPT, vocabulary, seed);
    let responses = sequences(2 * users, RESPONSE, vocabulary, seed + 1);
    let pairs: Vec<Vec<&[u32]>> = responses
        .chunks(2)
        .map(|pair| pair.iter().map(Vec::as_slice).collect())
        .collect();
    PackedBatch::new(
        prompts
            .iter()
            .zip(&pairs)
            .map(|(prompt, pair)| (&prompt[..], &pair[..])),
    )
}
