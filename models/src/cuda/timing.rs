//! How long the work of a training run takes on a card, on random weights of the real shapes.

use std::time::Instant;

use super::catalogue::{CudaCatalogue, Wanted};
use super::decoder::{CudaDecoder, CudaDecoderOptions};
use super::encoder::{CudaEncoder, CudaEncoderOptions};
use super::gemm::{Factor, Scale};
use super::gpu::{Buffer, Element, Gpu};
use super::layers::{Values, put};
use super::nccl::{Nccl, nccl_unique_id};
use crate::plan::{Activation, DecoderPlan, EncoderPlan, Rope, RopeScaling};
use crate::random::{normal_values, philox};
use crate::sample::{Draws, Prompt};
use crate::{AdamConfig, Encoder, LoraConfig, ModelError, PackedBatch, Policy, Trainable, TrainedPart};

/// One timing.
#[derive(Debug, Clone)]
pub struct Timing {
    /// What was done.
    pub name: String,
    /// How often, after what warmed up.
    pub runs: usize,
    /// The median, in seconds.
    pub seconds: f64,
    /// Work in it, by unit.
    pub work: Vec<(&'static str, f64)>,
}

/// The slopes of a loss in vectors `[texts, width]`, row-major.
pub type Loss<'a> = &'a dyn Fn(&[f32], usize) -> Vec<f32>;

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

/// Times what the card can do at most: a large product, and a copy.
///
/// # Errors
/// When something does not run.
pub fn limits(gpu: &Gpu, report: &mut dyn FnMut(Timing)) -> Result<(), ModelError> {
    const SIZE: usize = 8192;
    const TIMES: usize = 20;
    let square = || gpu.elements(SIZE * SIZE, Element::Bf16);
    let (a, b, c) = (square()?, square()?, square()?);
    for buffer in [&a, &b] {
        let values = Values::Noise(3, 1.0);
        put(gpu, buffer.matrix(SIZE, SIZE), Element::Bf16, &values)?;
    }
    let matrix = |buffer: &Buffer| buffer.matrix(SIZE, SIZE);
    let seconds = median(3, || {
        for _ in 0..TIMES {
            let (left, right) = (Factor::Plain(matrix(&a)), Factor::Transposed(matrix(&b)));
            gpu.multiply((matrix(&c), Element::Bf16), left, right, Element::Bf16, Scale::ONE)?;
        }
        gpu.wait()
    })? / TIMES as f64;
    report(Timing {
        name: format!("limit: bf16 product of {SIZE}³"),
        runs: 3 * TIMES,
        seconds,
        work: vec![("TFLOP/s", 2.0 * (SIZE as f64).powi(3) / seconds / 1e12)],
    });
    let bytes = 2 << 30;
    let (from, to) = (gpu.bytes(bytes)?, gpu.bytes(bytes)?);
    from.clear()?;
    let seconds = median(3, || {
        for _ in 0..TIMES {
            to.copy_from(&from)?;
        }
        gpu.wait()
    })? / TIMES as f64;
    report(Timing {
        name: "limit: copy of 2 GiB".to_owned(),
        runs: 3 * TIMES,
        seconds,
        work: vec![("GB/s", 2.0 * bytes as f64 / seconds / 1e9)],
    });
    Ok(())
}

const PROMPT: usize = 1024;
const RESPONSE: usize = 512;
const PAIRS: usize = 16;

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
    Ok(())
}

/// The published runs' rate leaves random weights what they are.
const ADAM: AdamConfig = AdamConfig {
    lr: 1e-7,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.01,
    decoupled: true,
};

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
    let fit = (decoder.tokens_that_fit()? / PAIR).clamp(1, PAIRS);
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
/// what they send.
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
    for how in ["alone", "over NCCL, one rank", "over NCCL, one rank, in parts"] {
        if how.ends_with("parts") {
            decoder.parameters.keep_parts(&all)?;
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

/// The embedder of the published runs, mxbai-embed-large-v1: a BERT-large.
pub fn embedder_plan() -> EncoderPlan {
    EncoderPlan {
        vocabulary: 30_522,
        hidden: 1024,
        intermediate: 4096,
        layers: 24,
        heads: 16,
        max_positions: 512,
        segment_types: 2,
        norm_eps: 1e-12,
        activation: Activation::Gelu,
    }
}

/// Profiles of a batch of the embedder's, and tokens of its longest text.
const BATCH: usize = 32;
const LONGEST: usize = 512;

/// Times the embedder: a step on a batch of pairs, and items embedded; texts of full length, and of real ones. `loss` is part of a
/// step.
///
/// # Errors
/// When something does not run.
pub fn time_embedder(gpu: &Gpu, loss: Loss<'_>, report: &mut dyn FnMut(Timing)) -> Result<(), ModelError> {
    let options = CudaEncoderOptions {
        gpu: gpu.clone(),
        element: Element::Bf16,
        pooling: None,
        train: true,
    };
    let mut encoder = CudaEncoder::random(embedder_plan(), &options)?;
    for (kind, length) in [
        ("512 tokens", (|_| LONGEST) as fn(usize) -> usize),
        ("real lengths", real_length),
    ] {
        let texts = words(2 * BATCH, 31, length);
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        embedder_step(gpu, &mut encoder, &texts, kind, loss, report)?;
        let items = words(2048, 37, length);
        let items: Vec<&[u32]> = items.iter().map(Vec::as_slice).collect();
        let seconds = median(3, || encoder.embed(&items).map(drop))?;
        gpu.start_trace();
        encoder.embed(&items)?;
        traced(gpu, &format!("embedder: items of {kind}"), report);
        let work = work(&items) / seconds / 1e12;
        report(Timing {
            name: format!("embedder: {} items of {kind}", items.len()),
            runs: 3,
            seconds,
            work: vec![("items/s", items.len() as f64 / seconds), ("TFLOP/s", work)],
        });
    }
    Ok(())
}

fn embedder_step(
    gpu: &Gpu,
    encoder: &mut CudaEncoder,
    texts: &[&[u32]],
    kind: &str,
    loss: Loss<'_>,
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    const STEPS: usize = 4;
    let mut step = |times: usize| -> Result<(), ModelError> {
        for _ in 0..times {
            let tracked = encoder.embed_tracked(texts)?;
            let slopes = loss(&tracked.vectors, encoder.dimension());
            encoder.backward(tracked, &slopes)?;
            encoder.trainable().step(&ADAM, 1.0)?;
        }
        gpu.wait()
    };
    let seconds = median(3, || step(STEPS))? / STEPS as f64;
    gpu.start_trace();
    step(1)?;
    traced(gpu, &format!("embedder: a step on {kind}"), report);
    report(Timing {
        name: format!("embedder: a step on {BATCH} pairs of {kind}"),
        runs: 3 * STEPS,
        seconds,
        work: vec![("TFLOP/s", 3.0 * work(texts) / seconds / 1e12)],
    });
    Ok(())
}

/// Times where the targets of 64 profiles stand in catalogues.
///
/// # Errors
/// When something does not run.
pub fn time_ranking(gpu: &Gpu, report: &mut dyn FnMut(Timing)) -> Result<(), ModelError> {
    const WIDTH: usize = 1024;
    const PROFILES: usize = 64;
    for items in [10_945, 1_000_000] {
        // Enough vectors that differ: what they are takes no time.
        let some = normal_values(3, 1, 4099 * WIDTH, 1.0);
        let vectors: Vec<f32> = some.iter().copied().cycle().take(items * WIDTH).collect();
        let catalogue = CudaCatalogue::new(gpu, &vectors, WIDTH, Element::Bf16)?;
        drop(vectors);
        let queries = normal_values(3, 2, PROFILES * WIDTH, 1.0);
        let masked: Vec<u32> = (0..30).map(|item| item * 17).collect();
        let wanted = [Wanted {
            masked: &masked,
            targets: &[5003],
        }; PROFILES];
        let seconds = median(20, || catalogue.rank(&queries, &wanted).map(drop))?;
        let bytes = (items * (2 * WIDTH + 8 * PROFILES)) as f64;
        report(Timing {
            name: format!("ranking: {PROFILES} profiles in {items} items of {WIDTH} values"),
            runs: 20,
            seconds,
            work: vec![
                ("µs a profile", seconds * 1e6 / PROFILES as f64),
                ("GB/s", bytes / seconds / 1e9),
            ],
        });
    }
    Ok(())
}

/// Multiplications and additions of a forward pass.
fn work(texts: &[&[u32]]) -> f64 {
    let plan = embedder_plan();
    let (hidden, layers) = (plan.hidden as f64, plan.layers as f64);
    let token = 2.0 * (4.0 * hidden * hidden + 2.0 * hidden * plan.intermediate as f64);
    let lengths = texts.iter().map(|text| text.len() as f64);
    lengths
        .map(|length| layers * length * (token + 4.0 * length * hidden))
        .sum()
}

/// Lengths of texts in use: log-normal, mean 180, σ of the logarithm 0.6, at most 512.
fn real_length(row: usize) -> usize {
    let deviation = 0.6_f64;
    let middle = 180_f64.ln() - deviation * deviation / 2.0;
    let normal = normal_values(5, row as u32, 1, 1.0)[0];
    (middle + deviation * f64::from(normal))
        .exp()
        .round()
        .clamp(1.0, LONGEST as f64) as usize
}

fn words(count: usize, seed: u32, length: fn(usize) -> usize) -> Vec<Vec<u32>> {
    let vocabulary = embedder_plan().vocabulary as u32;
    (0..count)
        .map(|row| {
            (0..length(row) as u32)
                .map(|token| philox([row as u32, token, seed, 0], [9, 9])[0] % vocabulary)
                .collect()
        })
        .collect()
}

/// Reports the operations of a trace.
fn traced(gpu: &Gpu, of: &str, report: &mut dyn FnMut(Timing)) {
    for (name, runs, seconds) in gpu.take_trace() {
        report(Timing {
            name: format!("{of}: {runs} × {name}"),
            runs,
            seconds,
            work: Vec::new(),
        });
    }
}

/// `users` prompts with two responses each.
fn packed(users: usize, vocabulary: usize, seed: u32) -> PackedBatch {
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

fn sequences(count: usize, length: usize, vocabulary: usize, seed: u32) -> Vec<Vec<u32>> {
    (0..count as u32)
        .map(|row| {
            (0..length as u32)
                .map(|token| philox([row, token, seed, 0], [9, 9])[0] % vocabulary as u32)
                .collect()
        })
        .collect()
}

/// The median of `runs` calls, in seconds, after one to warm up.
fn median(runs: usize, mut call: impl FnMut() -> Result<(), ModelError>) -> Result<f64, ModelError> {
    call()?;
    let mut seconds = Vec::with_capacity(runs);
    for _ in 0..runs {
        let start = Instant::now();
        call()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    seconds.sort_by(f64::total_cmp);
    Ok(seconds[seconds.len() / 2])
}
