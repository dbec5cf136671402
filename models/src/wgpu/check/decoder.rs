//! Language models: two whole updates, each side by itself, and draws.

use std::path::Path;

use burn::tensor::Device;

use super::{Comparison, Report, VALUES, gradients, steps, write_config};
use crate::random::philox;
use crate::reference::{RegressionLoss, drawn};
use crate::{
    Decoder, DecoderOptions, Draws, LanguageModel, LoraConfig, ModelError, PackedBatch, Policy, Prompt, TrainedPart,
    write_initial_decoder,
};

/// Small models of which no size is round.
const SMALL: [(&str, u32, &str); 2] = [
    (
        "gemma, one key head",
        301,
        r#"{"model_type": "gemma", "vocab_size": 301, "hidden_size": 56, "intermediate_size": 104,
            "num_hidden_layers": 3, "num_attention_heads": 6, "num_key_value_heads": 1, "head_dim": 24, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 512}"#,
    ),
    (
        "llama, grouped heads",
        517,
        r#"{"model_type": "llama", "vocab_size": 517, "hidden_size": 96, "intermediate_size": 168,
            "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 64, "hidden_act": "silu",
            "rms_norm_eps": 1e-5, "rope_theta": 500000.0, "max_position_embeddings": 512}"#,
    ),
];

const TEMPERATURE: f64 = 0.8;

pub(super) fn check(device: &Device, seed: u64, folder: &Path, report: Report<'_>) -> Result<(), ModelError> {
    for ((name, vocabulary, config), number) in SMALL.into_iter().zip(0..) {
        write_config(folder, config)?;
        write_initial_decoder(folder, seed + number, 0.08)?;
        let lora = TrainedPart::Lora(LoraConfig {
            rank: 9,
            alpha: 12.0,
            targets: LoraConfig::ALL_TARGETS.iter().map(|&name| name.to_owned()).collect(),
        });
        for (part, trained) in [
            (lora, "adapters"),
            (TrainedPart::LastLayers(1), "last block"),
            (TrainedPart::Full, "everything"),
        ] {
            let load = |device: &Device| {
                let (device, part) = (device.clone(), part.clone());
                Decoder::load(folder, &DecoderOptions { device, part, seed })
            };
            let mut pair = Pair {
                expected: load(&Device::flex())?.into_f64(),
                found: load(device)?,
                name: format!("{name}, {trained}"),
                texts: texts(seed + 100 * number, vocabulary),
                seed,
            };
            // In the second round the adapters' B are not zero.
            for round in 1..=2 {
                pair.train(round, report)?;
            }
            pair.draw(report)?;
        }
    }
    Ok(())
}

/// One model on the processor, in f64, and on the adapter.
struct Pair {
    expected: Decoder,
    found: Decoder,
    name: String,
    texts: Vec<(Vec<u32>, Vec<Vec<u32>>)>,
    seed: u64,
}

impl Pair {
    /// Scores of both policies, the slopes of a loss in them, gradients and a step.
    fn train(&mut self, round: u32, report: Report<'_>) -> Result<(), ModelError> {
        let of = |what: &str| format!("{}: {what}, round {round}", self.name);
        let rows: Vec<(&[u32], Vec<&[u32]>)> = self
            .texts
            .iter()
            .map(|(prompt, responses)| (&prompt[..], responses.iter().map(Vec::as_slice).collect()))
            .collect();
        let batch = PackedBatch::new(rows.iter().map(|(prompt, responses)| (*prompt, &responses[..])));
        let (expected, found) = (&mut self.expected, &mut self.found);
        let (trunk, own_trunk) = (expected.trunk(&batch)?, found.trunk(&batch)?);
        let loss = RegressionLoss::random(&batch, self.seed, 7 + 2 * round);
        let reference = expected.score(&batch, &trunk, Policy::Reference, TEMPERATURE)?;
        let tracked = LanguageModel::score_tracked(expected, &batch, &trunk, TEMPERATURE)?;
        let scores = [reference, tracked.scores.clone()];
        expected.backward(tracked, &loss.slopes(&batch, &scores))?;
        let score = |policy| found.score(&batch, &own_trunk, policy, TEMPERATURE);
        let own = [score(Policy::Reference)?, score(Policy::Current)?];
        for ((policy, scores), own) in [Policy::Reference, Policy::Current].into_iter().zip(&scores).zip(&own) {
            let name = of(&format!("{policy:?} log-probabilities"));
            report(Comparison::new(name, &own.logprobs, &scores.logprobs, VALUES));
            let name = of(&format!("{policy:?} entropies"));
            report(Comparison::new(name, &own.entropies, &scores.entropies, VALUES));
        }
        let tracked = LanguageModel::score_tracked(found, &batch, &own_trunk, TEMPERATURE)?;
        let name = of("log-probabilities with gradients and without, to the bit");
        report(Comparison::new(name, &tracked.scores.logprobs, &own[1].logprobs, 0.0));
        found.backward(tracked, &loss.slopes(&batch, &own))?;
        let rounding = gradients(expected.trainable(), found.trainable(), of("gradients"), report)?;
        let name = of("parameters after a step");
        steps(expected.trainable(), found.trainable(), (name, &rounding), report)
    }

    /// Draws of both from the same random stream: the same tokens, save where two candidates are nearly tied. The processor draws in f32
    /// here, as it does in a run; what the adapter's own tokens had for log-probabilities is compared with f64.
    fn draw(&mut self, report: Report<'_>) -> Result<(), ModelError> {
        const SAMPLES: [u32; 2] = [0, 1];
        let users = self.texts.iter().zip(0..);
        let prompts: Vec<Prompt<'_>> = users
            .flat_map(|((tokens, _), user)| SAMPLES.map(|sample| Prompt { tokens, user, sample }))
            .collect();
        let draws = Draws {
            seed: self.seed,
            update: 3,
            temperature: 1.3,
            limit: 37,
            end_tokens: vec![5, 6, 7],
            slots: 5,
        };
        let responses = self.expected.sample(&prompts, &draws)?;
        let own = self.found.sample(&prompts, &draws)?;
        let (mut same, mut all) = (0, 0);
        for (response, own) in responses.iter().zip(&own) {
            let pairs = response.tokens.iter().zip(&own.tokens);
            same += pairs.take_while(|(token, own)| token == own).count();
            all += response.tokens.len();
        }
        let batch = drawn(self.texts.iter().map(|(prompt, _)| &prompt[..]), &own, SAMPLES.len());
        let trunk = self.expected.trunk(&batch)?;
        let scores = self
            .expected
            .score(&batch, &trunk, Policy::Current, draws.temperature)?;
        let own_logprobs: Vec<f32> = own.iter().flat_map(|response| response.logprobs.clone()).collect();
        let name = format!("{}: sampler's log-probabilities", self.name);
        report(Comparison::new(name, &own_logprobs, &scores.logprobs, 2e-4));
        report(Comparison {
            name: format!("{}: share of tokens drawn otherwise ({all} in all)", self.name),
            error: 1.0 - same as f64 / all.max(1) as f64,
            bound: 0.02,
        });
        Ok(())
    }
}

/// Prompts and their responses: lengths from one token to some hundred.
fn texts(seed: u64, vocabulary: u32) -> Vec<(Vec<u32>, Vec<Vec<u32>>)> {
    let mut counter = 0;
    let mut tokens = |count: usize| -> Vec<u32> {
        let mut next = || {
            counter += 1;
            philox([counter, 0, 0, 78], [seed as u32, (seed >> 32) as u32])[0] % vocabulary
        };
        (0..count).map(|_| next()).collect()
    };
    [
        (1, vec![3]),
        (17, vec![1, 29]),
        (83, vec![40, 0, 12]),
        (130, vec![65, 64]),
    ]
    .into_iter()
    .map(|(prompt, responses)| (tokens(prompt), responses.into_iter().map(&mut tokens).collect()))
    .collect()
}
