//! How long updates take on made-up texts: alone, or as one of several ranks that share the work as training does.

use std::collections::BTreeMap;
use std::time::Instant;

use models::{AdamConfig, Draws, Encoder, LanguageModel, PackedBatch, Policy, Prompt, philox};
use serde::Serialize;

use super::timing_sweeps::Sweeps;
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
    /// Users of the profile sweep.
    pub sweep_users: usize,
    /// Profiles of the sweep that are written at once.
    pub sweep_slots: usize,
    /// Items of the catalogue.
    pub items: usize,
    /// Tokens of an item: the mean of lengths that are log-normal with a σ of 0.6, cut at `text_tokens`.
    pub item_tokens: usize,
    /// Ids that tokens are drawn from, of both models.
    pub vocabulary: u32,
}

impl Load {
    /// What a rank has of this work when it is dealt out to `world` ranks.
    ///
    /// # Errors
    /// When it cannot be dealt out evenly.
    pub fn dealt(self, world: usize) -> Result<Self, TrainError> {
        let counts = [
            ("users", self.users),
            ("pairs", self.pairs),
            ("users of the sweep", self.sweep_users),
            ("items", self.items),
        ];
        if let Some((name, count)) = counts.iter().find(|(_, count)| !count.is_multiple_of(world)) {
            let message = format!(
                "strong scaling deals {count} {name} out evenly: start a number of ranks that divides it, not {world}"
            );
            return Err(TrainError::Mismatch(message));
        }
        Ok(Self {
            users: self.users / world,
            pairs: self.pairs / world,
            sweep_users: self.sweep_users / world,
            items: self.items / world,
            ..self
        })
    }
}

/// What can be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Two rollouts of each user.
    Rollouts,
    /// Their log-probabilities under the policy and the reference.
    Scores,
    /// Training of the language model.
    LanguageModel,
    /// Training of the embedder.
    Embedder,
    /// A profile of every user of a split, dealt out by the length of prompts and gathered at all ranks. Once, in the last update.
    Sweep,
    /// Embedding all items, dealt out by length, vectors gathered at all ranks.
    Catalogue,
}

/// A part of an update, over all ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Part {
    /// Seconds, from all ranks' beginning to all ranks' end; the median.
    pub seconds: f64,
    /// Tokens a second of all ranks: written in rollouts and the sweep, read elsewhere.
    pub tokens_per_second: f64,
    /// Share of the ranks' time in which they waited for each other.
    pub idle_share: f64,
    /// Share of the ranks' time in which something moved between them.
    pub communication_share: f64,
}

/// What was timed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timed {
    /// What each rank had to do.
    pub load: Load,
    /// What was asked for.
    pub stages: BTreeMap<Stage, Part>,
    /// Most memory of each rank's models so far, as they themselves count it, in bytes.
    pub memory_bytes: Vec<f64>,
    /// Values whose moments a rank keeps, of the language model.
    pub moments_kept: usize,
    /// Trained values of the language model.
    pub trained: usize,
    /// The same of the embedder.
    pub embedder_trained: usize,
}

/// One part as this rank saw it: seconds, of waiting, of moving, tokens.
type Lap = [f64; 4];

/// Models whose updates are timed; they are the same on all ranks.
#[derive(Debug)]
pub struct Timing<'a> {
    comm: &'a mut dyn Communicator,
    lm: &'a mut dyn LanguageModel,
    embedder: &'a mut dyn Encoder,
    /// Whether ranks keep parts of the moments: of the language model, of the embedder.
    sharded: [bool; 2],
    /// Updates that were timed before, whose draws are not to come again.
    earlier: usize,
}

impl<'a> Timing<'a> {
    /// Shares the optimizers' state out, where that is wanted.
    ///
    /// # Errors
    /// When a model cannot.
    pub fn new(
        comm: &'a mut dyn Communicator,
        lm: &'a mut dyn LanguageModel,
        embedder: &'a mut dyn Encoder,
        sharing: Sharing,
    ) -> Result<Self, TrainError> {
        let mut sharded = [false; 2];
        if sharing.shard_optimizer {
            sharded = [
                shard::keep_parts(comm, lm.trainable())?,
                shard::keep_parts(comm, embedder.trainable())?,
            ];
        }
        Ok(Self {
            comm,
            lm,
            embedder,
            sharded,
            earlier: 0,
        })
    }

    /// Times these stages of updates. `memory` says what models take on this rank.
    ///
    /// # Errors
    /// When a model cannot do its part, or a rank fails.
    pub fn time(&mut self, load: Load, stages: &[Stage], memory: &dyn Fn() -> u64) -> Result<Timed, TrainError> {
        let sweeps = Sweeps::new(load, self.comm.world(), stages);
        let mut laps: BTreeMap<Stage, Vec<Lap>> = stages.iter().map(|&stage| (stage, Vec::new())).collect();
        for update in 0..=load.updates {
            for (&stage, laps) in &mut laps {
                // The sampler is warm by then, and a sweep is long.
                if stage == Stage::Sweep && update < load.updates {
                    continue;
                }
                let lap = self.lap(stage, load, self.earlier + update, &sweeps)?;
                if update > 0 {
                    laps.push(lap);
                }
            }
        }
        self.earlier += load.updates + 1;
        let mut parts = BTreeMap::new();
        for (stage, laps) in laps {
            parts.insert(stage, summary(self.comm, &laps)?);
        }
        let [moments_kept, trained] = shard::kept(self.lm.trainable());
        let [_, embedder_trained] = shard::kept(self.embedder.trainable());
        let memory = share::each(self.comm, [memory() as f64])?;
        Ok(Timed {
            load,
            stages: parts,
            memory_bytes: memory.into_iter().map(|[bytes]| bytes).collect(),
            moments_kept,
            trained,
            embedder_trained,
        })
    }

    fn lap(&mut self, stage: Stage, load: Load, update: usize, sweeps: &Sweeps) -> Result<Lap, TrainError> {
        let Self {
            lm, embedder, sharded, ..
        } = self;
        lap(self.comm, |comm| match stage {
            Stage::Rollouts => rollouts(comm, *lm, load, update),
            Stage::Scores => scores(comm, *lm, load, update),
            Stage::LanguageModel => train_lm(comm, *lm, load, update, sharded[0]),
            Stage::Embedder => train_embedder(comm, *embedder, load, update, sharded[1]),
            Stage::Sweep => sweeps.profiles(comm, *lm, update),
            Stage::Catalogue => sweeps.catalogue(comm, *embedder),
        })
    }
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
pub(super) fn tokens(load: Load, [rank, update, stream, text]: [usize; 4], count: usize) -> Vec<u32> {
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

/// Made-up rollouts of this rank's users, one user a batch.
fn batches(rank: usize, load: Load, update: usize) -> Vec<PackedBatch> {
    let text = |user: usize, stream: usize, count: usize| tokens(load, [rank, update, stream, user], count);
    (0..load.users)
        .map(|user| {
            let responses = [1, 2].map(|stream| text(user, stream, load.response_tokens));
            let responses = responses.each_ref().map(Vec::as_slice);
            PackedBatch::new([(&text(user, 0, load.prompt_tokens)[..], &responses[..])])
        })
        .collect()
}

/// Tokens of a pass over all users.
fn tokens_of_users(load: Load) -> usize {
    load.users * (load.prompt_tokens + 2 * load.response_tokens)
}

fn scores(
    comm: &mut dyn Communicator,
    lm: &mut dyn LanguageModel,
    load: Load,
    update: usize,
) -> Result<usize, TrainError> {
    for batch in &batches(comm.rank(), load, update) {
        let trunk = lm.trunk(batch)?;
        for policy in [Policy::Current, Policy::Reference] {
            lm.score(batch, &trunk, policy, 1.0)?;
        }
    }
    Ok(tokens_of_users(load))
}

fn train_lm(
    comm: &mut dyn Communicator,
    lm: &mut dyn LanguageModel,
    load: Load,
    update: usize,
    sharded: bool,
) -> Result<usize, TrainError> {
    let batches = batches(comm.rank(), load, update);
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
    Ok(load.epochs * tokens_of_users(load))
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
    embedder.contrast(&texts, 0.1, 1)?;
    shard::step(comm, embedder.trainable(), sharded, &PUBLISHED_ADAM, 1.0)?;
    Ok(texts.len() * load.text_tokens)
}
