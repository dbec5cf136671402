//! Two real models against transformers (`tests/reference/real_models.py`): SmolLM2-135M-Instruct and all-MiniLM-L6-v2.
//! The variable REAL_MODELS names the folder that has both; without it the tests are skipped.
#![allow(clippy::unwrap_used)]

mod recorded;

use std::path::PathBuf;

use models::{
    Bert, Decoder, DecoderOptions, Device, Draws, Encoder, EncoderOptions, LanguageModel, PackedBatch, Policy, Prompt,
};
use recorded::{apart, json, tokens};
use serde_json::Value;

fn folder(name: &str) -> Option<PathBuf> {
    let folder = std::env::var_os("REAL_MODELS").map(|models| PathBuf::from(models).join(name));
    if folder.is_none() {
        eprintln!("skipped: REAL_MODELS does not name the folder of the real models");
    }
    folder
}

fn floats(value: &Value) -> Vec<f32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .filter_map(Value::as_f64)
        .map(|number| number as f32)
        .collect()
}

#[test]
fn log_probabilities_are_those_of_transformers() {
    let Some(folder) = folder("SmolLM2-135M-Instruct") else {
        return;
    };
    let model = Decoder::load(&folder, &DecoderOptions::inference(Device::flex())).unwrap();
    for text in json("real/smollm2.json")["texts"].as_array().unwrap() {
        let tokens = tokens(&text["tokens"]);
        let batch = PackedBatch::sequences(&[&tokens]);
        let trunk = LanguageModel::trunk(&model, &batch).unwrap();
        let scores = model.score(&batch, &trunk, Policy::Current, 1.0).unwrap();
        let apart = apart(&scores.logprobs, &floats(&text["logprobs"]));
        assert!(apart < 2e-3, "{apart}");
    }
}

/// The sampler's own log-probabilities must be the scorer's, up to the order of sums.
#[test]
fn the_sampler_agrees_with_the_scorer_and_with_itself_in_any_batch() {
    let Some(folder) = folder("SmolLM2-135M-Instruct") else {
        return;
    };
    let mut model = Decoder::load(&folder, &DecoderOptions::inference(Device::flex())).unwrap();
    let texts = json("real/smollm2.json");
    let prompts: Vec<Vec<u32>> = texts["texts"]
        .as_array()
        .unwrap()
        .iter()
        .map(|text| tokens(&text["tokens"]))
        .collect();
    let all: Vec<Prompt<'_>> = prompts
        .iter()
        .flat_map(|tokens| {
            (0..2).map(move |sample| Prompt {
                tokens,
                user: tokens.len() as u32,
                sample,
            })
        })
        .collect();
    let draws = |slots| Draws {
        seed: 5,
        update: 1,
        temperature: 1.0,
        limit: 24,
        end_tokens: vec![2],
        slots,
    };
    let together = model.sample(&all, &draws(6)).unwrap();
    let alone: Vec<_> = all
        .iter()
        .rev()
        .flat_map(|&prompt| model.sample(&[prompt], &draws(1)).unwrap())
        .collect();
    assert!(
        together.iter().eq(alone.iter().rev()),
        "a response depends on its batch"
    );
    for (prompt, response) in all.iter().zip(&together) {
        let batch = PackedBatch::new([(prompt.tokens, &[response.tokens.as_slice()][..])]);
        let trunk = LanguageModel::trunk(&model, &batch).unwrap();
        let scores = model.score(&batch, &trunk, Policy::Current, 1.0).unwrap();
        let apart = apart(&scores.logprobs, &response.logprobs);
        assert!(apart < 2e-3, "{apart}");
    }
}

#[test]
fn vectors_are_those_of_transformers() {
    let Some(folder) = folder("all-MiniLM-L6-v2") else {
        return;
    };
    let options = EncoderOptions {
        device: Device::flex(),
        pooling: None,
        train: false,
    };
    let model = Bert::load(&folder, &options).unwrap();
    let recorded = json("real/minilm.json");
    let texts = recorded["texts"].as_array().unwrap();
    let inputs: Vec<Vec<u32>> = texts.iter().map(|text| tokens(&text["tokens"])).collect();
    let vectors = model
        .embed(&inputs.iter().map(Vec::as_slice).collect::<Vec<_>>())
        .unwrap();
    for (found, text) in vectors.chunks_exact(model.dimension()).zip(texts) {
        let expected = floats(&text["vector"]);
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(&x, &y)| f64::from(x) * f64::from(y)).sum::<f64>();
        let cosine = dot(found, &expected) / (dot(found, found) * dot(&expected, &expected)).sqrt();
        assert!(cosine > 0.9999, "{cosine}");
    }
}
