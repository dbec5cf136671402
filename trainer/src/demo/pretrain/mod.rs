//! Pretraining of the demo's models on made-up worlds, none of which is a world that the demo shows.
//!
//! The language model learns to write a profile of a history as [`profile`](super::profile) does: in plain words, with
//! random emphasis. The embedder learns to tell films apart by statements about them. Neither learns which aspects decide.

mod corpus;
mod embedder;
mod lm;
mod replicas;

use std::path::{Path, PathBuf};
use std::time::Instant;

use models::{AdamConfig, Dtype, NamedTensor, Trainable, write_safetensors};
use serde_json::json;

use super::tokenizer::{self, write};
use super::{World, WorldSize};
use crate::TrainError;
use corpus::Corpus;
use replicas::Replicas;

/// The seed of the first training world; the demo refuses seeds from here on.
pub const TRAINING_SEED: u64 = 1 << 32;

/// What to pretrain, for how long.
#[derive(Debug, Clone)]
pub struct Pretraining {
    /// Gets the folders `lm` and `embedder`.
    pub output: PathBuf,
    /// How many training worlds are read.
    pub worlds: usize,
    /// How large each of them is.
    pub size: WorldSize,
    /// Optimizer steps of the language model.
    pub lm_steps: usize,
    /// Optimizer steps of the embedder.
    pub embedder_steps: usize,
    /// Threads, each with a share of every batch: the results depend on it through the order of sums.
    pub threads: usize,
}

impl Pretraining {
    /// Pretrains both models and writes them, in f16.
    ///
    /// # Errors
    /// When a file cannot be written, or a loss is not a number.
    pub fn run(&self) -> Result<(), TrainError> {
        let [lm, embedder] = ["lm", "embedder"].map(|name| self.output.join(name));
        let world = World::generate(TRAINING_SEED, self.size);
        let lm_tokens = tokenizer::write_lm_tokenizer(&world, &lm)?;
        let embedder_tokens = tokenizer::write_embedder_tokenizer(&world, &embedder)?;
        eprintln!("tokenizers: {lm_tokens} tokens for the language model, {embedder_tokens} for the embedder");
        write_configs(&lm, lm_tokens, &embedder, embedder_tokens)?;
        let corpus = Corpus::build(self.worlds, self.size, &lm, &embedder)?;
        eprintln!(
            "{} worlds: {} histories, {} films",
            self.worlds,
            corpus.histories(),
            corpus.films()
        );
        // Side by side: neither has enough batches in a step for all the cores of a large machine.
        let for_embedder = (self.threads / 4).max(1);
        let for_lm = self.threads.saturating_sub(for_embedder).max(1);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| embedder::pretrain(self.embedder_steps, for_embedder, &corpus, &embedder));
            lm::pretrain(self.lm_steps, for_lm, &corpus, &lm)?;
            other
                .join()
                .unwrap_or_else(|payload| std::panic::resume_unwind(payload))
        })
    }
}

/// Both models' shapes.
fn write_configs(lm: &Path, lm_tokens: usize, embedder: &Path, embedder_tokens: usize) -> Result<(), TrainError> {
    let config = json!({
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": lm_tokens.next_multiple_of(16),
        "hidden_size": 128,
        "intermediate_size": 352,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 4,
        "max_position_embeddings": 512,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "tie_word_embeddings": false,
        "attention_bias": false,
        "mlp_bias": false,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "dtype": "float16",
        "torch_dtype": "float16",
    });
    write(lm, "config.json", format!("{config:#}\n").as_bytes())?;
    let config = json!({
        "architectures": ["BertModel"],
        "model_type": "bert",
        "vocab_size": embedder_tokens.next_multiple_of(16),
        "hidden_size": 128,
        "intermediate_size": 384,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 256,
        "type_vocab_size": 1,
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "pad_token_id": 0,
        "dtype": "float16",
        "torch_dtype": "float16",
    });
    write(embedder, "config.json", format!("{config:#}\n").as_bytes())?;
    let pooling =
        json!({"word_embedding_dimension": 128, "pooling_mode_cls_token": false, "pooling_mode_mean_tokens": true});
    write(
        &embedder.join("1_Pooling"),
        "config.json",
        format!("{pooling:#}\n").as_bytes(),
    )
}

/// A pretraining in progress: the schedule, the optimizer, what is said.
struct Course {
    name: &'static str,
    folder: PathBuf,
    steps: usize,
    rate: f64,
    optimizer: AdamConfig,
    started: Instant,
    /// Sum and number of the losses since the last line.
    losses: (f64, u32),
}

/// Steps from one line, and from one checkpoint, to the next.
const LINE: usize = 25;
const CHECKPOINT: usize = 250;

impl Course {
    fn new(name: &'static str, folder: &Path, steps: usize, rate: f64) -> Self {
        let optimizer = AdamConfig {
            lr: rate,
            betas: (0.9, 0.98),
            eps: 1e-8,
            weight_decay: 0.01,
            decoupled: true,
        };
        Self {
            name,
            folder: folder.to_owned(),
            steps,
            rate,
            optimizer,
            started: Instant::now(),
            losses: (0.0, 0),
        }
    }

    /// One optimizer step on gradients that sum up over `parts` means of loss `loss` on average.
    fn step<M: Send>(
        &mut self,
        replicas: &mut Replicas<M>,
        step: usize,
        parts: usize,
        loss: f64,
    ) -> Result<(), TrainError> {
        if !loss.is_finite() {
            return Err(TrainError::NotFinite {
                phase: self.name,
                update: step as u64,
                loss,
                users: Vec::new(),
                checkpoint: Some(self.folder.clone()),
            });
        }
        self.optimizer.lr = self.rate * shape(step, self.steps);
        replicas.step(&self.optimizer, 1.0 / parts as f64)?;
        self.losses.0 += loss;
        self.losses.1 += 1;
        if (step + 1).is_multiple_of(LINE) || step + 1 == self.steps {
            eprintln!(
                "{} step {} of {}: loss {:.4}, {:.0} s",
                self.name,
                step + 1,
                self.steps,
                self.losses.0 / f64::from(self.losses.1),
                self.started.elapsed().as_secs_f64()
            );
            self.losses = (0.0, 0);
        }
        if (step + 1).is_multiple_of(CHECKPOINT) || step + 1 == self.steps {
            save(replicas.first(), &self.folder)?;
        }
        Ok(())
    }
}

/// The rate's share of its peak: a linear rise over a twentieth of the steps, then half a cosine down to a twentieth.
fn shape(step: usize, steps: usize) -> f64 {
    let rise = (steps / 20).max(1);
    if step < rise {
        return (step + 1) as f64 / rise as f64;
    }
    let progress = (step - rise) as f64 / (steps - rise).max(1) as f64;
    0.05 + 0.475 * (1.0 + (std::f64::consts::PI * progress).cos())
}

/// Writes the parameters in f16; training changes all of them.
fn save(model: &dyn Trainable, folder: &Path) -> Result<(), TrainError> {
    let tensors = model
        .trained()
        .iter()
        .enumerate()
        .map(|(index, spec)| {
            Ok(NamedTensor {
                name: spec.name.clone(),
                shape: spec.shape.clone(),
                data: model.values(index)?,
            })
        })
        .collect::<Result<Vec<_>, TrainError>>()?;
    Ok(write_safetensors(
        &folder.join("model.safetensors"),
        tensors,
        Dtype::F16,
    )?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use models::{Decoder, DecoderOptions, Device, EncoderOptions};

    use super::*;
    use crate::train;

    #[test]
    fn pretraining_writes_models_that_load_with_their_tokenizers() {
        let folder = tempfile::tempdir().unwrap();
        let plan = Pretraining {
            output: folder.path().to_owned(),
            worlds: 1,
            size: WorldSize {
                films: 100,
                people: 200,
            },
            lm_steps: 1,
            embedder_steps: 1,
            threads: 2,
        };
        plan.run().unwrap();
        let inference = DecoderOptions::inference(Device::flex());
        let (decoder, _): (Decoder, _) = train::open_decoder(&folder.path().join("lm"), &inference).unwrap();
        let options = EncoderOptions {
            device: Device::flex(),
            pooling: None,
            train: false,
        };
        let (bert, _) = train::open_encoder(&folder.path().join("embedder"), &options).unwrap();
        assert_eq!(bert.pooling(), models::Pooling::Mean);
        assert_eq!(decoder.plan().layers, 4);
    }

    #[test]
    fn the_rate_rises_and_then_falls_to_a_twentieth() {
        let shapes: Vec<f64> = (0..100).map(|step| shape(step, 100)).collect();
        assert!((shapes[0] - 0.2).abs() < 1e-12 && (shapes[4] - 1.0).abs() < 1e-12);
        assert!(shapes[5..].windows(2).all(|pair| pair[1] < pair[0]));
        assert!((shapes[99] - 0.05).abs() < 0.001, "{}", shapes[99]);
    }
}
