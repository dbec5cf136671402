//! Losses, gradients and optimizer steps against PyTorch in float64 (`tests/reference/training_steps.py`).
#![allow(clippy::unwrap_used)]

#[path = "../../models/tests/recorded/mod.rs"]
mod recorded;

use models::{
    AdamConfig, Bert, CheckpointReader, Decoder, Device, Encoder, EncoderOptions, Gradient, LanguageModel, PackedBatch,
    Policy, Pooling, Scores, Trainable, TrainedPart,
};
use recorded::{decoder, fixture, json, numbers, relative, tensor, tensors, tokens};
use serde_json::Value;
use trainer::reward::{total_reward, whiten};
use trainer::train::loss::{Pair, pair_loss};

const TOLERANCE: f64 = 1e-5;

struct User {
    prompt: Vec<u32>,
    responses: [Vec<u32>; 2],
    rewards: Vec<f64>,
}

fn users(recorded: &Value) -> Vec<User> {
    let users = recorded["users"].as_array().unwrap().iter();
    users
        .map(|user| User {
            prompt: tokens(&user["prompt"]),
            responses: [tokens(&user["responses"][0]), tokens(&user["responses"][1])],
            rewards: numbers(&user["rewards"]),
        })
        .collect()
}

fn adapted_gemma() -> (Decoder, &'static str, &'static str) {
    let mut model = decoder("gemma", TrainedPart::Nothing);
    model.load_adapter(&fixture("adapters/gemma")).unwrap();
    (model, "rl_gemma_lora", "base_model.model.")
}

fn last_block_llama() -> (Decoder, &'static str, &'static str) {
    (
        decoder("llama_untied", TrainedPart::LastLayers(1)),
        "rl_llama_last1",
        "",
    )
}

fn whole_llama() -> (Decoder, &'static str, &'static str) {
    (decoder("llama_biased", TrainedPart::Full), "rl_llama_full", "")
}

fn response_sums(scores: &Scores, batch: &PackedBatch) -> Vec<f64> {
    let sum = |range: &std::ops::Range<usize>| scores.logprobs[range.clone()].iter().map(|&x| f64::from(x)).sum();
    batch.responses().iter().map(sum).collect()
}

fn check_rl((mut model, name, prefix): (Decoder, &str, &str)) {
    let recorded = json(&format!("training/{name}.json"));
    let expected = tensors(&format!("training/{name}.safetensors"));
    let users = users(&recorded);
    let eta = recorded["eta"].as_f64().unwrap();
    let rows: Vec<[&[u32]; 2]> = users
        .iter()
        .map(|user| user.responses.each_ref().map(Vec::as_slice))
        .collect();
    let batch = PackedBatch::new(
        users
            .iter()
            .zip(&rows)
            .map(|(user, responses)| (user.prompt.as_slice(), &responses[..])),
    );
    let trunk = model.trunk(&batch).unwrap();
    for (label, result) in recorded["results"].as_object().unwrap() {
        let temperature = result["temperature"].as_f64().unwrap();
        let old: Vec<Vec<f64>> = result["log_pi_old"].as_array().unwrap().iter().map(numbers).collect();
        let plain = model.score(&batch, &trunk, Policy::Current, temperature).unwrap();
        let tracked = LanguageModel::score_tracked(&mut model, &batch, &trunk, temperature).unwrap();
        let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
        assert_eq!(
            bits(&plain.logprobs),
            bits(&tracked.scores.logprobs),
            "{name}: scores with and without gradients"
        );

        let flat = |field: &str| -> Vec<f32> {
            let pairs = result[field].as_array().unwrap().iter();
            pairs
                .flat_map(|pair| pair.as_array().unwrap().iter().flat_map(numbers))
                .map(|v| v as f32)
                .collect()
        };
        assert!(
            relative(&plain.logprobs, &flat("token_logprobs")) < TOLERANCE,
            "{name} {label} log-probs"
        );
        assert!(
            relative(&plain.entropies, &flat("entropy")) < TOLERANCE,
            "{name} {label} entropies"
        );

        let log_pi = response_sums(&tracked.scores, &batch);
        let mut slopes = vec![0.0; tracked.scores.logprobs.len()];
        let mut found: Vec<f32> = Vec::new();
        let pairs = log_pi.as_chunks().0.iter().zip(batch.responses().as_chunks().0);
        for ((user, old), (&log_pi, [first, second])) in users.iter().zip(&old).zip(pairs) {
            let pair = Pair {
                old: [old[0], old[1]],
                rewards: [user.rewards[0], user.rewards[1]],
            };
            let loss = pair_loss(log_pi, pair, eta);
            found.push(loss.value as f32);
            loss.spread(1.0 / users.len() as f64, [first, second], &mut slopes);
        }
        let wanted: Vec<f32> = numbers(&result["pair_losses"]).iter().map(|&v| v as f32).collect();
        assert!(
            relative(&found, &wanted) < TOLERANCE,
            "{name} {label}: {found:?} {wanted:?}"
        );
        LanguageModel::backward(&mut model, tracked, &slopes).unwrap();
        check_gradients(
            LanguageModel::trainable(&mut model),
            &expected,
            &format!("grad_{label}.{prefix}"),
            &Value::Null,
        );
    }
}

/// Compares every gradient; those that `zero` names cancel to rounding errors and are only checked to be small.
fn check_gradients(model: &mut dyn Trainable, expected: &CheckpointReader, prefix: &str, zero: &Value) {
    let size = |values: &[f32]| values.iter().fold(0.0f32, |most, value| most.max(value.abs()));
    for (index, spec) in model.trained().iter().enumerate() {
        let name = format!("{prefix}{}", spec.name);
        let Some(Gradient { value: found, .. }) = model.gradient(index).unwrap() else {
            assert!(!expected.contains(&name), "{name} has no gradient here");
            continue;
        };
        let cancels = zero
            .as_array()
            .is_some_and(|names| names.iter().any(|zero| name.ends_with(zero.as_str().unwrap())));
        if cancels {
            assert!(size(&found) < 1e-4, "{name} should cancel: {}", size(&found));
        } else {
            let apart = relative(&found, &tensor(expected, &name));
            assert!(apart < TOLERANCE, "{name}: {apart:e}");
        }
    }
    model.clear_gradients().unwrap();
}

#[test]
fn the_loss_and_its_gradients_in_an_adapter_are_those_of_pytorch() {
    check_rl(adapted_gemma());
}

#[test]
fn the_loss_and_its_gradients_in_the_last_block_are_those_of_pytorch() {
    check_rl(last_block_llama());
}

/// Its biases and its embedding, which is the head, too.
#[test]
fn the_loss_and_its_gradients_in_a_whole_model_are_those_of_pytorch() {
    check_rl(whole_llama());
}

#[test]
fn optimizer_steps_are_those_of_pytorch() {
    for load in [adapted_gemma, last_block_llama] {
        let (_, name, prefix) = load();
        let recorded = json(&format!("training/{name}.json"));
        let expected = tensors(&format!("training/{name}.safetensors"));
        for (label, settings) in recorded["adamw"].as_object().unwrap() {
            let (mut model, ..) = load();
            let number = |field: &str| settings[field].as_f64().unwrap();
            let betas = numbers(&settings["betas"]);
            let config = AdamConfig {
                lr: number("lr"),
                betas: (betas[0], betas[1]),
                eps: number("eps"),
                weight_decay: number("weight_decay"),
                decoupled: true,
            };
            let model = LanguageModel::trainable(&mut model);
            let specs = model.trained().to_vec();
            for (step, grad) in ["t1", "t0.7"].into_iter().enumerate() {
                let values = |model: &dyn Trainable| -> Vec<Vec<f32>> {
                    (0..specs.len()).map(|index| model.values(index).unwrap()).collect()
                };
                let before = values(model);
                for (index, spec) in specs.iter().enumerate() {
                    let value = tensor(&expected, &format!("grad_{grad}.{prefix}{}", spec.name));
                    model.set_gradient(index, Some(Gradient { value, rest: None })).unwrap();
                }
                model.step(&config, 1.0).unwrap();
                for ((spec, before), after) in specs.iter().zip(before).zip(values(model)) {
                    let name = format!("{label}.{}.{prefix}{}", step + 1, spec.name);
                    let moved: Vec<f32> = before
                        .iter()
                        .zip(&after)
                        .map(|(&w0, &w1)| ((f64::from(w1) - f64::from(w0)) / config.lr) as f32)
                        .collect();
                    let wanted = tensor(&expected, &name);
                    // The result is rounded to f32 at the size of the weight: that much of an update cannot be compared.
                    let size = before.iter().fold(1e-3f32, |most, w| most.max(w.abs()));
                    let rounding = f64::from(size) * 2f64.powi(-24) / config.lr;
                    let apart = relative(&moved, &wanted);
                    assert!(apart < TOLERANCE + rounding, "{name}: {apart:e}, rounding {rounding:e}");
                }
            }
        }
    }
}

#[test]
fn the_contrastive_loss_and_its_gradients_are_those_of_pytorch() {
    let recorded = json("training/infonce_bert.json");
    let expected = tensors("training/infonce_bert.safetensors");
    for (pooling, label) in [(Pooling::Cls, "cls"), (Pooling::Mean, "mean")] {
        let options = EncoderOptions {
            device: Device::flex(),
            pooling: Some(pooling),
            train: true,
        };
        let mut model = Bert::load(&fixture("models/bert"), &options).unwrap();
        let pairs = recorded["pairs"].as_array().unwrap();
        let texts = |side: &str| pairs.iter().map(|pair| tokens(&pair[side])).collect::<Vec<_>>();
        let (profiles, targets) = (texts("profile"), texts("target"));
        let all: Vec<&[u32]> = profiles.iter().chain(&targets).map(Vec::as_slice).collect();
        let contrasted = model.contrast(&all, recorded["tau"].as_f64().unwrap(), 1).unwrap();
        let scores: Vec<f32> = recorded["results"][label]["scores"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(numbers)
            .map(|score| score as f32)
            .collect();
        assert!(relative(&contrasted.similarities, &scores) < TOLERANCE);
        let found = [contrasted.loss as f32];
        let wanted = [recorded["results"][label]["loss"].as_f64().unwrap() as f32];
        assert!(relative(&found, &wanted) < TOLERANCE, "{label}: {found:?} {wanted:?}");
        let zero = &recorded["results"][label]["zero_up_to_rounding"];
        check_gradients(model.trainable(), &expected, &format!("grad_{label}.bert."), zero);
    }
}

#[test]
fn total_rewards_and_whitening_are_those_of_pytorch() {
    let recorded = json("training/rewards.json");
    let column = |field: &str| numbers(&recorded[field]);
    let (reward, old, reference) = (column("reward"), column("log_pi_old"), column("log_pi_ref"));
    let close = |found: &[f64], wanted: &[f64]| {
        found
            .iter()
            .zip(wanted)
            .all(|(a, b)| (a - b).abs() < 1e-9 * b.abs().max(1.0))
    };
    for case in recorded["cases"].as_array().unwrap() {
        let kl_coef = case["kl_coef"].as_f64().unwrap();
        let mut totals: Vec<f64> = (0..reward.len())
            .map(|i| total_reward(reward[i], kl_coef, old[i], reference[i]))
            .collect();
        assert!(close(&totals, &numbers(&case["total"])));
        whiten(&mut totals);
        assert!(close(&totals, &numbers(&case["whitened"])));
    }
    let mut constant = numbers(&recorded["constant"]["total"]);
    whiten(&mut constant);
    assert!(close(&constant, &numbers(&recorded["constant"]["whitened"])));
}
