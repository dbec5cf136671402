//! How long updates take on made-up texts: alone, or as one of several ranks that share the work as training does.

use std::time::Instant;

use models::{AdamConfig, Draws, Encoder, LanguageModel, PackedBatch, Prompt, philox};
use serde::Serialize;

use super::{Sharing, shard, share};
use crate::TrainError;
use crate::dist::{Communicator, Spent};

/// What each rank does in an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Updates that are timed, after one to warm up.
    pub updates: usize,
    /// Users, of whom each has two rollouts.
    pub users: usize,
    /// Tokens of a prompt.
    pub prompt_tokens: usize,
    /// Tokens of a response.
    pub response_tokens: usize,
    /// Passes over the rollouts, with a step after each.
    pub epochs: usize,
    /// Pairs of the embedder's batch, one of which makes a step.
    pub pairs: usize,
    /// Tokens of the embedder's texts.
    pub text_tokens: usize,
    /// Ids that tokens are drawn from, of both models.
    pub vocabulary: u32,
}

/// A part of an update, over all ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Part {
    /// Seconds, from all ranks' beginning to all ranks' end; the median.
    pub seconds: f64,
    /// Tokens a second of all ranks: written in rollouts, trained on elsewhere.
    pub tokens_per_second: f64,
    /// Share of the ranks' time in which they waited for each other.
    pub idle_share: f64,
    /// Share of the ranks' time in which something moved between them.
    pub communication_share: f64,
}

/// What was timed.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Timed {
    /// Sampling.
    pub rollouts: Part,
    /// Training of the language model.
    pub language_model: Part,
    /// Training of the embedder; nothing where there is none.
    pub embedder: Option<Part>,
    /// Most memory of a rank's models, as they themselves count it, in bytes.
    pub memory_bytes: f64,
    /// Values whose moments a rank keeps, of the language model.
    pub moments_kept: usize,
    /// Trained values of the language model.
    pub trained: usize,
}

/// One part as this rank saw it: seconds, of waiting, of moving, tokens.
type Lap = [f64; 4];

/// Times updates of these models, which are the same on all ranks of `comm`. `memory` says what they take on this rank.
///
/// # Errors
/// When a model cannot do its part, or a rank fails.
pub fn time_updates(
    comm: &mut dyn Communicator,
    lm: &mut dyn LanguageModel,
    mut embedder: Option<&mut dyn Encoder>,
    load: Load,
    sharing: Sharing,
    memory: &dyn Fn() -> u64,
) -> Result<Timed, TrainError> {
    let sharded = sharing.shard_optimizer && shard::keep_parts(comm, lm.trainable())?;
    let mut embedder_sharded = false;
    if let Some(embedder) = embedder.as_mut().filter(|_| sharing.shard_optimizer) {
        embedder_sharded = shard::keep_parts(comm, embedder.trainable())?;
    }
    let mut laps: [Vec<Lap>; 3] = Default::default();
    for update in 0..=load.updates {
        let own = [
            lap(comm, |comm| rollouts(comm, lm, load, update))?,
            lap(comm, |comm| train_lm(comm, lm, load, update, sharded))?,
            match embedder.as_mut() {
                Some(embedder) => lap(comm, |comm| {
                    train_embedder(comm, &mut **embedder, load, update, embedder_sharded)
                })?,
                None => Lap::default(),
            },
        ];
        if update > 0 {
            laps.iter_mut().zip(own).for_each(|(laps, own)| laps.push(own));
        }
    }
    let mut parts = [Part::default(); 3];
    for (part, laps) in parts.iter_mut().zip(&laps) {
        *part = summary(comm, laps)?;
    }
    let [kept, trained] = shard::kept(lm.trainable());
    let memory = share::each(comm, [memory() as f64])?;
    Ok(Timed {
        rollouts: parts[0],
        language_model: parts[1],
        embedder: embedder.is_some().then_some(parts[2]),
        memory_bytes: memory.iter().map(|[bytes]| *bytes).fold(0.0, f64::max),
        moments_kept: kept,
        trained,
    })
}

/// Does `work`, which returns its tokens, between two moments at which all ranks are there.
fn lap(
    comm: &mut dyn Communicator,
    work: impl FnOnce(&mut dyn Communicator) -> Result<usize, TrainError>,
) -> Result<Lap, TrainError> {
    comm.barrier()?;
    let (start, before) = (Instant::now(), comm.spent());
    let tokens = work(comm)?;
    comm.barrier()?;
    let Spent { waiting, moving } = comm.spent();
    Ok([
        start.elapsed().as_secs_f64(),
        (waiting - before.waiting).as_secs_f64(),
        (moving - before.moving).as_secs_f64(),
        tokens as f64,
    ])
}

/// The median lap in time, with the shares of all laps.
fn summary(comm: &mut dyn Communicator, laps: &[Lap]) -> Result<Part, TrainError> {
    let mut seconds: Vec<f64> = laps.iter().map(|lap| lap[0]).collect();
    seconds.sort_by(f64::total_cmp);
    let sum = |of: usize| laps.iter().map(|lap| lap[of]).sum::<f64>();
    let median = seconds.get(seconds.len() / 2).copied().unwrap_or(0.0);
    let own = [median, sum(0), sum(1), sum(2), sum(3) / laps.len().max(1) as f64];
    let all = share::each(comm, own)?;
    let sum = |of: usize| all.iter().map(|own| own[of]).sum::<f64>();
    let seconds = all.iter().map(|own| own[0]).fold(0.0, f64::max);
    Ok(Part {
        seconds,
        tokens_per_second: sum(4) / seconds.max(1e-9),
        idle_share: sum(2) / sum(1).max(1e-9),
        communication_share: sum(3) / sum(1).max(1e-9),
    })
}

/// Made-up tokens that depend on all of these.
fn tokens(load: Load, [rank, update, stream, text]: [usize; 4], count: usize) -> Vec<u32> {
    let key = [(rank << 16 | stream) as u32, update as u32];
    (0..count as u32)
        .map(|at| philox([at, text as u32, 0, 0], key)[0] % load.vocabulary)
        .collect()
}

fn rollouts(
    comm: &mut dyn Communicator,
    lm: &mut dyn LanguageModel,
    load: Load,
    update: usize,
) -> Result<usize, TrainError> {
    let prompts: Vec<Vec<u32>> = (0..load.users)
        .map(|user| tokens(load, [comm.rank(), update, 0, user], load.prompt_tokens))
        .collect();
    let prompts: Vec<Prompt<'_>> = prompts
        .iter()
        .zip(0..)
        .flat_map(|(tokens, user)| (0..2).map(move |sample| Prompt { tokens, user, sample }))
        .collect();
    let draws = Draws {
        seed: comm.rank() as u64,
        update: update as u32,
        temperature: 1.0,
        limit: load.response_tokens,
        // No token ends a response: all are of full length.
        end_tokens: Vec::new(),
        slots: prompts.len(),
    };
    let responses = lm.sample(&prompts, &draws)?;
    Ok(responses.iter().map(|response| response.tokens.len()).sum())
}

/// The published run's settings for Gemma. Random weights stay what they are at its rate.
pub const PUBLISHED_ADAM: AdamConfig = AdamConfig {
    lr: 1e-7,
    betas: (0.9, 0.999),
    eps: 1e-6,
    weight_decay: 0.01,
    decoupled: true,
};

fn train_lm(
    comm: &mut dyn Communicator,
    lm: &mut dyn LanguageModel,
    load: Load,
    update: usize,
    sharded: bool,
) -> Result<usize, TrainError> {
    let text = |user: usize, stream: usize, count: usize| tokens(load, [comm.rank(), update, stream, user], count);
    let batches: Vec<PackedBatch> = (0..load.users)
        .map(|user| {
            let responses = [1, 2].map(|stream| text(user, stream, load.response_tokens));
            let responses = responses.each_ref().map(Vec::as_slice);
            PackedBatch::new([(&text(user, 0, load.prompt_tokens)[..], &responses[..])])
        })
        .collect();
    let slopes: Vec<f32> = (0..2 * load.response_tokens)
        .map(|at| if at < load.response_tokens { 0.01 } else { -0.01 })
        .collect();
    for _ in 0..load.epochs {
        for batch in &batches {
            let trunk = lm.trunk(batch)?;
            let tracked = lm.score_tracked(batch, &trunk, 1.0)?;
            lm.backward(tracked, &slopes)?;
        }
        shard::step(comm, lm.trainable(), sharded, &PUBLISHED_ADAM, 1.0)?;
    }
    Ok(load.epochs * load.users * (load.prompt_tokens + 2 * load.response_tokens))
}

fn train_embedder(
    comm: &mut dyn Communicator,
    embedder: &mut dyn Encoder,
    load: Load,
    update: usize,
    sharded: bool,
) -> Result<usize, TrainError> {
    let texts: Vec<Vec<u32>> = (0..2 * load.pairs)
        .map(|text| tokens(load, [comm.rank(), update, 3, text], load.text_tokens))
        .collect();
    let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
    let tracked = embedder.embed_tracked(&texts)?;
    let contrastive = super::loss::contrastive_loss(&tracked.vectors, embedder.dimension(), 0.1);
    embedder.backward(tracked, &contrastive.slopes)?;
    shard::step(comm, embedder.trainable(), sharded, &PUBLISHED_ADAM, 1.0)?;
    Ok(texts.len() * load.text_tokens)
}
