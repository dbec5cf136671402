//! Several copies of one model that work on different batches at the same time and are stepped as one.

use std::panic;

use models::{AdamConfig, Gradient, Trainable};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::TrainError;

/// Copies with the same parameters, each with a thread of its own: tiny products gain nothing from many threads, many
/// batches do.
pub(super) struct Replicas<M> {
    models: Vec<M>,
    pools: Vec<ThreadPool>,
    trainable: fn(&mut M) -> &mut dyn Trainable,
}

impl<M: Send> Replicas<M> {
    /// As many copies as `load` is called.
    pub(super) fn new(
        count: usize,
        trainable: fn(&mut M) -> &mut dyn Trainable,
        mut load: impl FnMut() -> Result<M, TrainError>,
    ) -> Result<Self, TrainError> {
        let pool = || {
            let failed = |error: rayon::ThreadPoolBuildError| TrainError::Mismatch(format!("no thread: {error}"));
            ThreadPoolBuilder::new().num_threads(1).build().map_err(failed)
        };
        Ok(Self {
            models: (0..count).map(|_| load()).collect::<Result<_, _>>()?,
            pools: (0..count).map(|_| pool()).collect::<Result<_, _>>()?,
            trainable,
        })
    }

    pub(super) fn count(&self) -> usize {
        self.models.len()
    }

    /// Gives every copy one of `batches` at the same time, and returns what `work` made of them, in order.
    pub(super) fn each<B: Send, R: Send>(
        &mut self,
        batches: Vec<B>,
        work: impl Fn(&mut M, B) -> Result<R, TrainError> + Sync,
    ) -> Result<Vec<R>, TrainError> {
        let work = &work;
        std::thread::scope(|scope| {
            let running: Vec<_> = self
                .models
                .iter_mut()
                .zip(&self.pools)
                .zip(batches)
                .map(|((model, pool), batch)| scope.spawn(move || pool.install(|| work(model, batch))))
                .collect();
            running
                .into_iter()
                .map(|thread| thread.join().unwrap_or_else(|payload| panic::resume_unwind(payload)))
                .collect()
        })
    }

    /// One of the copies.
    pub(super) fn first(&mut self) -> &mut dyn Trainable {
        (self.trainable)(&mut self.models[0])
    }

    /// One optimizer step of every copy, on the sum of all copies' gradients: they stay the same.
    pub(super) fn step(&mut self, config: &AdamConfig, scale: f64) -> Result<(), TrainError> {
        let sums = self.sums()?;
        let trainable = self.trainable;
        self.each(vec![&sums; self.count()], |model, sums| {
            let model = trainable(model);
            for (index, sum) in sums.iter().enumerate() {
                model.set_gradient(index, sum.clone())?;
            }
            Ok(model.step(config, scale)?)
        })?;
        Ok(())
    }

    /// The gradients, summed in the order of the copies.
    fn sums(&mut self) -> Result<Vec<Option<Gradient>>, TrainError> {
        let mut sums = vec![None; self.first().trained().len()];
        for model in &mut self.models {
            let model = (self.trainable)(model);
            for (index, sum) in sums.iter_mut().enumerate() {
                let Some(Gradient { value, .. }) = model.gradient(index)? else {
                    continue;
                };
                // What rounding left is of no use here: nothing depends on who summed what.
                match sum {
                    None => *sum = Some(Gradient { value, rest: None }),
                    Some(sum) => sum.value.iter_mut().zip(value).for_each(|(sum, term)| *sum += term),
                }
            }
        }
        Ok(sums)
    }
}
