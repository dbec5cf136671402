//! The published embedder, and ranking by its vectors.

use super::{ADAM, Timing, median, traced};
use crate::cuda::catalogue::{CudaCatalogue, Wanted};
use crate::cuda::encoder::{CudaEncoder, CudaEncoderOptions};
use crate::cuda::gpu::{Element, Gpu};
use crate::plan::{Activation, EncoderPlan};
use crate::random::{normal_values, philox};
use crate::{Encoder, ModelError};

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

/// Times the embedder: a step on a batch of pairs, and items embedded; texts of full length, and of real ones.
///
/// # Errors
/// When something does not run.
pub fn time_embedder(gpu: &Gpu, report: &mut dyn FnMut(Timing)) -> Result<(), ModelError> {
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
        embedder_step(gpu, &mut encoder, &texts, kind, report)?;
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
    report: &mut dyn FnMut(Timing),
) -> Result<(), ModelError> {
    const STEPS: usize = 4;
    let mut step = |times: usize| -> Result<(), ModelError> {
        for _ in 0..times {
            encoder.contrast(texts, 0.05, 1)?;
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
