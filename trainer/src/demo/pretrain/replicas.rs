//! Several copies of one model that work on different batches at the same time and are stepped as one.

use std::panic;

use burn::tensor::{Gradients, Tensor};
use models::{GradientSum, ParameterId, Trainable, Weights};
use rayon::{ThreadPool, ThreadPoolBuilder};

use crate::TrainError;

/// Copies with the same parameters, each with a thread of its own: tiny products gain nothing from many threads, many
/// batches do.
pub(super) struct Replicas<M> {
    models: Vec<M>,
    pools: Vec<ThreadPool>,
}

impl<M: Trainable + Send> Replicas<M> {
    /// As many copies as `load` is called.
    pub(super) fn new(count: usize, mut load: impl FnMut() -> Result<M, TrainError>) -> Result<Self, TrainError> {
        let pool = || {
            let failed = |error: rayon::ThreadPoolBuildError| TrainError::Mismatch(format!("no thread: {error}"));
            ThreadPoolBuilder::new().num_threads(1).build().map_err(failed)
        };
        Ok(Self {
            models: (0..count).map(|_| load()).collect::<Result<_, _>>()?,
            pools: (0..count).map(|_| pool()).collect::<Result<_, _>>()?,
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
    pub(super) fn first(&self) -> &M {
        &self.models[0]
    }
}

impl<M: Trainable> Trainable for Replicas<M> {
    fn trained(&self) -> &[ParameterId] {
        self.models[0].trained()
    }

    fn parameters(&self) -> &Weights {
        self.models[0].parameters()
    }

    fn set_parameter(&mut self, id: ParameterId, value: Tensor<2>) {
        for model in &mut self.models {
            model.set_parameter(id, value.clone());
        }
    }

    /// Gradients arrive in [`Replicas::each`], copy by copy; a loss over the first copy alone lands here.
    fn accumulate(&mut self, gradients: &mut Gradients) {
        self.models[0].accumulate(gradients);
    }

    /// The sum over the copies, in their order.
    fn take_gradients(&mut self) -> Vec<Option<GradientSum>> {
        let mut copies = self.models.iter_mut().map(Trainable::take_gradients);
        let mut sums = copies.next().unwrap_or_default();
        for gradients in copies {
            for (sum, gradient) in sums.iter_mut().zip(gradients) {
                *sum = match (sum.take(), gradient) {
                    // What rounding left is of no use here: nothing depends on who summed what.
                    (Some(sum), Some(gradient)) => Some((sum.value + gradient.value).into()),
                    (one, other) => one.or(other),
                };
            }
        }
        sums
    }

    fn put_gradients(&mut self, sums: Vec<Option<GradientSum>>) {
        self.take_gradients();
        self.models[0].put_gradients(sums);
    }
}
