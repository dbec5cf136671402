//! How long the work of a training run takes on a card, on random weights of the real shapes.

mod embedder;
mod language_model;
mod update;

use std::time::Instant;

use super::gemm::{Factor, Scale};
use super::gpu::{Buffer, Element, Gpu};
use super::layers::{Values, put};
use crate::random::philox;
use crate::{AdamConfig, ModelError};

pub use embedder::{embedder_plan, time_embedder, time_ranking};
pub use language_model::{Shapes, time};

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

/// The published runs' rate leaves random weights what they are.
const ADAM: AdamConfig = AdamConfig {
    lr: 1e-7,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.01,
    decoupled: true,
};

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
