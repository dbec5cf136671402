//! Evaluation and checkpoints on the way.

use eval_core::metrics::{Measure, Metric, MetricTable};
use eval_core::retrieval::Retriever;
use eval_core::significance::mean;

use super::{Split, Trainer, item_texts, query, share};
use crate::TrainError;
use crate::checkpoint;
use crate::evaluation::{self, Ranked, cutoffs, metrics};
use crate::log::{Sample, scalars};
use crate::report::Evaluated;
use crate::reward;
use crate::rollout::Profile;

impl Trainer {
    /// Whether the models are evaluated and saved before the coming update: 1, 1 + f, 1 + 2f, …
    pub(super) fn evaluation_due(&self) -> bool {
        let every = self.config.evaluation.print_sample_output_freq.max(1) as u64;
        (self.next_update - 1).is_multiple_of(every)
    }

    /// Evaluates and saves where that is due before the coming update, by `profiles` of the val users or by new ones.
    pub(super) fn before_update(
        &mut self,
        profiles: Option<&[Profile]>,
        phase: &'static str,
    ) -> Result<(), TrainError> {
        let every = self.config.checkpoint.save_every as u64;
        if self.evaluation_due() && !self.evaluated {
            match profiles {
                Some(profiles) => self.evaluate_with(profiles, 1, phase),
                None => self.evaluate_now(phase),
            }
        } else if every > 0 && (self.next_update - 1).is_multiple_of(every) {
            self.save_if_new()
        } else {
            Ok(())
        }
    }

    /// Evaluates with profiles written now.
    pub(super) fn evaluate_now(&mut self, phase: &'static str) -> Result<(), TrainError> {
        let profiles = self.val_profiles()?;
        self.evaluate_with(&profiles, 1, phase)
    }

    /// A profile of every val user, written before the coming update; none where nothing is evaluated.
    pub(super) fn val_profiles(&mut self) -> Result<Vec<Profile>, TrainError> {
        if self.config.evaluation.run_eval {
            self.profiles_of(Split::Val, 1, self.next_update)
        } else {
            Ok(Vec::new())
        }
    }

    /// Evaluates val users by `profiles`, `samples` each, and saves both models; `phase` is `embedder`, `lm` or `end`.
    pub(super) fn evaluate_with(
        &mut self,
        profiles: &[Profile],
        samples: usize,
        phase: &'static str,
    ) -> Result<(), TrainError> {
        let users = Split::Val.users(&self.dataset);
        self.evaluated = true;
        if !self.config.evaluation.run_eval || users.is_empty() {
            return self.save_checkpoint();
        }
        let cutoffs = cutoffs(&self.config.evaluation.cutoffs())?;
        let (comm, encoder) = (self.comm.as_mut(), self.embedder.model.as_ref());
        let items = share::embed(comm, encoder, &item_texts(&self.dataset))?.to_f16()?;
        let texts: Vec<&[u32]> = profiles.iter().map(|profile| profile.tokens.as_slice()).collect();
        let vectors = share::embed(comm, encoder, &texts)?.to_f16()?;
        if !self.is_root() {
            return self.save_checkpoint();
        }
        let items = reward::retriever(items)?;
        let references = reference_rows(&items, users)?;
        let wanted: Vec<_> = users.iter().map(query).collect();
        let top = cutoffs[0];
        let generated = evaluation::rank(&items, &vectors, &wanted, samples, top)?;
        let reference = evaluation::rank(&items, &references, &wanted, 1, top)?;
        let tables = [generated.table(metrics(&cutoffs))?, reference.table(metrics(&cutoffs))?];
        self.log_tables(&tables)?;
        self.log_samples(profiles, &generated)?;
        let [generated_table, reference_table] = &tables;
        if let Some(report) = &mut self.report {
            report.add_checkpoint(&Evaluated {
                name: &checkpoint::name(self.next_update - 1),
                update: self.next_update,
                phase,
                profiles,
                generated: (&generated, generated_table),
                reference: (&reference, reference_table),
                vectors: [items.items(), &vectors, &references],
            })?;
        }
        self.save_checkpoint()
    }

    fn log_tables(&mut self, [generated, reference]: &[MetricTable; 2]) -> Result<(), TrainError> {
        let mut named = Vec::new();
        for (kind, table) in [
            (scalars::ProfileKind::Generated, generated),
            (scalars::ProfileKind::Reference, reference),
        ] {
            for &metric in table.metrics() {
                let (Some(cutoff), Some(column)) = (metric.cutoff(), table.column(metric)) else {
                    continue;
                };
                let name = scalars::ranking(kind, metric.measure().name(), cutoff.get());
                named.push((name, mean(column)));
            }
        }
        let values: Vec<(&str, f64)> = named.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        self.log(&values)?;
        self.say_tables(generated, reference);
        Ok(())
    }

    /// One line for whoever watches.
    fn say_tables(&self, generated: &MetricTable, reference: &MetricTable) {
        let Some(&last) = generated
            .metrics()
            .iter()
            .rfind(|metric| metric.measure() == Measure::Ndcg)
        else {
            return;
        };
        let best = generated
            .metrics()
            .iter()
            .find(|metric| metric.measure() == Measure::Ndcg)
            .copied();
        let shown = |table: &MetricTable, metric: Metric| table.column(metric).map_or(f64::NAN, mean);
        let parts: Vec<String> = [best, Some(last)]
            .into_iter()
            .flatten()
            .map(|metric| {
                format!(
                    "{metric} gen {:.4} ref {:.4}",
                    shown(generated, metric),
                    shown(reference, metric)
                )
            })
            .collect();
        eprintln!(
            "before update {}: {} ({} val users)",
            self.next_update,
            parts.join(" · "),
            generated.users()
        );
    }

    fn log_samples(&mut self, profiles: &[Profile], ranked: &Ranked) -> Result<(), TrainError> {
        let users = Split::Val.users(&self.dataset);
        let rows: Vec<Sample> = users
            .iter()
            .enumerate()
            .map(|(index, user)| {
                let profile = &profiles[index * ranked.samples];
                let rank = ranked.found[index * ranked.samples].targets.first();
                Sample {
                    user: index as u64,
                    prompt: user.prompt.clone(),
                    profile: profile.text.clone(),
                    reference: self.reference_text(user),
                    rank: rank.map(|target| u64::from(target.rank)),
                }
            })
            .collect();
        if let Some(logger) = &mut self.logger {
            logger.samples(self.next_update, &rows)?;
        }
        Ok(())
    }

    fn reference_text(&self, user: &crate::data::User) -> String {
        user.history
            .last()
            .map_or(String::new(), |&item| self.dataset.items[item as usize].text.clone())
    }
}

/// The reference profile's vector is its item's: the text is the same.
pub(crate) fn reference_rows(
    items: &Retriever,
    users: &[crate::data::User],
) -> Result<eval_core::retrieval::EmbeddingStore, TrainError> {
    let store = items.items();
    let mut values = Vec::with_capacity(users.len() * store.dims());
    for user in users {
        let last = user.history.last().copied().unwrap_or_default();
        values.extend_from_slice(&store.row(last as usize));
    }
    // The rows are f16 values already: rounding them again changes nothing.
    Ok(eval_core::retrieval::EmbeddingStore::from_f32(values, store.dims())?.to_f16()?)
}
