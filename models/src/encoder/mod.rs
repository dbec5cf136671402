//! BERT encoders, following an [`EncoderPlan`].

mod forward;
mod host;
mod load;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::Device;

use crate::contrast::{Contrastive, contrastive_loss};
use crate::decoder::check_tokens;
use crate::files::{Dtype, NamedTensor, write_parameters};
use crate::folder::{copy_companions, create, write_config, write_json};
use crate::plan::EncoderPlan;
use crate::tuned::Tuned;
use crate::weights::{ParameterId, ParameterSpec, Weights, tensor_to_vec};
use crate::{ModelError, Pass, Trainable};

use host::HostEncoder;
#[cfg(feature = "engine")]
pub(crate) use load::EncoderFolder;
pub use load::EncoderOptions;
pub(crate) use load::{EncoderParameters, encoder_specs};

/// How a text's token vectors become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The first token's.
    Cls,
    /// The mean over all tokens, special ones included.
    Mean,
}

/// Vectors that a loss can be built on: with its slopes in them, [`Encoder::backward`] finds its gradients.
#[derive(Debug)]
pub struct TrackedVectors {
    /// `[texts, dimension]`, row-major.
    pub vectors: Vec<f32>,
    /// What they came from.
    pub pass: Pass,
}

/// What contrasting a batch gave, its gradients being summed already.
#[derive(Debug, Clone, PartialEq)]
pub struct Contrasted {
    /// Mean over profiles.
    pub loss: f64,
    /// Cosines `[profiles, targets]`.
    pub similarities: Vec<f32>,
}

/// A text encoder: a batch of token sequences to a batch of vectors.
pub trait Encoder: std::fmt::Debug + Send {
    /// Width of a vector.
    fn dimension(&self) -> usize;
    /// The longest input, in tokens.
    fn max_tokens(&self) -> usize;
    /// Embeds texts without gradients: `[texts, dimension]`, row-major, in the order given; not normalised.
    fn embed(&self, texts: &[&[u32]]) -> Result<Vec<f32>, ModelError>;
    /// Embeds texts like [`Encoder::embed`], but for the last bits, in one forward pass.
    fn embed_tracked(&mut self, texts: &[&[u32]]) -> Result<TrackedVectors, ModelError>;
    /// Adds the gradients of Σ slope · component over all vectors, `slopes` being `[texts, dimension]`, to the kept sums.
    ///
    /// # Errors
    /// When a parameter has changed since the pass.
    fn backward(&mut self, tracked: TrackedVectors, slopes: &[f32]) -> Result<(), ModelError>;
    /// Contrasts profiles with targets, `texts` being the ones and then as many of the others ([`contrastive_loss`]), and adds the
    /// gradients of 1/`parts` of the loss to the kept sums. Where the loss is not finite the sums may not be either.
    ///
    /// # Errors
    /// When there are not as many targets as profiles.
    fn contrast(&mut self, texts: &[&[u32]], temperature: f64, parts: usize) -> Result<Contrasted, ModelError> {
        check_pairs(texts)?;
        let tracked = self.embed_tracked(texts)?;
        let Contrastive {
            loss,
            similarities,
            mut slopes,
        } = contrastive_loss(&tracked.vectors, self.dimension(), temperature);
        if loss.is_finite() {
            slopes.iter_mut().for_each(|slope| *slope /= parts as f32);
            self.backward(tracked, &slopes)?;
        }
        Ok(Contrasted { loss, similarities })
    }
    /// The parameters that training may change.
    fn trainable(&mut self) -> &mut dyn Trainable;
    /// Writes a Hugging Face folder.
    fn save(&self, folder: &Path) -> Result<(), ModelError>;
}

/// Refuses profiles and targets that are not as many.
pub(crate) fn check_pairs(texts: &[&[u32]]) -> Result<(), ModelError> {
    match texts.len() % 2 {
        0 => Ok(()),
        _ => Err(ModelError::Input(format!(
            "{} texts are not profiles and as many targets",
            texts.len()
        ))),
    }
}

/// A BERT on one device.
#[derive(Debug)]
pub struct Bert {
    plan: EncoderPlan,
    parameters: EncoderParameters,
    pub(crate) tuned: Tuned,
    pooling: Pooling,
    device: Device,
    /// Where the device is the processor: the parameters as inference wants them, and the version they were made from.
    host: Mutex<Option<(u64, Arc<HostEncoder>)>>,
    /// Parameters that are saved again but not computed with, such as a pooler.
    carried: Vec<NamedTensor>,
    source: PathBuf,
}

impl Bert {
    /// The same model in f64: its vectors, with gradients or without, its gradients and its steps are f64 from then on, until they
    /// are read. What devices compute is compared with it.
    #[cfg(any(test, feature = "engine", feature = "wgpu"))]
    pub(crate) fn into_f64(self) -> Self {
        Self {
            tuned: self.tuned.into_f64(),
            host: Mutex::new(None),
            ..self
        }
    }

    /// The model's description.
    pub fn plan(&self) -> &EncoderPlan {
        &self.plan
    }

    /// All parameters.
    pub fn weights(&self) -> &Weights {
        self.tuned.weights()
    }

    /// How vectors are pooled.
    pub fn pooling(&self) -> Pooling {
        self.pooling
    }

    fn host(&self) -> Result<Arc<HostEncoder>, ModelError> {
        let mut host = self.host.lock().unwrap_or_else(PoisonError::into_inner);
        let version = self.tuned.version();
        if let Some((of, made)) = &*host
            && *of == version
        {
            return Ok(made.clone());
        }
        // The stale copy goes before there is another.
        *host = None;
        let made = Arc::new(HostEncoder::new(self)?);
        *host = Some((version, made.clone()));
        Ok(made)
    }

    /// Frees the copy for inference where it is stale.
    fn drop_stale(&mut self) {
        let version = self.tuned.version();
        let host = self.host.get_mut().unwrap_or_else(PoisonError::into_inner);
        host.take_if(|(of, _)| *of != version);
    }

    /// Writes a Hugging Face folder with the parameters in `dtype`; other than [`Dtype::F32`] it rounds them.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn save_as(&self, folder: &Path, dtype: Dtype) -> Result<(), ModelError> {
        let own: Vec<ParameterId> = self.weights().ids().collect();
        let specs = own.iter().map(|&id| self.weights().spec(id).clone()).collect();
        let written = Written {
            source: &self.source,
            dimension: self.plan.hidden,
            pooling: self.pooling,
            carried: &self.carried,
            dtype,
        };
        written.write(folder, specs, |place| self.weights().to_vec(own[place]))
    }

    /// The last hidden state of one text, `[tokens, hidden]`: for tests.
    pub fn hidden(&self, text: &[u32]) -> Result<Vec<f32>, ModelError> {
        check_texts(&self.plan, &[text])?;
        tensor_to_vec(self.run(self.weights(), &[text]))
    }
}

/// Refuses texts without tokens, with too many, or with some that are none.
pub(crate) fn check_texts(plan: &EncoderPlan, texts: &[&[u32]]) -> Result<(), ModelError> {
    for (index, text) in texts.iter().enumerate() {
        let place = format!("text {index}");
        check_tokens(text, plan.vocabulary, &place)?;
        let (found, most) = (text.len(), plan.max_positions);
        if text.is_empty() || found > most {
            let message = format!("{place} has {found} tokens; the encoder takes 1 to {most}");
            return Err(ModelError::Input(message));
        }
    }
    Ok(())
}

/// What a saved encoder's folder says beside its parameters.
pub(crate) struct Written<'a> {
    /// Where it was loaded from: its tokenizer goes with it.
    pub(crate) source: &'a Path,
    pub(crate) dimension: usize,
    pub(crate) pooling: Pooling,
    pub(crate) carried: &'a [NamedTensor],
    pub(crate) dtype: Dtype,
}

impl Written<'_> {
    /// Writes a Hugging Face folder with parameters of `specs`, whose values are asked for in turn.
    pub(crate) fn write(
        &self,
        folder: &Path,
        mut specs: Vec<ParameterSpec>,
        mut values: impl FnMut(usize) -> Result<Vec<f32>, ModelError>,
    ) -> Result<(), ModelError> {
        create(folder)?;
        let own = specs.len();
        specs.extend(self.carried.iter().map(NamedTensor::spec));
        write_parameters(folder, &specs, self.dtype, |place| match place.checked_sub(own) {
            None => values(place),
            Some(carried) => Ok(self.carried[carried].data.clone()),
        })?;
        copy_companions(self.source, folder)?;
        let pooling = folder.join("1_Pooling");
        create(&pooling)?;
        let config = serde_json::json!({
            "word_embedding_dimension": self.dimension,
            "pooling_mode_cls_token": self.pooling == Pooling::Cls,
            "pooling_mode_mean_tokens": self.pooling == Pooling::Mean,
            "pooling_mode_max_tokens": false,
            "pooling_mode_mean_sqrt_len_tokens": false,
        });
        write_json(&pooling.join("config.json"), &config)?;
        write_config(self.source, folder, self.dtype, &[])
    }
}

impl Encoder for Bert {
    fn dimension(&self) -> usize {
        self.plan.hidden
    }

    fn max_tokens(&self) -> usize {
        self.plan.max_positions
    }

    fn embed(&self, texts: &[&[u32]]) -> Result<Vec<f32>, ModelError> {
        check_texts(&self.plan, texts)?;
        if self.device == Device::flex() && !self.weights().is_f64() {
            return Ok(self.host()?.embed(texts));
        }
        let width = self.plan.hidden;
        let mut vectors = vec![0.0; texts.len() * width];
        for batch in forward::batches(texts) {
            let chosen: Vec<&[u32]> = batch.iter().map(|&index| texts[index]).collect();
            let pooled = tensor_to_vec(self.pool(self.run(self.weights(), &chosen), &chosen))?;
            for (&index, vector) in batch.iter().zip(pooled.chunks_exact(width)) {
                vectors[index * width..(index + 1) * width].copy_from_slice(vector);
            }
        }
        Ok(vectors)
    }

    fn embed_tracked(&mut self, texts: &[&[u32]]) -> Result<TrackedVectors, ModelError> {
        check_texts(&self.plan, texts)?;
        self.drop_stale();
        let leaves = self.tuned.leaves();
        let order = forward::by_length(texts);
        let sorted: Vec<&[u32]> = order.iter().map(|&index| texts[index]).collect();
        let pooled = self.pool(self.run(&leaves, &sorted), &sorted);
        let mut places = vec![0; order.len()];
        order
            .iter()
            .enumerate()
            .for_each(|(place, &index)| places[index] = place as u32);
        let vectors = forward::select_rows(pooled, &places, &self.device);
        Ok(TrackedVectors {
            pass: self.tuned.pass(vectors.clone()),
            vectors: tensor_to_vec(vectors)?,
        })
    }

    fn backward(&mut self, tracked: TrackedVectors, slopes: &[f32]) -> Result<(), ModelError> {
        self.tuned.backward::<2>(tracked.pass, slopes)
    }

    fn trainable(&mut self) -> &mut dyn Trainable {
        &mut self.tuned
    }

    fn save(&self, folder: &Path) -> Result<(), ModelError> {
        self.save_as(folder, Dtype::F32)
    }
}
