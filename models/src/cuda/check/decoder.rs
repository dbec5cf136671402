//! Language models on a card beside the processor's in f64.

use std::path::Path;

use super::Check;
use crate::cuda::decoder::{CudaDecoder, CudaDecoderOptions};
use crate::cuda::gpu::{Element, Gpu};
use crate::decoder::decoder_specs;
use crate::files::{CheckpointReader, Dtype, NamedTensor, write_safetensors};
use crate::plan::ConfigFile;
use crate::random::{philox, uniform_values};
use crate::reference::{RegressionLoss, drawn};
use crate::sample::{Draws, Prompt};
use crate::{
    AdamConfig, Decoder, DecoderOptions, Device, LanguageModel, LoraConfig, ModelError, PackedBatch, Policy, Scores,
    TrainedPart, write_initial_decoder,
};

/// A small model that no size of is round.
pub(super) struct Small {
    name: &'static str,
    pub(super) config: &'static str,
    pub(super) vocabulary: u32,
    /// Of adapters: products that end in more take multiples of eight.
    rank: usize,
    /// Whether it is trained whole, too.
    whole: bool,
}

pub(super) const SMALL: [Small; 6] = [
    Small {
        name: "gemma, one key head",
        config: r#"{"model_type": "gemma", "vocab_size": 301, "hidden_size": 56, "intermediate_size": 104,
            "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 24, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 512}"#,
        vocabulary: 301,
        rank: 9,
        whole: true,
    },
    Small {
        name: "llama, grouped heads of 64",
        config: r#"{"model_type": "llama", "vocab_size": 520, "hidden_size": 96, "intermediate_size": 168,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 512}"#,
        vocabulary: 520,
        rank: 16,
        whole: true,
    },
    Small {
        name: "gemma, heads of 256",
        config: r#"{"model_type": "gemma", "vocab_size": 216, "hidden_size": 64, "intermediate_size": 120,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 1, "head_dim": 256, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 512}"#,
        vocabulary: 216,
        rank: 24,
        whole: false,
    },
    Small {
        name: "llama, heads of 128, tied",
        config: r#"{"model_type": "llama", "vocab_size": 260, "hidden_size": 136, "intermediate_size": 72,
            "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3, "head_dim": 128, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "tie_word_embeddings": true, "max_position_embeddings": 512}"#,
        vocabulary: 260,
        rank: 9,
        whole: false,
    },
    Small {
        name: "llama, biases, sizes in eights",
        config: r#"{"model_type": "llama", "vocab_size": 264, "hidden_size": 64, "intermediate_size": 120,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "attention_bias": true, "mlp_bias": true, "max_position_embeddings": 512}"#,
        vocabulary: 264,
        rank: 16,
        whole: true,
    },
    Small {
        name: "llama, biases, no size of it round, tied",
        config: r#"{"model_type": "llama", "vocab_size": 157, "hidden_size": 51, "intermediate_size": 77,
            "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 1, "head_dim": 18, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "attention_bias": true, "mlp_bias": true, "tie_word_embeddings": true,
            "max_position_embeddings": 512}"#,
        vocabulary: 157,
        rank: 9,
        whole: true,
    },
];

/// Fresh models have biases of zero, which would show nothing: others in their place.
fn fill_biases(folder: &Path, seed: u64) -> Result<(), ModelError> {
    let plan = ConfigFile::open(&folder.join("config.json"))?.decoder()?;
    let reader = CheckpointReader::open(folder)?;
    let tensors = decoder_specs(&plan).into_iter().zip(0..).map(|(spec, stream)| {
        let data = match spec.name.ends_with(".bias") {
            true => uniform_values(seed, stream, spec.scalars(), 0.3),
            false => reader.read(&spec.name, &spec.shape)?.0,
        };
        Ok(NamedTensor {
            name: spec.name,
            shape: spec.shape,
            data,
        })
    });
    let tensors = tensors.collect::<Result<Vec<_>, ModelError>>()?;
    drop(reader);
    write_safetensors(&folder.join("model.safetensors"), tensors, Dtype::F32)
}

pub(super) fn check(gpu: &Gpu, seed: u64, folder: &Path, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    for (small, number) in SMALL.iter().zip(0..) {
        let path = folder.join("config.json");
        std::fs::write(&path, small.config).map_err(|source| ModelError::io(&path, source))?;
        write_initial_decoder(folder, seed + number, 0.08)?;
        fill_biases(folder, seed + number)?;
        let targets: Vec<String> = LoraConfig::ALL_TARGETS.iter().map(|&name| name.to_owned()).collect();
        let lora = TrainedPart::Lora(LoraConfig {
            rank: small.rank,
            alpha: 12.0,
            targets,
        });
        let mut parts = vec![(lora, "adapters"), (TrainedPart::LastLayers(1), "last block")];
        if small.whole {
            parts.push((TrainedPart::Full, "all of it"));
        }
        for (part, trained) in parts {
            let inputs = Inputs {
                gpu,
                folder,
                part: &part,
                seed: seed + 100 * number,
                vocabulary: small.vocabulary,
                name: format!("{}, {trained}", small.name),
            };
            updates(&inputs, report)?;
        }
    }
    room(gpu, seed, folder, report)
}

/// A pass with gradients takes no more memory than is counted for it, and with blocks run again less than half.
fn room(gpu: &Gpu, seed: u64, folder: &Path, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    const TOKENS: usize = 2048 + 2 * 512;
    let path = folder.join("config.json");
    let config = r#"{"model_type": "llama", "vocab_size": 512, "hidden_size": 512, "intermediate_size": 2048,
        "num_hidden_layers": 8, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 64, "hidden_act": "silu",
        "rms_norm_eps": 1e-5, "max_position_embeddings": 4096}"#;
    std::fs::write(&path, config).map_err(|source| ModelError::io(&path, source))?;
    let plan = ConfigFile::open(&path)?.decoder()?;
    let targets = LoraConfig::ALL_TARGETS.iter().map(|&name| name.to_owned()).collect();
    let lora = TrainedPart::Lora(LoraConfig {
        rank: 64,
        alpha: 128.0,
        targets,
    });
    let tokens: Vec<u32> = (0..TOKENS as u32).map(|at| at * 7 % 512).collect();
    let (prompt, responses) = tokens.split_at(2048);
    let (one, two) = responses.split_at(512);
    let batch = PackedBatch::new([(prompt, &[one, two][..])]);
    for (part, trained) in [
        (lora, "adapters"),
        (TrainedPart::LastLayers(6), "last blocks"),
        (TrainedPart::Full, "all of it"),
    ] {
        let options = CudaDecoderOptions {
            gpu: gpu.clone(),
            element: Element::Bf16,
            part,
            seed,
        };
        let mut decoder = CudaDecoder::random(plan.clone(), &options)?;
        let mut most = [0.0; 2];
        for (again, most) in [false, true].into_iter().zip(&mut most) {
            decoder.recompute_above(if again { 0 } else { usize::MAX });
            let counted = TOKENS * decoder.bytes_of_a_token(again);
            let ((), taken) = gpu.most_taken(|| {
                let trunk = CudaDecoder::trunk(&decoder, &batch)?;
                let pass = CudaDecoder::score_tracked(&decoder, &batch, &trunk, 1.0)?;
                CudaDecoder::backward(&mut decoder, pass, &vec![0.01; batch.scored.len()])
            })?;
            *most = taken as f64;
            let how = if again { ", blocks run again" } else { "" };
            report(Check {
                name: format!("memory of a pass, {trained}{how}: share of what is counted"),
                error: taken as f64 / counted as f64,
                bound: 1.0,
            });
        }
        report(Check {
            name: format!("memory of a pass, {trained}: share of it with blocks run again"),
            error: most[1] / most[0],
            bound: 0.5,
        });
    }
    Ok(())
}

struct Inputs<'a> {
    gpu: &'a Gpu,
    folder: &'a Path,
    part: &'a TrainedPart,
    seed: u64,
    vocabulary: u32,
    name: String,
}

/// The model on the card, in one type.
struct Found {
    decoder: CudaDecoder,
    element: Element,
    name: String,
    seed: u64,
}

/// The processor's results that a card's are compared with.
struct Expected<'a> {
    decoder: &'a mut Decoder,
    /// Of the reference policy and of the current one.
    scores: [Scores; 2],
}

const TEMPERATURE: f64 = 0.8;

/// Two whole updates of one model, and draws between them: scores of both policies, the slopes of a loss in them, gradients, and Adam's
/// step. Each side goes the whole way by itself; the processor goes it once for both types of the card.
fn updates(inputs: &Inputs<'_>, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
    let options = DecoderOptions {
        device: Device::flex(),
        part: inputs.part.clone(),
        seed: inputs.seed,
    };
    let mut decoder = Decoder::load(inputs.folder, &options)?.into_f64();
    let mut found = Vec::new();
    for element in [Element::F32, Element::Bf16] {
        found.push(Found::load(inputs, element)?);
    }
    let texts = texts(inputs.seed, inputs.vocabulary);
    let rows: Vec<(&[u32], Vec<&[u32]>)> = texts
        .iter()
        .map(|(prompt, responses)| (&prompt[..], responses.iter().map(Vec::as_slice).collect()))
        .collect();
    let batch = PackedBatch::new(rows.iter().map(|(prompt, responses)| (*prompt, &responses[..])));
    // A second round sees adapters that are not zero.
    for round in 1..=2 {
        let loss = RegressionLoss::random(&batch, inputs.seed, 7 + 2 * round);
        let trunk = decoder.trunk(&batch)?;
        let reference = decoder.score(&batch, &trunk, Policy::Reference, TEMPERATURE)?;
        let tracked = LanguageModel::score_tracked(&mut decoder, &batch, &trunk, TEMPERATURE)?;
        let scores = [reference, tracked.scores.clone()];
        decoder.backward(tracked, &loss.slopes(&batch, &scores))?;
        let mut expected = Expected {
            decoder: &mut decoder,
            scores,
        };
        for own in &mut found {
            own.gradients(&mut expected, (&batch, &loss), round, report)?;
        }
        decoder.trainable().step(&ADAM, 1.0)?;
        for own in &mut found {
            own.step(&mut decoder, round, report)?;
        }
        if round == 1 {
            for own in &mut found {
                own.stepped(&batch, report)?;
                super::align(decoder.trainable(), own.decoder.trainable())?;
            }
            draws(inputs, &mut decoder, &mut found, report)?;
        }
    }
    found.iter_mut().try_for_each(|own| own.again(&batch, report))
}

const ADAM: AdamConfig = AdamConfig {
    lr: 3e-3,
    betas: (0.9, 0.999),
    eps: 1e-8,
    weight_decay: 0.01,
    decoupled: true,
};

impl Found {
    fn load(inputs: &Inputs<'_>, element: Element) -> Result<Self, ModelError> {
        let options = CudaDecoderOptions {
            gpu: inputs.gpu.clone(),
            element,
            part: inputs.part.clone(),
            seed: inputs.seed,
        };
        Ok(Self {
            decoder: CudaDecoder::load(inputs.folder, &options)?,
            element,
            name: format!("{}, {element:?}", inputs.name),
            seed: inputs.seed,
        })
    }

    fn bound(&self, exact: f64, rounded: f64) -> f64 {
        match self.element {
            Element::F32 => exact,
            _ => rounded,
        }
    }

    /// Scores of both policies, and the gradients of the loss.
    fn gradients(
        &mut self,
        expected: &mut Expected<'_>,
        (batch, loss): (&PackedBatch, &RegressionLoss),
        round: u32,
        report: &mut dyn FnMut(Check),
    ) -> Result<(), ModelError> {
        let of = |what: &str| format!("{}: {what}, round {round}", self.name);
        let trunk = self.decoder.trunk(batch)?;
        let score = |policy| self.decoder.score(batch, &trunk, policy, TEMPERATURE);
        let scores = [score(Policy::Reference)?, score(Policy::Current)?];
        let policies = [Policy::Reference, Policy::Current].into_iter().zip(&expected.scores);
        for ((policy, expected), own) in policies.zip(&scores) {
            let bound = self.bound(5e-6, 2e-2);
            let name = of(&format!("{policy:?} log-probabilities"));
            report(Check::new(name, &own.logprobs, &expected.logprobs, bound));
            let name = of(&format!("{policy:?} entropies"));
            report(Check::new(name, &own.entropies, &expected.entropies, bound));
        }
        let bounds = [self.bound(2e-5, 6e-2), self.bound(1e-5, 4e-2)];
        let name = self.name.clone();
        let of = |what: &str| format!("{name}: {what}, round {round}");
        let pass = self.decoder.score_tracked(batch, &trunk, TEMPERATURE)?;
        self.decoder.backward(pass, &loss.slopes(batch, &scores))?;
        let (expected, own) = (expected.decoder.trainable(), self.decoder.trainable());
        super::gradients(expected, own, of, bounds, report)?;
        Ok(())
    }

    /// A step, where the processor has made one.
    fn step(&mut self, expected: &mut Decoder, round: u32, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
        let name = format!("{}: parameters after a step, round {round}", self.name);
        let bound = self.bound(2e-2, 0.4);
        let own = self.decoder.trainable();
        own.step(&ADAM, 1.0)?;
        super::values(expected.trainable(), own, name, (ADAM.lr, &[]), bound, report)
    }

    /// A step leaves the model computing with the values that it moved: to put them in place anew changes nothing.
    fn stepped(&mut self, batch: &PackedBatch, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
        let found = &mut self.decoder;
        let score = |found: &CudaDecoder| -> Result<Vec<f32>, ModelError> {
            let trunk = found.trunk(batch)?;
            Ok(found.score(batch, &trunk, Policy::Current, 1.0)?.logprobs)
        };
        let moved = score(found)?;
        for index in 0..found.trainable().trained().len() {
            let values = found.trainable().values(index)?;
            found.trainable().set_values(index, values)?;
        }
        let name = format!("{}: the model after a step", self.name);
        report(Check::new(name, &score(found)?, &moved, 0.0));
        Ok(())
    }

    /// Gradients with blocks run again on the way back are those without, to the last bit; and they are the same twice.
    fn again(&mut self, batch: &PackedBatch, report: &mut dyn FnMut(Check)) -> Result<(), ModelError> {
        let found = &mut self.decoder;
        let slopes = uniform_values(self.seed, 17, batch.scored.len(), 1.0);
        let trunk = CudaDecoder::trunk(found, batch)?;
        let mut gradients = |above: usize| -> Result<(Vec<f32>, Vec<f32>), ModelError> {
            found.trainable().clear_gradients()?;
            found.recompute_above(above);
            let pass = CudaDecoder::score_tracked(found, batch, &trunk, 0.9)?;
            let logprobs = pass.scores.logprobs.clone();
            found.backward(pass, &slopes)?;
            let parameters = found.trainable();
            let mut all = Vec::new();
            for index in 0..parameters.trained().len() {
                all.extend(
                    parameters
                        .gradient(index)?
                        .map(|gradient| gradient.value)
                        .unwrap_or_default(),
                );
            }
            Ok((logprobs, all))
        };
        let (logprobs, whole) = gradients(usize::MAX)?;
        for (above, how) in [(usize::MAX, "once more"), (0, "with blocks run again")] {
            let (own_logprobs, own) = gradients(above)?;
            let name = |what: &str| format!("{}: {what} {how}", self.name);
            report(Check::new(name("log-probabilities"), &own_logprobs, &logprobs, 0.0));
            report(Check::new(name("gradients"), &own, &whole, 0.0));
        }
        Ok(())
    }
}

/// Draws of both from the same random stream: in f32 the same tokens, save where two candidates are nearly tied. The processor draws
/// in f32 here, as it does in a run; what the card's own tokens had for log-probabilities is compared with f64.
fn draws(
    inputs: &Inputs<'_>,
    expected: &mut Decoder,
    found: &mut [Found],
    report: &mut dyn FnMut(Check),
) -> Result<(), ModelError> {
    const SAMPLES: [u32; 2] = [0, 1];
    let texts = texts(inputs.seed + 5, inputs.vocabulary);
    let prompts: Vec<Prompt<'_>> = texts
        .iter()
        .zip(0..)
        .flat_map(|((prompt, _), user)| {
            SAMPLES.map(|sample| Prompt {
                tokens: prompt,
                user,
                sample,
            })
        })
        .collect();
    let draws = Draws {
        seed: inputs.seed,
        update: 3,
        temperature: 1.3,
        limit: 37,
        end_tokens: vec![5, 6, 7],
        slots: 5,
    };
    let responses = expected.sample(&prompts, &draws)?;
    for own in found {
        let drawn_by_card = own.decoder.sample_responses(&prompts, &draws)?;
        let (mut same, mut all) = (0, 0);
        for (response, own) in responses.iter().zip(&drawn_by_card) {
            let pairs = response.tokens.iter().zip(&own.tokens);
            same += pairs.take_while(|(token, own)| token == own).count();
            all += response.tokens.len();
        }
        let batch = drawn(
            texts.iter().map(|(prompt, _)| &prompt[..]),
            &drawn_by_card,
            SAMPLES.len(),
        );
        let trunk = expected.trunk(&batch)?;
        let scores = expected.score(&batch, &trunk, Policy::Current, draws.temperature)?;
        let logprobs = drawn_by_card.iter().flat_map(|response| &response.logprobs);
        report(Check::new(
            format!("{}: sampler's log-probabilities", own.name),
            &logprobs.copied().collect::<Vec<f32>>(),
            &scores.logprobs,
            own.bound(1e-5, 3e-2),
        ));
        report(Check {
            name: format!("{}: share of tokens drawn otherwise ({all} in all)", own.name),
            error: 1.0 - same as f64 / all.max(1) as f64,
            bound: own.bound(0.02, 0.8),
        });
    }
    Ok(())
}

/// Prompts and their responses: lengths from one token to some hundred.
pub(super) fn texts(seed: u64, vocabulary: u32) -> Vec<(Vec<u32>, Vec<Vec<u32>>)> {
    let mut counter = 0;
    let mut next = |below: u32| {
        counter += 1;
        philox([counter, 0, 0, 77], [seed as u32, (seed >> 32) as u32])[0] % below
    };
    [
        (1, vec![3]),
        (17, vec![1, 29]),
        (83, vec![40, 0, 12]),
        (130, vec![65, 64]),
        (9, vec![71]),
    ]
    .into_iter()
    .map(|(prompt, responses)| {
        let mut tokens = |count: usize| (0..count).map(|_| next(vocabulary)).collect::<Vec<u32>>();
        (tokens(prompt), responses.into_iter().map(&mut tokens).collect())
    })
    .collect()
}
