//! Gemma 1 and Llama, following a [`DecoderPlan`].

mod adapter;
mod forward;
mod load;
mod parameters;
mod save;

#[cfg(feature = "engine")]
pub(crate) use adapter::read_adapter_config;
pub use adapter::{LoraConfig, LoraTarget};
pub(crate) use forward::select_rows;
pub use load::DecoderOptions;
pub(crate) use load::{check_names, check_vocabulary, decoder_specs, read_parameter};
pub(crate) use parameters::{DecoderParameters, Layer, Linear};
pub use save::Merged;
#[cfg(feature = "engine")]
pub(crate) use save::{ADAPTER_PREFIX, write_adapter};

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor};

use crate::language_model::{Policy, TrackedScores, Trunk};
use crate::ops::{TokenScores, token_scores};
use crate::packed::PackedBatch;
use crate::plan::DecoderPlan;
use crate::sample::Engine;
use crate::tuned::Tuned;
use crate::weights::{ParameterId, Weights};
use crate::{Kept, ModelError};

/// Which of a language model's parameters training changes.
#[derive(Debug, Clone, PartialEq)]
pub enum TrainedPart {
    /// Nothing: for inference.
    Nothing,
    /// Low-rank adapters on the named linear layers.
    Lora(LoraConfig),
    /// The last blocks, the final norm and an untied head.
    LastLayers(usize),
    /// Everything.
    Full,
}

/// A causal language model on one device.
#[derive(Debug)]
pub struct Decoder {
    pub(crate) plan: DecoderPlan,
    pub(crate) parameters: DecoderParameters,
    pub(crate) tuned: Tuned,
    pub(crate) device: Device,
    pub(crate) part: TrainedPart,
    /// The trained base parameters as loaded: the reference policy.
    loaded: BTreeMap<ParameterId, Tensor<2>>,
    /// The sampler's copy of the parameters, and the version it was made from.
    engine: Option<(u64, Engine)>,
    pub(crate) source: std::path::PathBuf,
}

/// What a [`Trunk`] keeps, `[tokens, hidden]`; `None` where training changes everything.
type Hidden = Option<Tensor<2>>;

/// The parameters to compute with: current, tracked or reference.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View<'a> {
    weights: &'a Weights,
    loaded: Option<&'a BTreeMap<ParameterId, Tensor<2>>>,
    adapters: bool,
    /// Parameters that go through the autodiff device though no gradient is wanted, in ascending order: some of its
    /// operations are composed otherwise than the plain ones, and differ from them in the last bit.
    lifted: &'a [ParameterId],
}

impl View<'_> {
    pub(crate) fn tensor(&self, id: ParameterId) -> Tensor<2> {
        let tensor = match self.loaded.and_then(|loaded| loaded.get(&id)) {
            Some(tensor) => tensor.clone(),
            None => self.weights.get(id),
        };
        if self.lifted.binary_search(&id).is_ok() {
            tensor.autodiff()
        } else {
            tensor
        }
    }

    /// `x · Wᵀ + b`, and with an adapter `+ s · (x · Aᵀ) · Bᵀ` beside it, never rounded into W.
    pub(crate) fn linear(&self, x: Tensor<2>, linear: &Linear) -> Tensor<2> {
        let mut y = x.clone().matmul(self.tensor(linear.weight).transpose());
        if let Some(bias) = linear.bias {
            y = y + self.tensor(bias);
        }
        if let Some(adapter) = linear.adapter.filter(|_| self.adapters) {
            let low = x.matmul(self.tensor(adapter.a).transpose()).mul_scalar(adapter.scale);
            y = y + low.matmul(self.tensor(adapter.b).transpose());
        }
        y
    }
}

impl Decoder {
    /// The same model in f64: what it scores, its gradients and its steps are f64 from then on, until they are read. It draws as
    /// before, by the host's engine in f32. What devices compute is compared with it.
    #[cfg(any(test, feature = "engine", feature = "wgpu"))]
    pub(crate) fn into_f64(mut self) -> Self {
        self.tuned = self.tuned.into_f64();
        for tensor in self.loaded.values_mut() {
            *tensor = tensor.clone().cast(burn::tensor::DType::F64);
        }
        self.engine = None;
        self
    }

    /// The model's description.
    pub fn plan(&self) -> &DecoderPlan {
        &self.plan
    }

    /// All parameters, adapters included.
    pub fn weights(&self) -> &Weights {
        self.tuned.weights()
    }

    pub(crate) fn view(&self, policy: Policy) -> View<'_> {
        match policy {
            Policy::Current => View {
                weights: self.tuned.weights(),
                loaded: None,
                adapters: true,
                lifted: &[],
            },
            Policy::Reference => View {
                weights: self.tuned.weights(),
                loaded: Some(&self.loaded),
                adapters: false,
                lifted: &[],
            },
        }
    }

    /// The first block whose output training can change.
    fn first_trained_layer(&self) -> usize {
        match self.part {
            TrainedPart::LastLayers(n) => self.plan.layers.saturating_sub(n),
            _ => 0,
        }
    }

    /// Logits of every token of `batch`, `[tokens, vocabulary]`: for tests and small inputs.
    pub fn logits(&self, batch: &PackedBatch, policy: Policy) -> Result<Tensor<2>, ModelError> {
        let trunk = self.trunk(batch)?;
        let view = self.view(policy);
        let hidden = self.top(view, batch, &trunk)?;
        Ok(self.head(view, hidden))
    }

    /// Runs the blocks that training leaves alone, once for all policies and epochs.
    pub fn trunk(&self, batch: &PackedBatch) -> Result<Trunk, ModelError> {
        check_tokens(&batch.tokens, self.plan.vocabulary, "batch")?;
        let end = self.first_trained_layer();
        // With everything trained, even the embedding belongs to the top.
        let view = self.view(Policy::Current);
        let hidden: Hidden =
            (self.part != TrainedPart::Full).then(|| self.blocks(view, self.embed(view, &batch.tokens), batch, 0..end));
        Ok(Trunk(Kept::new(hidden)))
    }

    /// From the trunk to the normalised last hidden states, `[tokens, hidden]`.
    fn top(&self, view: View<'_>, batch: &PackedBatch, trunk: &Trunk) -> Result<Tensor<2>, ModelError> {
        let hidden = match trunk.0.get::<Hidden>()? {
            Some(hidden) => hidden.clone(),
            None => self.embed(view, &batch.tokens),
        };
        let hidden = self.blocks(view, hidden, batch, self.first_trained_layer()..self.plan.layers);
        Ok(self.final_norm(view, hidden))
    }

    fn scores(
        &self,
        view: View<'_>,
        batch: &PackedBatch,
        trunk: &Trunk,
        temperature: f64,
    ) -> Result<TokenScores, ModelError> {
        let hidden = self.top(view, batch, trunk)?;
        let hidden = forward::select_rows(hidden, &batch.predictors, &self.device);
        let logits = self.head(view, hidden);
        Ok(token_scores(logits, &batch.scored, temperature, &self.device))
    }

    /// Scores without gradients; see [`crate::LanguageModel::score`].
    pub(crate) fn score_plain(
        &self,
        batch: &PackedBatch,
        trunk: &Trunk,
        policy: Policy,
        temperature: f64,
    ) -> Result<TokenScores, ModelError> {
        let view = View {
            lifted: self.tuned.ids(),
            ..self.view(policy)
        };
        self.scores(view, batch, trunk, temperature)
    }

    /// Scores of the current policy that gradients can be asked of; see [`crate::LanguageModel::score_tracked`].
    pub(crate) fn score_tracked(
        &mut self,
        batch: &PackedBatch,
        trunk: &Trunk,
        temperature: f64,
    ) -> Result<TrackedScores, ModelError> {
        let leaves = self.tuned.leaves();
        let view = View {
            weights: &leaves,
            loaded: None,
            adapters: true,
            lifted: &[],
        };
        let scores = self.scores(view, batch, trunk, temperature)?;
        Ok(TrackedScores {
            pass: self.tuned.pass(scores.logprobs.clone()),
            scores: scores.read()?,
        })
    }

    /// The sampler's copy of the current parameters; give it back with [`Decoder::keep_engine`].
    pub(crate) fn engine(&mut self) -> Result<Engine, ModelError> {
        match self.engine.take() {
            Some((version, engine)) if version == self.tuned.version() => Ok(engine),
            _ => Engine::new(self),
        }
    }

    pub(crate) fn keep_engine(&mut self, engine: Engine) {
        self.engine = Some((self.tuned.version(), engine));
    }
}

/// Refuses token ids without an embedding.
pub(crate) fn check_tokens(tokens: &[u32], vocabulary: usize, place: &str) -> Result<(), ModelError> {
    match tokens.iter().position(|&token| token as usize >= vocabulary) {
        None => Ok(()),
        Some(index) => Err(ModelError::Token {
            place: place.to_owned(),
            token: tokens[index],
            index,
            vocabulary,
        }),
    }
}
