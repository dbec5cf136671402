//! The embedder: which film of a batch a statement is about.

use std::path::Path;

use models::{Bert, Device, Encoder, EncoderOptions};

use super::corpus::{Corpus, Pair};
use super::replicas::Replicas;
use super::{Course, TRAINING_SEED};
use crate::TrainError;
use crate::demo::random::Random;

/// Films of a batch, and batches of a step.
const FILMS: usize = 48;
const BATCHES: usize = 4;
/// The peak rate.
const RATE: f64 = 1e-3;
/// Divides the cosines.
const TEMPERATURE: f64 = 0.1;
/// Standard deviation of the first parameters.
const DEVIATION: f64 = 0.05;

pub(super) fn pretrain(steps: usize, threads: usize, corpus: &Corpus, folder: &Path) -> Result<(), TrainError> {
    models::write_initial_encoder(folder, TRAINING_SEED, DEVIATION)?;
    let options = EncoderOptions {
        device: Device::flex(),
        pooling: None,
        train: true,
    };
    let load = || Ok(Bert::load(folder, &options)?);
    let mut replicas = Replicas::new(threads.clamp(1, BATCHES), Bert::trainable, load)?;
    let mut course = Course::new("embedder", folder, steps, RATE);
    let mut random = Random::new(TRAINING_SEED, u32::from_le_bytes(*b"embs"));
    for step in 0..steps {
        let pairs = (0..BATCHES)
            .map(|_| corpus.pairs(FILMS, &mut random))
            .collect::<Result<Vec<_>, _>>()?;
        let share = BATCHES.div_ceil(replicas.count());
        let batches: Vec<&[Vec<Pair>]> = pairs.chunks(share).collect();
        let losses = replicas.each(batches, |bert, batches| {
            batches
                .iter()
                .map(|pairs| learn(bert, pairs))
                .collect::<Result<Vec<_>, _>>()
        })?;
        let losses = losses.concat();
        let loss = losses.iter().sum::<f64>() / losses.len() as f64;
        course.step(&mut replicas, step, losses.len(), loss)?;
    }
    Ok(())
}

/// The loss of a batch, and its gradients.
fn learn(bert: &mut Bert, pairs: &[Pair]) -> Result<f64, TrainError> {
    let sides = (0..2).flat_map(|side| pairs.iter().map(move |pair| pair[side].as_slice()));
    let texts: Vec<&[u32]> = sides.collect();
    Ok(bert.contrast(&texts, TEMPERATURE, 1)?.loss)
}
