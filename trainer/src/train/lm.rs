//! The language model phase: two profiles a user, the ranking of each as reward, a regression of log-ratios on rewards.

use std::ops::Range;

use eval_core::TargetRanks;
use models::{PackedBatch, Policy, Scores, Trunk};

use super::deal::Deal;
use super::devices::own_device;
use super::loss::{Pair, pair_loss};
use super::pace::Pace;
use super::trace::{TracedResponse, TracedUpdate, TracedUser};
use super::{LmState, Trainer, item_texts, query, requests, shard, share};
use crate::TrainError;
use crate::config::{LossReduction, MicroBatch, Recompute};
use crate::log::scalars;
use crate::progress::Progress;
use crate::reward::{self, Catalogue, profile_reward, total_reward, whiten};
use crate::rollout::{Profile, Tokenizers, write_profiles};

/// Responses a user in an update.
const GENERATIONS: usize = 2;

/// Diagnostics beside the published scalars.
mod diagnostics {
    pub(super) const EQUAL_REWARDS: &str = "rollout/equal_reward_share";
    pub(super) const SAMPLER_GAP: &str = "rollout/sampler_scorer_gap";
    pub(super) const EOS_RATE: &str = "rollout/eos_rate";
    pub(super) const LENGTH: &str = "rollout/length";
    pub(super) const DIVERSITY: &str = "rollout/diversity";
    pub(super) const TITLE_SHARE: &str = "rollout/contains_target_title";
    pub(super) const PENALTIES: &str = "rollout/penalised_share";
}

/// One user's rollouts.
#[derive(Debug)]
struct Rollout {
    user: u32,
    profiles: [Profile; GENERATIONS],
    /// Where each response's tokens stand among the user's.
    responses: [Range<usize>; GENERATIONS],
    old: Scores,
    reference: Scores,
    ranks: [TargetRanks; GENERATIONS],
    rewards: [f64; GENERATIONS],
    totals: [f64; GENERATIONS],
}

impl Rollout {
    /// Sums of each response's `logprobs`, which are of the user's tokens.
    fn sums(&self, logprobs: &[f32]) -> [f64; GENERATIONS] {
        let sum = |range: &Range<usize>| logprobs[range.clone()].iter().map(|&x| f64::from(x)).sum();
        self.responses.each_ref().map(sum)
    }

    fn traced(&self, index: usize) -> TracedResponse {
        let range = self.responses[index].clone();
        TracedResponse {
            tokens: self.profiles[index].response.tokens.clone(),
            logprobs: self.old.logprobs[range.clone()].to_vec(),
            reference_logprobs: self.reference.logprobs[range].to_vec(),
            reward: self.rewards[index],
            total_reward: self.totals[index],
        }
    }
}

/// Users whose rollouts go through the model together: the same in every epoch and for π_old.
#[derive(Debug)]
struct Together {
    users: Range<usize>,
    /// Each user's tokens among those that are scored.
    tokens: Vec<Range<usize>>,
    batch: PackedBatch,
    trunk: Trunk,
}

/// An update's rollouts.
#[derive(Debug, Default)]
struct Rollouts {
    users: Vec<Rollout>,
    passes: Vec<Together>,
}

/// The part of `scores` at `range`.
fn part(scores: &Scores, range: &Range<usize>) -> Scores {
    Scores {
        logprobs: scores.logprobs[range.clone()].to_vec(),
        entropies: scores.entropies[range.clone()].to_vec(),
    }
}

/// What an epoch over the rollouts measured.
#[derive(Debug, Default)]
struct Epoch {
    loss: f64,
    entropy: f64,
    ratio: f64,
    approx_kl: f64,
}

/// Rows in runs of at most `most` tokens, but at least one row: how many each run has, as equal as may be.
fn filled(lengths: &[usize], most: usize) -> Vec<usize> {
    let mut runs: Vec<usize> = Vec::new();
    let mut tokens = 0;
    for &length in lengths {
        match runs.last_mut() {
            Some(run) if tokens + length <= most => {
                *run += 1;
                tokens += length;
            }
            _ => {
                runs.push(1);
                tokens = length;
            }
        }
    }
    // The last would idle with a few: all have as many as it takes for so many runs.
    let even = lengths.len().div_ceil(runs.len().max(1));
    let fits = |rows: &[usize]| rows.len() == 1 || rows.iter().sum::<usize>() <= most;
    match lengths.chunks(even.max(1)).all(fits) {
        true => lengths.chunks(even.max(1)).map(<[usize]>::len).collect(),
        false => runs,
    }
}

impl Trainer {
    /// Trains the language model for `num_lm_updates` updates.
    pub(super) fn lm_phase(&mut self) -> Result<(), TrainError> {
        let updates = self.config.schedule.num_lm_updates;
        if self.position.done >= updates {
            return Ok(());
        }
        self.go_on()?;
        let (comm, encoder) = (self.comm.as_mut(), self.embedder.model.as_ref());
        let items = share::embed(comm, encoder, &item_texts(&self.dataset))?;
        let own = own_device(self.config.run.device, self.comm.local_rank());
        let catalogue = Catalogue::new(items, own, self.config.run.precision)?;
        let left = (updates - self.position.done) as u64;
        let mut progress = Progress::start("language model", "updates", Some(left));
        self.pace = Pace::start(self.comm.as_ref());
        while self.position.done < updates {
            self.go_on()?;
            self.before_update(None, "lm")?;
            let [profiles, tokens] = self.lm_update(&catalogue)?;
            let tokens = self.log_pace(tokens)?;
            self.advance();
            progress.count("profiles", profiles * self.comm.world());
            progress.count("tokens", tokens);
            progress.add(1);
        }
        progress.finish();
        Ok(())
    }

    /// One update; returns how many profiles this process wrote for it, and their tokens.
    fn lm_update(&mut self, catalogue: &Catalogue) -> Result<[usize; 2], TrainError> {
        let Some(lm) = &mut self.lm else {
            return Err(TrainError::Mismatch(
                "the language model phase needs a language model".to_owned(),
            ));
        };
        let taken = lm.order.taken();
        let all = lm.order.next_global_batch();
        let length = |&user: &u32| self.dataset.train[user as usize].prompt_tokens.len();
        let deal = Deal::by_length(&all.iter().map(length).collect::<Vec<_>>(), self.comm.world());
        let users = deal.own(&all, self.comm.rank());
        let rollouts = match self.roll_out(&users, catalogue) {
            Err(TrainError::Interrupted) => Vec::new(),
            rollouts => rollouts?,
        };
        // Where one rank is interrupted, all are.
        if share::any(self.comm.as_mut(), rollouts.is_empty())? {
            // The update has not been: its users come again when the run is gone on with.
            if let Some(lm) = &mut self.lm {
                lm.order.go_to(taken);
            }
            return Err(TrainError::Interrupted);
        }
        // What is free now is free for training: the sampler has its memory.
        self.settle_recomputing()?;
        self.settle_micro_batch()?;
        let mut rollouts = self.score_rollouts(rollouts)?;
        self.score_totals(&mut rollouts.users, &deal)?;
        let mut epochs = Vec::with_capacity(self.config.rl.noptepochs);
        for epoch in 0..self.config.rl.noptepochs {
            epochs.push(self.epoch(&rollouts, epoch)?);
        }
        let rollouts = rollouts.users;
        self.log_update(&rollouts, &epochs, &deal)?;
        let written = rollouts.iter().flat_map(|rollout| &rollout.profiles);
        let tokens = written.clone().map(|profile| profile.response.tokens.len()).sum();
        Ok([written.count(), tokens])
    }

    /// Samples, embeds and ranks.
    fn roll_out(&mut self, users: &[u32], catalogue: &Catalogue) -> Result<Vec<Rollout>, TrainError> {
        let train = &self.dataset.train;
        let Some(lm) = &mut self.lm else {
            return Ok(Vec::new());
        };
        let wanted: Vec<_> = users
            .iter()
            .flat_map(|&user| requests(&train[user as usize], user, GENERATIONS as u32))
            .collect();
        let tokenizers = Tokenizers {
            lm: &lm.tokenizer,
            embedder: &self.embedder.tokenizer,
        };
        let profiles = write_profiles(
            lm.model.as_mut(),
            tokenizers,
            &self.rollout,
            &wanted,
            self.next_update as u32,
        )?;

        let texts: Vec<&[u32]> = profiles.iter().map(|profile| profile.tokens.as_slice()).collect();
        let vectors = reward::embed(self.embedder.model.as_ref(), &texts)?;
        let queries: Vec<_> = users
            .iter()
            .flat_map(|&user| [query(&train[user as usize]); GENERATIONS])
            .collect();
        let ranked = catalogue.rank(&vectors, &queries)?;

        let limit = self.rollout.response_length.min(self.rollout.embedder_limit);
        let rl = &self.config.rl;
        let mut profiles = profiles.into_iter();
        let mut ranked = ranked.iter();
        let mut rollouts = Vec::with_capacity(users.len());
        for &user in users {
            let (Some(first), Some(second)) = (profiles.next(), profiles.next()) else {
                break;
            };
            let (Some(one), Some(two)) = (ranked.next(), ranked.next()) else {
                break;
            };
            let profiles = [first, second];
            let ranks = [TargetRanks::from_ranked(one)?, TargetRanks::from_ranked(two)?];
            let rewards = [0, 1].map(|index| {
                let tokens = profiles[index].tokens.len();
                profile_reward(rl.reward_type, &ranks[index], tokens, limit, rl.penalty_reward_value)
            });
            rollouts.push(Rollout {
                user,
                profiles,
                responses: [0..0, 0..0],
                old: Scores::default(),
                reference: Scores::default(),
                ranks,
                rewards,
                totals: [0.0; 2],
            });
        }
        Ok(rollouts)
    }

    /// Packs rollouts, as many users together as a micro-batch has, and scores them under both policies.
    fn score_rollouts(&self, mut users: Vec<Rollout>) -> Result<Rollouts, TrainError> {
        let Some(lm) = &self.lm else {
            return Ok(Rollouts::default());
        };
        let temperature = self.config.rl.temperature;
        let lengths: Vec<usize> = users.iter().map(|rollout| self.tokens_of(rollout)).collect();
        let sizes = self.micro_batches(lm, &lengths);
        let mut passes = Vec::with_capacity(sizes.len());
        let mut first = 0;
        let mut rest = &mut users[..];
        for size in sizes {
            let (users, others) = rest.split_at_mut(size);
            rest = others;
            let texts: Vec<_> = users.iter().map(|rollout| self.texts(rollout)).collect();
            let batch = PackedBatch::new(texts.iter().map(|(prompt, responses)| (*prompt, &responses[..])));
            drop(texts);
            let trunk = lm.model.trunk(&batch)?;
            let old = lm.model.score(&batch, &trunk, Policy::Current, temperature)?;
            let reference = lm.model.score(&batch, &trunk, Policy::Reference, temperature)?;
            let (ranges, _) = batch.responses().as_chunks::<GENERATIONS>();
            let mut tokens = Vec::with_capacity(users.len());
            for (rollout, [one, two]) in users.iter_mut().zip(ranges) {
                let own = one.start..two.end;
                let within = |range: &Range<usize>| range.start - own.start..range.end - own.start;
                rollout.responses = [within(one), within(two)];
                rollout.old = part(&old, &own);
                rollout.reference = part(&reference, &own);
                tokens.push(own);
            }
            passes.push(Together {
                users: first..first + users.len(),
                tokens,
                batch,
                trunk,
            });
            first += users.len();
        }
        Ok(Rollouts { users, passes })
    }

    /// How many users go through the model together, pass by pass.
    fn micro_batches(&self, lm: &LmState, lengths: &[usize]) -> Vec<usize> {
        let most = match self.config.lm.micro_batch {
            MicroBatch::Users(users) => users,
            MicroBatch::Auto => match lm.fitting {
                Some(tokens) => return filled(lengths, tokens as usize),
                None => self.config.lm.per_device_train_batch_size,
            },
        };
        let most = most.max(1);
        let passes = (0..lengths.len()).step_by(most);
        passes.map(|first| most.min(lengths.len() - first)).collect()
    }

    /// Tells the model which passes recompute: by the memory of this process' card, since no result depends on it.
    fn settle_recomputing(&mut self) -> Result<(), TrainError> {
        let Some(lm) = self.lm.as_mut().filter(|lm| !lm.settled) else {
            return Ok(());
        };
        let recompute = self.config.lm.recompute;
        let fitting = match recompute {
            Recompute::Auto => lm.model.tokens_that_fit(false)?,
            Recompute::Never | Recompute::Always => None,
        };
        lm.model.recompute_above(recompute.above(fitting));
        lm.settled = true;
        Ok(())
    }

    /// Decides how many tokens go through the model together where a GPU's memory is to: once in a run, so that it goes on
    /// to the same numbers, and as few as the fullest card takes, so that all ranks do the same.
    fn settle_micro_batch(&mut self) -> Result<(), TrainError> {
        let Some(lm) = &mut self.lm else { return Ok(()) };
        if lm.fitting.is_some() || self.config.lm.micro_batch != MicroBatch::Auto {
            return Ok(());
        }
        let recomputing = self.config.lm.recompute == Recompute::Always;
        let Some(own) = lm.model.tokens_that_fit(recomputing)? else {
            return Ok(());
        };
        let all = self.comm.all_gather(&(own as u64).to_le_bytes())?;
        let each = all.iter().filter_map(|part| part.as_slice().try_into().ok());
        lm.fitting = each.map(u64::from_le_bytes).min();
        Ok(())
    }

    /// Tokens of a user's row.
    fn tokens_of(&self, rollout: &Rollout) -> usize {
        let (prompt, responses) = self.texts(rollout);
        prompt.len() + responses.map(<[u32]>::len).iter().sum::<usize>()
    }

    /// A user's prompt and both responses.
    fn texts<'a>(&'a self, rollout: &'a Rollout) -> (&'a [u32], [&'a [u32]; GENERATIONS]) {
        let prompt = self.dataset.train[rollout.user as usize].prompt_tokens.as_slice();
        let responses = rollout.profiles.each_ref();
        (prompt, responses.map(|profile| profile.response.tokens.as_slice()))
    }

    /// Fills in the total rewards, whitened where that is asked: over this rank's, or over those of all ranks.
    fn score_totals(&mut self, rollouts: &mut [Rollout], deal: &Deal) -> Result<(), TrainError> {
        let rl = &self.config.rl;
        for rollout in rollouts.iter_mut() {
            let (old, reference) = (
                rollout.sums(&rollout.old.logprobs),
                rollout.sums(&rollout.reference.logprobs),
            );
            rollout.totals =
                [0, 1].map(|index| total_reward(rollout.rewards[index], rl.kl_coef, old[index], reference[index]));
        }
        if !rl.whiten_rewards {
            return Ok(());
        }
        let mut all: Vec<[f64; GENERATIONS]> = rollouts.iter().map(|rollout| rollout.totals).collect();
        if rl.global_whitening {
            let comm = self.comm.as_mut();
            all = share::gather_numbers(comm, deal, &all)?;
            whiten(all.as_flattened_mut());
            all = deal.own(&all, comm.rank());
        } else {
            whiten(all.as_flattened_mut());
        }
        for (rollout, totals) in rollouts.iter_mut().zip(all) {
            rollout.totals = totals;
        }
        Ok(())
    }

    /// One pass over the rollouts and one optimizer step. Users that go together are the same in every epoch and for π_old, so that
    /// the order of passes changes nothing but the order of a sum.
    fn epoch(&mut self, rollouts: &Rollouts, epoch: usize) -> Result<Epoch, TrainError> {
        let Rollouts { users, passes } = rollouts;
        let rl = &self.config.rl;
        let (rank, world) = (self.comm.rank(), self.comm.world());
        // Gradients and measurements are summed over the ranks, of which each counts for 1/world.
        let weight = match rl.loss_reduction {
            LossReduction::Mean => 1.0 / (users.len() * world) as f64,
            LossReduction::Sum => 1.0 / (self.config.lm.gradient_accumulation_steps * world) as f64,
        };
        let profiles = (GENERATIONS * users.len() * world) as f64;
        let order = super::order::shuffled(
            passes.len(),
            share::rank_seed(self.config.run.seed, rank),
            u32::from_le_bytes(*b"epoc"),
            self.next_update << 8 | epoch as u64,
        );
        let mut measured = Epoch::default();
        let mut tokens = 0.0;
        for index in order {
            let pass = &passes[index as usize];
            let Some(lm) = &mut self.lm else { break };
            let tracked = lm.model.score_tracked(&pass.batch, &pass.trunk, rl.temperature)?;
            let scores = &tracked.scores;
            let mut slopes = vec![0.0; scores.logprobs.len()];
            for (rollout, own) in users[pass.users.clone()].iter().zip(&pass.tokens) {
                let (old, log_pi) = (
                    rollout.sums(&rollout.old.logprobs),
                    rollout.sums(&scores.logprobs[own.clone()]),
                );
                let pair = Pair {
                    old,
                    rewards: rollout.totals,
                };
                let loss = pair_loss(log_pi, pair, rl.eta);
                if !loss.value.is_finite() {
                    return Err(self.not_finite("language model", loss.value, &[rollout.user]));
                }
                measured.loss += loss.value * weight;
                for (log_pi, old) in log_pi.into_iter().zip(old) {
                    let difference = log_pi - old;
                    measured.ratio += difference.exp() / profiles;
                    measured.approx_kl += 0.5 * difference.powi(2) / profiles;
                }
                let [one, two] = &rollout.responses;
                loss.spread(weight, [one, two], &mut slopes[own.clone()]);
            }
            tokens += scores.entropies.len() as f64;
            measured.entropy += scores.entropies.iter().map(|&x| f64::from(x)).sum::<f64>();
            lm.model.backward(tracked, &slopes)?;
        }
        let Epoch {
            loss,
            entropy,
            ratio,
            approx_kl,
        } = &mut measured;
        let mut sums = [*loss, *entropy, *ratio, *approx_kl, tokens];
        self.comm.all_reduce_sum_f64(&mut sums)?;
        [*loss, *entropy, *ratio, *approx_kl, tokens] = sums;
        *entropy /= tokens.max(1.0);
        if let Some(lm) = &mut self.lm {
            let model = lm.model.trainable();
            shard::step(self.comm.as_mut(), model, lm.sharded, &lm.optimizer, 1.0)?;
        }
        Ok(measured)
    }

    fn log_update(&mut self, rollouts: &[Rollout], epochs: &[Epoch], deal: &Deal) -> Result<(), TrainError> {
        let per_epoch = |of: fn(&Epoch) -> f64| epochs.iter().map(of).collect::<Vec<f64>>();
        let last = |values: &[f64]| values.last().copied().unwrap_or(0.0);
        let (losses, entropies) = (per_epoch(|epoch| epoch.loss), per_epoch(|epoch| epoch.entropy));
        let (ratios, kls) = (per_epoch(|epoch| epoch.ratio), per_epoch(|epoch| epoch.approx_kl));
        let mean_ratio = mean(ratios.iter().copied());
        let rl = &self.config.rl;
        let old = rollouts.iter().flat_map(|rollout| rollout.sums(&rollout.old.logprobs));
        let reference = rollouts
            .iter()
            .flat_map(|rollout| rollout.sums(&rollout.reference.logprobs));
        let kl = mean(old.clone().zip(reference).map(|(old, reference)| old - reference));
        let all_ranks = || rollouts.iter().flat_map(|rollout| &rollout.ranks);
        let metric = |of: fn(&TargetRanks) -> Option<f64>| mean(all_ranks().filter_map(of));
        let ended = mean_over(rollouts, |profile| f64::from(u8::from(profile.response.ended)));
        let profiles = (GENERATIONS * rollouts.len() * self.comm.world()) as f64;
        let mut values = vec![
            (
                scalars::REWARDS,
                mean(rollouts.iter().flat_map(|rollout| rollout.rewards)),
            ),
            (
                scalars::TOTAL_REWARDS,
                mean(rollouts.iter().flat_map(|rollout| rollout.totals)),
            ),
            (scalars::KL, kl),
            (scalars::NON_SCORE_REWARD, -rl.kl_coef * kl),
            (scalars::ENTROPY, -mean(old)),
            (
                scalars::IN_BATCH_MRR,
                metric(|ranks| eval_core::metrics::mrr(ranks, None)),
            ),
            (
                scalars::IN_BATCH_NDCG,
                metric(|ranks| eval_core::metrics::ndcg(ranks, None)),
            ),
            (scalars::EOS_TOKENS, ended * profiles),
        ];
        values.extend(self.diagnose(rollouts, ended));
        share::means(self.comm.as_mut(), &mut values)?;
        // Those of the epochs are over all ranks already.
        values.extend([
            (scalars::APPROX_KL, last(&kls)),
            (scalars::POLICY_LOSS, last(&losses)),
            (scalars::POLICY_LOSS_AVERAGE, mean(losses.iter().copied())),
            (scalars::POLICY_ENTROPY, last(&entropies)),
            (scalars::POLICY_ENTROPY_AVERAGE, mean(entropies.iter().copied())),
            (scalars::RATIO, mean_ratio),
            (
                scalars::RATIO_VARIANCE,
                mean(ratios.iter().map(|ratio| (ratio - mean_ratio).powi(2))),
            ),
            (scalars::LEARNING_RATE, self.config.lm.optimizer.lr),
        ]);
        self.log(&values)?;
        self.trace_update(rollouts, losses, deal)
    }

    /// What goes wrong first in reinforcement, measured.
    fn diagnose(&self, rollouts: &[Rollout], ended: f64) -> Vec<(&'static str, f64)> {
        let limit = self.rollout.response_length.min(self.rollout.embedder_limit);
        let equal = |rollout: &Rollout| f64::from(u8::from(rollout.rewards[0] == rollout.rewards[1]));
        let title_share = mean(rollouts.iter().flat_map(|rollout| {
            let user = &self.dataset.train[rollout.user as usize];
            let title = &self.dataset.items[user.targets[0] as usize].title;
            rollout
                .profiles
                .each_ref()
                .map(|profile| f64::from(u8::from(!title.is_empty() && profile.text.contains(title.as_str()))))
        }));
        vec![
            (diagnostics::EQUAL_REWARDS, mean(rollouts.iter().map(equal))),
            (diagnostics::SAMPLER_GAP, mean(rollouts.iter().map(sampler_gap))),
            (diagnostics::EOS_RATE, ended),
            (
                diagnostics::LENGTH,
                mean_over(rollouts, |profile| profile.response.tokens.len() as f64),
            ),
            (diagnostics::DIVERSITY, mean(rollouts.iter().map(diversity))),
            (diagnostics::TITLE_SHARE, title_share),
            (
                diagnostics::PENALTIES,
                mean_over(rollouts, |profile| f64::from(u8::from(profile.tokens.len() >= limit))),
            ),
        ]
    }

    fn trace_update(&mut self, rollouts: &[Rollout], losses: Vec<f64>, deal: &Deal) -> Result<(), TrainError> {
        if self.config.run.trace.is_none() {
            return Ok(());
        }
        let traced = rollouts.iter().map(|rollout| TracedUser {
            id: self.dataset.train[rollout.user as usize].id.clone(),
            responses: [0, 1].map(|index| rollout.traced(index)),
        });
        let users = share::gather(self.comm.as_mut(), deal, Ok(traced.collect()))?;
        let Some(trace) = &mut self.trace else { return Ok(()) };
        trace.write(&TracedUpdate {
            update: self.next_update,
            users: users.iter().map(|user| user.id.as_str()).collect(),
            responses: users.iter().map(|user| &user.responses).collect(),
            losses,
        })
    }
}

/// Mean absolute difference a token between what the sampler and the scorer gave it.
fn sampler_gap(rollout: &Rollout) -> f64 {
    let sampled = rollout.profiles.iter().flat_map(|profile| &profile.response.logprobs);
    mean(
        sampled
            .zip(&rollout.old.logprobs)
            .map(|(&a, &b)| f64::from((a - b).abs())),
    )
}

/// 1 − the share of distinct words that the two profiles have in common (Jaccard).
fn diversity(rollout: &Rollout) -> f64 {
    let words = |profile: &Profile| -> std::collections::BTreeSet<String> {
        profile.text.split_whitespace().map(str::to_lowercase).collect()
    };
    let [first, second] = rollout.profiles.each_ref().map(words);
    let union = first.union(&second).count();
    if union == 0 {
        0.0
    } else {
        1.0 - first.intersection(&second).count() as f64 / union as f64
    }
}

fn mean_over(rollouts: &[Rollout], of: impl Fn(&Profile) -> f64) -> f64 {
    mean(rollouts.iter().flat_map(|rollout| &rollout.profiles).map(of))
}

fn mean(values: impl Iterator<Item = f64>) -> f64 {
    let (count, sum) = values.fold((0usize, 0.0), |(count, sum), value| (count + 1, sum + value));
    if count == 0 { 0.0 } else { sum / count as f64 }
}

#[cfg(test)]
mod tests {
    use super::filled;

    #[test]
    fn rows_fill_passes_evenly() {
        assert_eq!(filled(&[10; 16], 100), [8, 8]);
        assert_eq!(filled(&[10; 16], 1000), [16]);
        assert_eq!(filled(&[10, 10, 90, 5, 5], 100), [2, 3]);
        // One that is too long goes by itself, and fails there.
        assert_eq!(filled(&[500, 10, 10], 100), [1, 2]);
        assert!(filled(&[], 100).is_empty());
    }
}
