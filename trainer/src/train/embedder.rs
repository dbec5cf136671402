//! The embedder phase: contrastive updates on profiles that the language model wrote at its start.

use std::sync::Arc;

use models::Contrasted;

use super::deal::Deal;
use super::pace::Pace;
use super::{EmbedderState, PhaseProfiles, Split, Trainer, shard, share};
use crate::TrainError;
use crate::config::{Device, TrainConfig};
use crate::dist::Communicator;
use crate::log::scalars;
use crate::progress::Progress;
use crate::rollout::Profile;

/// Names of the embedder's own scalars.
const LOSS: &str = "embedder/loss";
const LR: &str = "embedder/lr";
/// Pairs of a batch, other than the row's own, that are the row's target all the same: negatives that are none.
const FALSE_NEGATIVES: &str = "embedder/false_negatives";

impl Trainer {
    /// Trains the embedder for `num_emb_updates` batches. A phase ends with an optimizer step.
    pub(super) fn embedder_phase(&mut self) -> Result<(), TrainError> {
        let updates = self.config.schedule.num_emb_updates;
        if self.position.done >= updates {
            return Ok(());
        }
        self.go_on()?;
        let profiles = self.phase_profiles()?;
        let accumulation = self.config.embedder.gradient_accumulation_steps.max(1);
        let mut progress = Progress::start("embedder", "updates", Some((updates - self.position.done) as u64));
        self.pace = Pace::start(self.comm.as_ref());
        while self.position.done < updates {
            self.go_on()?;
            self.before_update(Some(&profiles.val), "embedder")?;
            let tokens = self.contrast(&profiles.train, accumulation)?;
            self.pending += 1;
            if self.pending == accumulation || self.position.done + 1 == updates {
                // Every batch counts for 1/accumulation of a step; the phase's last step may have fewer.
                let scale = accumulation as f64 / self.pending as f64;
                let EmbedderState {
                    model,
                    optimizer,
                    sharded,
                    ..
                } = &mut self.embedder;
                shard::step(self.comm.as_mut(), model.trainable(), *sharded, optimizer, scale)?;
                self.pending = 0;
            }
            progress.count("tokens", self.log_pace(tokens)?);
            self.advance();
            progress.add(1);
        }
        self.profiles = None;
        progress.finish();
        Ok(())
    }

    /// The profiles of the phase that begins, or of the one that is gone on with.
    fn phase_profiles(&mut self) -> Result<Arc<PhaseProfiles>, TrainError> {
        if let Some(profiles) = &self.profiles {
            return Ok(profiles.clone());
        }
        self.pace = Pace::start(self.comm.as_ref());
        let train = self.profiles_of(Split::Train, 1, self.next_update)?;
        if self.lm.is_some() {
            let tokens: usize = train.iter().map(|profile| profile.response.tokens.len()).sum();
            // All ranks have the whole list by now.
            self.say_pace("profiles", tokens / self.comm.world())?;
        }
        let profiles = Arc::new(PhaseProfiles {
            train,
            val: self.val_profiles()?,
        });
        self.profiles = Some(profiles.clone());
        Ok(profiles)
    }

    /// One batch: loss and gradients. Returns how many tokens of this process it had.
    fn contrast(&mut self, profiles: &[Profile], accumulation: usize) -> Result<usize, TrainError> {
        let batch = self.embedder.order.next_batch();
        let target = |user: &u32| self.dataset.train[*user as usize].targets[0];
        let targets: Vec<u32> = batch.iter().map(target).collect();
        let written = batch.iter().map(|&user| &profiles[user as usize].tokens);
        let items = targets
            .iter()
            .map(|&target| &self.dataset.items[target as usize].tokens);
        let texts: Vec<&[u32]> = written.chain(items).map(Vec::as_slice).collect();
        let tokens = texts.iter().map(|text| text.len()).sum();

        let global = self.config.embedder.global_negatives;
        let contrasted = if global {
            contrast_globally(
                &mut self.embedder,
                self.comm.as_mut(),
                &self.config,
                &texts,
                accumulation,
            )?
        } else {
            // Gradients are summed over the ranks: each counts for 1/world.
            let parts = accumulation * self.comm.world();
            let temperature = self.config.embedder.loss_temp;
            self.embedder.model.contrast(&texts, temperature, parts)?
        };
        if !contrasted.loss.is_finite() {
            return Err(self.not_finite("embedder", contrasted.loss, &batch));
        }
        let comm = self.comm.as_mut();
        let targets = if global {
            let deal = Deal::in_turn(targets.len() * comm.world(), comm.world());
            share::gather(comm, &deal, Ok(targets))?
        } else {
            targets
        };
        let (mrr, ndcg) = in_batch_metrics(&contrasted.similarities, targets.len())?;
        let mut values = [
            (LOSS, contrasted.loss),
            (LR, self.config.embedder.optimizer.lr),
            (FALSE_NEGATIVES, repeated_pairs(&targets) as f64),
            (scalars::IN_BATCH_MRR, mrr),
            (scalars::IN_BATCH_NDCG, ndcg),
        ];
        share::means(comm, &mut values)?;
        self.log(&values)?;
        Ok(tokens)
    }

    pub(super) fn not_finite(&self, phase: &'static str, loss: f64, batch: &[u32]) -> TrainError {
        let users = batch
            .iter()
            .map(|&user| self.dataset.train[user as usize].id.clone())
            .collect();
        let checkpoint = self.last_checkpoint.as_ref().map(|(_, path)| path.clone());
        TrainError::NotFinite {
            phase,
            update: self.next_update,
            loss,
            users,
            checkpoint,
        }
    }
}

/// Slopes of 1/`parts` of a loss.
fn share_of(slopes: &[f32], parts: usize) -> Vec<f32> {
    slopes.iter().map(|slope| slope / parts as f32).collect()
}

/// Contrasts profiles with the targets of all ranks.
///
/// On the processor every text is a pass of its own: what it adds to the gradients is then the same whatever else the rank has,
/// so that the number of processes changes no result. A GPU, which would idle at that, takes a batch at once.
fn contrast_globally(
    embedder: &mut EmbedderState,
    comm: &mut dyn Communicator,
    config: &TrainConfig,
    texts: &[&[u32]],
    parts: usize,
) -> Result<Contrasted, TrainError> {
    let together = match config.run.device {
        Device::Cpu => 1,
        Device::Cuda(_) | Device::Wgpu(_) => texts.len(),
    };
    let width = embedder.model.dimension();
    let mut passes = Vec::new();
    let mut own = Vec::with_capacity(texts.len() * width);
    for texts in texts.chunks(together) {
        let tracked = embedder.model.embed_tracked(texts)?;
        own.extend_from_slice(&tracked.vectors);
        passes.push(tracked);
    }
    let global = share::global_loss(comm, &own, width, config.embedder.loss_temp)?;
    if global.loss.is_finite() {
        // What a pass' slopes give in the parameters is its part of the loss' gradient, by the chain rule.
        for (tracked, slopes) in passes.into_iter().zip(global.slopes.chunks(together * width)) {
            embedder.model.backward(tracked, &share_of(slopes, parts))?;
        }
    }
    Ok(Contrasted {
        loss: global.loss,
        similarities: global.similarities,
    })
}

/// Mean reciprocal rank and NDCG of each profile's own target among the batch's.
fn in_batch_metrics(similarities: &[f32], size: usize) -> Result<(f64, f64), TrainError> {
    let (mut mrr, mut ndcg) = (0.0, 0.0);
    for (row, scores) in similarities.chunks_exact(size).enumerate() {
        let ranked = eval_core::scores::rank_by_scores(scores, &[], &[row as u32])?;
        let ranks = eval_core::TargetRanks::from_ranked(&ranked)?;
        mrr += eval_core::metrics::mrr(&ranks, None).unwrap_or(0.0);
        ndcg += eval_core::metrics::ndcg(&ranks, None).unwrap_or(0.0);
    }
    Ok((mrr / size as f64, ndcg / size as f64))
}

/// Ordered pairs of different rows with one target.
fn repeated_pairs(targets: &[u32]) -> usize {
    let mut counts = std::collections::BTreeMap::new();
    targets
        .iter()
        .for_each(|target| *counts.entry(target).or_insert(0) += 1);
    counts.values().map(|count| count * (count - 1)).sum()
}
