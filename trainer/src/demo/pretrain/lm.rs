//! The language model: the next word of a profile after the prompt.

use std::path::Path;

use models::{Decoder, DecoderOptions, Device, LanguageModel, PackedBatch, TrainedPart};

use super::corpus::{Corpus, Lesson};
use super::replicas::Replicas;
use super::{Course, TRAINING_SEED};
use crate::TrainError;
use crate::demo::random::Random;

/// Histories of a step, and profiles of each.
const HISTORIES: usize = 24;
const PROFILES: usize = 8;
/// The peak rate.
const RATE: f64 = 2e-3;
/// Standard deviation of the first parameters.
const DEVIATION: f64 = 0.06;

pub(super) fn pretrain(steps: usize, threads: usize, corpus: &Corpus, folder: &Path) -> Result<(), TrainError> {
    models::write_initial_decoder(folder, TRAINING_SEED, DEVIATION)?;
    let options = DecoderOptions {
        device: Device::flex(),
        part: TrainedPart::Full,
        seed: 0,
    };
    let load = || Ok(Decoder::load(folder, &options)?);
    let mut replicas = Replicas::new(threads.clamp(1, HISTORIES), Decoder::trainable, load)?;
    eprintln!("language model: {} parameters", replicas.first().scalars());
    let mut course = Course::new("language model", folder, steps, RATE);
    let mut random = Random::new(TRAINING_SEED, u32::from_le_bytes(*b"lms "));
    for step in 0..steps {
        let lessons = (0..HISTORIES)
            .map(|_| corpus.lesson(PROFILES, &mut random))
            .collect::<Result<Vec<_>, _>>()?;
        let share = HISTORIES.div_ceil(replicas.count());
        let batches: Vec<&[Lesson]> = lessons.chunks(share).collect();
        let parts = batches.len();
        let losses = replicas.each(batches, learn)?;
        let loss = losses.iter().sum::<f64>() / parts as f64;
        course.step(&mut replicas, step, parts, loss)?;
    }
    Ok(())
}

/// Mean loss of a token, and its gradients.
fn learn(decoder: &mut Decoder, lessons: &[Lesson]) -> Result<f64, TrainError> {
    let profiles: Vec<Vec<&[u32]>> = lessons
        .iter()
        .map(|lesson| lesson.profiles.iter().map(Vec::as_slice).collect())
        .collect();
    let rows = lessons.iter().zip(&profiles);
    let batch = PackedBatch::new(rows.map(|(lesson, profiles)| (lesson.prompt.as_slice(), profiles.as_slice())));
    let trunk = LanguageModel::trunk(decoder, &batch)?;
    let tracked = LanguageModel::score_tracked(decoder, &batch, &trunk, 1.0)?;
    let logprobs = &tracked.scores.logprobs;
    let tokens = logprobs.len();
    let loss = -logprobs.iter().map(|&x| f64::from(x)).sum::<f64>() / tokens as f64;
    decoder.backward(tracked, &vec![(-1.0 / tokens as f64) as f32; tokens])?;
    Ok(loss)
}
