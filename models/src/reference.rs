//! What devices are compared with: whole updates of the processor's models in f64 ([`crate::Decoder::into_f64`],
//! [`crate::Bert::into_f64`]). Here are the losses of such updates, which lead from scores to slopes; each side takes the slopes from its
//! own scores.

use crate::{PackedBatch, Scores};
#[cfg(any(feature = "engine", feature = "wgpu"))]
use crate::{Response, random::uniform_values};

/// Half of Σ (Σ weight · (log π − log π_ref) − reward)² / 10 over responses, the inner sum over a response's tokens: the regression of
/// log-ratios to rewards that language models are trained with (REBEL; Gao et al., 2024), each response by itself and each token with a
/// weight of its own, so that a slope at the wrong token shows.
pub(crate) struct RegressionLoss {
    weights: Vec<f32>,
    rewards: Vec<f32>,
}

impl RegressionLoss {
    /// Rewards lie within ± this.
    const SCALE: f32 = 10.0;

    /// Random weights and rewards for `batch`.
    #[cfg(any(feature = "engine", feature = "wgpu"))]
    pub(crate) fn random(batch: &PackedBatch, seed: u64, stream: u32) -> Self {
        Self {
            weights: uniform_values(seed, stream, batch.scored.len(), 1.0),
            rewards: uniform_values(seed, stream + 1, batch.responses().len(), Self::SCALE),
        }
    }

    /// Its slope in each of the current policy's log-probabilities, sums in f64; `scores` are the reference policy's and the current one's.
    pub(crate) fn slopes(&self, batch: &PackedBatch, scores: &[Scores; 2]) -> Vec<f32> {
        let [reference, current] = [&scores[0].logprobs, &scores[1].logprobs];
        let mut slopes = vec![0.0; current.len()];
        for (own, reward) in batch.responses().iter().zip(&self.rewards) {
            let terms = own.clone().map(|token| {
                let ratio = f64::from(current[token]) - f64::from(reference[token]);
                f64::from(self.weights[token]) * ratio
            });
            let error = (terms.sum::<f64>() - f64::from(*reward)) / f64::from(Self::SCALE);
            for token in own.clone() {
                slopes[token] = (error * f64::from(self.weights[token])) as f32;
            }
        }
        slopes
    }
}

/// Slopes of half the squared distance of vectors from `wanted`.
#[cfg(any(feature = "engine", feature = "wgpu"))]
pub(crate) fn distance_slopes(vectors: &[f32], wanted: &[f32]) -> Vec<f32> {
    vectors.iter().zip(wanted).map(|(have, want)| have - want).collect()
}

/// What was drawn for each of `prompts`, `samples` responses each, to be scored.
#[cfg(any(feature = "engine", feature = "wgpu"))]
pub(crate) fn drawn<'a>(
    prompts: impl Iterator<Item = &'a [u32]>,
    responses: &[Response],
    samples: usize,
) -> PackedBatch {
    let tokens: Vec<&[u32]> = responses.iter().map(|response| &response.tokens[..]).collect();
    let rows: Vec<(&[u32], &[&[u32]])> = prompts.zip(tokens.chunks_exact(samples)).collect();
    PackedBatch::new(rows)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use burn::tensor::{DType, Tensor, TensorData};

    use super::*;
    use crate::random::uniform_values;
    use crate::tuned::{Tuned, outputs};
    use crate::weights::ParameterSpec;
    use crate::{
        AdamConfig, Bert, Decoder, DecoderOptions, Device, Encoder, EncoderOptions, LanguageModel, LoraConfig, Pass,
        Policy, Pooling, Trainable, TrainedPart, write_initial_decoder, write_initial_encoder,
    };

    fn doubles<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
        assert_eq!(tensor.dtype(), DType::F64);
        tensor.inner().try_into_vec_as().unwrap()
    }

    fn dot(a: &[f64], b: &[f64]) -> f64 {
        a.iter().zip(b).map(|(a, b)| a * b).sum()
    }

    fn largest(values: &[f64]) -> f64 {
        values.iter().fold(0.0, |most: f64, value| most.max(value.abs()))
    }

    /// A model in f32 and in f64, and what to do with either.
    struct Pair<M> {
        single: M,
        double: M,
        tuned: fn(&mut M) -> &mut Tuned,
    }

    impl<M> Pair<M> {
        fn tuned(&mut self) -> &mut Tuned {
            (self.tuned)(&mut self.double)
        }

        fn spec(&mut self, index: usize) -> ParameterSpec {
            self.tuned().trained()[index].clone()
        }

        fn value(&mut self, index: usize) -> Vec<f64> {
            let tuned = self.tuned();
            doubles(tuned.weights().get(tuned.ids()[index]))
        }

        fn put(&mut self, index: usize, values: Vec<f64>) {
            let data = TensorData::new(values, self.spec(index).dims());
            let tensor = Tensor::from_data(data, (&Device::flex(), DType::F64));
            self.tuned().put(index, tensor);
        }

        /// No parameter stays zero, or both models would be trained where nothing can be seen.
        fn stir(&mut self) {
            for index in 0..self.tuned().trained().len() {
                let mut values = self.tuned().values(index).unwrap();
                let more = uniform_values(1, index as u32, values.len(), 0.1);
                values.iter_mut().zip(more).for_each(|(value, more)| *value += more);
                (self.tuned)(&mut self.single)
                    .set_values(index, values.clone())
                    .unwrap();
                self.tuned().set_values(index, values).unwrap();
            }
        }

        /// Compares gradients of Σ slope · output with central differences in f64 and with gradients in f32, and two steps with the
        /// formula in f64.
        fn check<const D: usize>(&mut self, name: &str, pass: impl Fn(&mut M) -> Pass) {
            self.stir();
            let made = pass(&mut self.double);
            let slopes = uniform_values(2, 0, outputs::<D>(&made).dims().iter().product(), 1.0);
            self.tuned().backward::<D>(made, &slopes).unwrap();
            let made = pass(&mut self.single);
            (self.tuned)(&mut self.single).backward::<D>(made, &slopes).unwrap();
            let wide: Vec<f64> = slopes.iter().map(|&slope| f64::from(slope)).collect();
            let count = self.tuned().trained().len();
            let gradients: Vec<Vec<f64>> = (0..count)
                .map(|index| doubles(self.tuned().sum(index).unwrap()))
                .collect();
            let most = gradients.iter().map(|gradient| largest(gradient)).fold(0.0, f64::max);
            for (index, gradient) in gradients.iter().enumerate() {
                let name = format!("{name}: {}", self.spec(index).name);
                let own = (self.tuned)(&mut self.single).gradient(index).unwrap().unwrap().value;
                let apart = own
                    .iter()
                    .zip(gradient)
                    .map(|(own, gradient)| f64::from(*own) - gradient);
                let apart = largest(&apart.collect::<Vec<_>>()) / most;
                assert!(apart < 1e-4, "{name}: f32 differs by {apart}");
                let found = self.difference(index, |model| dot(&doubles(outputs::<D>(&pass(model))), &wide));
                let (expected, scale) = (
                    dot(gradient, &direction(gradient.len())),
                    largest(gradient).max(1e-3 * most),
                );
                let error = (found - expected).abs() / (scale * (gradient.len() as f64).sqrt());
                assert!(
                    error < 1e-8,
                    "{name}: {found} by differences, {expected} by gradients, {error}"
                );
            }
            self.steps(name, &gradients);
            assert!(self.tuned().tensors().iter().all(|tensor| tensor.dtype() == DType::F64));
        }

        /// The slope of `of` along [`direction`] in one parameter, by differences of the fourth order.
        fn difference(&mut self, index: usize, of: impl Fn(&mut M) -> f64) -> f64 {
            const STEP: f64 = 1e-4;
            let value = self.value(index);
            let mut at = |steps: f64| {
                let moved = value.iter().zip(direction(value.len()));
                self.put(
                    index,
                    moved.map(|(value, along)| value + steps * STEP * along).collect(),
                );
                of(&mut self.double)
            };
            let slope = (8.0 * (at(1.0) - at(-1.0)) - (at(2.0) - at(-2.0))) / (12.0 * STEP);
            self.put(index, value);
            slope
        }

        /// Two steps along gradients in f64, beside AdamW's formula.
        fn steps(&mut self, name: &str, gradients: &[Vec<f64>]) {
            let adam = AdamConfig {
                lr: 3e-3,
                betas: (0.9, 0.999),
                eps: 1e-8,
                weight_decay: 0.01,
                decoupled: true,
            };
            for (index, gradient) in gradients.iter().enumerate() {
                let mut value = self.value(index);
                let gradient: Vec<f64> = gradient.iter().map(|&slope| f64::from(slope as f32)).collect();
                let single: Vec<f32> = gradient.iter().map(|&slope| slope as f32).collect();
                for step in 1..=2 {
                    for other in 0..gradients.len() {
                        self.tuned().set_gradient(other, None).unwrap();
                    }
                    let sum = crate::Gradient {
                        value: single.clone(),
                        rest: None,
                    };
                    self.tuned().set_gradient(index, Some(sum)).unwrap();
                    self.tuned().step(&adam, 0.5).unwrap();
                    for (value, slope) in value.iter_mut().zip(&gradient) {
                        let slope = 0.5 * slope;
                        // Moments of equal gradients, corrected for their beginning, are the gradient and its square.
                        *value -= adam.lr * (adam.weight_decay * *value + slope / (slope.abs() + adam.eps));
                    }
                    let found = self.value(index);
                    let apart = found.iter().zip(&value).map(|(found, value)| found - value);
                    let apart = largest(&apart.collect::<Vec<_>>());
                    assert!(apart < 1e-13, "{name}: parameter {index} after step {step}: {apart}");
                }
            }
        }
    }

    fn direction(count: usize) -> Vec<f64> {
        uniform_values(3, 0, count, 1.0).into_iter().map(f64::from).collect()
    }

    const DECODERS: [(&str, &str); 3] = [
        (
            "gemma",
            r#"{"model_type": "gemma", "vocab_size": 23, "hidden_size": 10, "intermediate_size": 14, "num_hidden_layers": 2,
                "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 6, "rms_norm_eps": 1e-6}"#,
        ),
        (
            "llama with biases",
            r#"{"model_type": "llama", "vocab_size": 19, "hidden_size": 12, "intermediate_size": 9, "num_hidden_layers": 2,
                "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "hidden_act": "silu", "rms_norm_eps": 1e-5,
                "attention_bias": true, "mlp_bias": true}"#,
        ),
        (
            "llama with biases and a tied head",
            r#"{"model_type": "llama", "vocab_size": 17, "hidden_size": 9, "intermediate_size": 11, "num_hidden_layers": 2,
                "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 2, "hidden_act": "silu", "rms_norm_eps": 1e-5,
                "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true}"#,
        ),
    ];

    #[test]
    fn a_decoder_in_f64_has_gradients_and_steps_of_f64() {
        let batch = PackedBatch::new([
            (&[3, 1, 4, 1, 5][..], &[&[9, 2, 6][..], &[5][..]][..]),
            (&[7][..], &[&[8, 0, 11, 12, 13, 14][..]][..]),
        ]);
        let targets = LoraConfig::ALL_TARGETS.map(str::to_owned).to_vec();
        let (rank, alpha) = (3, 4.0);
        let lora = TrainedPart::Lora(LoraConfig { rank, alpha, targets });
        for (name, config) in DECODERS {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            write_initial_decoder(folder.path(), 4, 0.4).unwrap();
            for part in [lora.clone(), TrainedPart::LastLayers(1), TrainedPart::Full] {
                let name = format!("{name}, {part:?}");
                let load = || {
                    let (device, part) = (Device::flex(), part.clone());
                    Decoder::load(folder.path(), &DecoderOptions { device, part, seed: 5 }).unwrap()
                };
                let (single, double) = (load(), load().into_f64());
                let mut pair = Pair {
                    single,
                    double,
                    tuned: |model: &mut Decoder| &mut model.tuned,
                };
                pair.check::<1>(&name, |model| {
                    let trunk = model.trunk(&batch).unwrap();
                    LanguageModel::score_tracked(model, &batch, &trunk, 0.8).unwrap().pass
                });
                let scores = |model: &Decoder| {
                    let trunk = model.trunk(&batch).unwrap();
                    model.score_plain(&batch, &trunk, Policy::Reference, 0.8).unwrap()
                };
                let scored = scores(&pair.double);
                let (expected, entropies) = (doubles(scored.logprobs), doubles(scored.entropies));
                let own = scores(&pair.single).read().unwrap();
                let found = own.logprobs.iter().chain(&own.entropies);
                for (found, expected) in found.zip(expected.iter().chain(&entropies)) {
                    assert!((f64::from(*found) - expected).abs() < 1e-5, "{name}: reference policy");
                }
            }
        }
    }

    #[test]
    fn an_encoder_in_f64_has_gradients_and_steps_of_f64() {
        let texts: [&[u32]; 4] = [&[3, 1, 4, 1, 5, 9, 2], &[6], &[5, 3, 5], &[8, 9, 7]];
        for (activation, pooling) in [("gelu", Pooling::Mean), ("gelu_new", Pooling::Cls)] {
            let folder = tempfile::tempdir().unwrap();
            let config = format!(
                r#"{{"model_type": "bert", "vocab_size": 13, "hidden_size": 9, "intermediate_size": 11, "num_hidden_layers": 2,
                "num_attention_heads": 3, "max_position_embeddings": 8, "hidden_act": "{activation}"}}"#
            );
            std::fs::write(folder.path().join("config.json"), config).unwrap();
            write_initial_encoder(folder.path(), 6, 0.4).unwrap();
            let load = || {
                let options = EncoderOptions {
                    device: Device::flex(),
                    pooling: Some(pooling),
                    train: true,
                };
                Bert::load(folder.path(), &options).unwrap()
            };
            let (single, double) = (load(), load().into_f64());
            let mut pair = Pair {
                single,
                double,
                tuned: |model: &mut Bert| &mut model.tuned,
            };
            pair.check::<2>(activation, |model| model.embed_tracked(&texts).unwrap().pass);
            // Without gradients too it is f64 that is rounded, not the host's f32.
            let made = pair.double.embed_tracked(&texts).unwrap();
            assert_eq!(pair.double.embed(&texts).unwrap(), made.vectors);
        }
    }

    #[test]
    fn a_response_pulls_its_own_tokens_by_how_far_its_ratio_is_from_its_reward() {
        let batch = PackedBatch::new([(&[1][..], &[&[2, 3][..], &[4][..]][..])]);
        let loss = RegressionLoss {
            weights: vec![1.0, -0.5, 2.0],
            rewards: vec![3.0, -1.0],
        };
        // Ratios: 1 · 2 − 0.5 · 2 = 1 and 2 · 0.5 = 1.
        let scores = [vec![-3.0, -4.0, -2.0], vec![-1.0, -2.0, -1.5]].map(|logprobs| Scores {
            logprobs,
            entropies: Vec::new(),
        });
        let slopes = loss.slopes(&batch, &scores);
        assert_eq!(slopes, [-0.2, 0.1, 0.4]);
    }
}
