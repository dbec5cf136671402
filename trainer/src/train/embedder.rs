//! The embedder phase: contrastive updates on profiles that the language model wrote at its start.

use std::sync::Arc;

use models::tensor_to_vec;

use super::loss::contrastive_loss;
use super::{PhaseProfiles, Split, Trainer};
use crate::TrainError;
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
        while self.position.done < updates {
            self.go_on()?;
            self.before_update(Some(&profiles.val), "embedder")?;
            self.contrast(&profiles.train, accumulation)?;
            self.pending += 1;
            if self.pending == accumulation || self.position.done + 1 == updates {
                // Every batch counts for 1/accumulation of a step; the phase's last step may have fewer.
                let scale = accumulation as f64 / self.pending as f64;
                self.embedder.optimizer.step(self.embedder.model.trainable(), scale);
                self.pending = 0;
            }
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
        let profiles = Arc::new(PhaseProfiles {
            train: self.profiles_of(Split::Train, 1, self.next_update)?,
            val: self.val_profiles()?,
        });
        self.profiles = Some(profiles.clone());
        Ok(profiles)
    }

    /// One batch: loss and gradients.
    fn contrast(&mut self, profiles: &[Profile], accumulation: usize) -> Result<(), TrainError> {
        let batch = self.embedder.order.next_batch();
        let targets: Vec<u32> = batch
            .iter()
            .map(|&user| self.dataset.train[user as usize].targets[0])
            .collect();
        let written = batch.iter().map(|&user| &profiles[user as usize].tokens);
        let items = targets
            .iter()
            .map(|&target| &self.dataset.items[target as usize].tokens);
        let texts: Vec<&[u32]> = written.chain(items).map(Vec::as_slice).collect();

        let embedder = &mut self.embedder;
        let vectors = embedder.model.embed_tracked(&texts)?;
        let size = batch.len();
        let (left, right) = (vectors.clone().narrow(0, 0, size), vectors.narrow(0, size, size));
        let contrastive = contrastive_loss(left, right, self.config.embedder.loss_temp);
        let loss = f64::from(tensor_to_vec(contrastive.loss.clone())?[0]);
        if !loss.is_finite() {
            return Err(self.not_finite("embedder", loss, &batch));
        }
        let similarities = tensor_to_vec(contrastive.similarities)?;
        let mut gradients = contrastive.loss.div_scalar(accumulation as f64).backward();
        embedder.model.trainable().accumulate(&mut gradients);

        let (mrr, ndcg) = in_batch_metrics(&similarities, size)?;
        let false_negatives = repeated_pairs(&targets) as f64;
        let values = [
            (LOSS, loss),
            (LR, self.config.embedder.optimizer.lr),
            (FALSE_NEGATIVES, false_negatives),
            (scalars::IN_BATCH_MRR, mrr),
            (scalars::IN_BATCH_NDCG, ndcg),
        ];
        self.logger.scalars(self.next_update, &values)?;
        Ok(())
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
