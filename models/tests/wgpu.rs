//! Models on an adapter of this machine, a software one if need be, against the processor and against transformers and PEFT.
#![cfg(feature = "wgpu")]
#![allow(clippy::unwrap_used)]

mod recorded;

use models::{Bert, Decoder, DecoderOptions, Device, Encoder, EncoderOptions, Policy, Pooling, tensor_to_vec, wgpu};
use recorded::{apart, fixture, json, tensor, tensors, tokens, whole};

const TOLERANCE: f32 = 1e-4;

/// The first adapter; `None`, said on stderr, where there is none.
fn device() -> Option<Device> {
    if wgpu::adapters().is_empty() {
        eprintln!("skipped: no adapter is here (Debian: mesa-vulkan-drivers, libvulkan1)");
        return None;
    }
    let (device, adapter) = wgpu::open(0).unwrap();
    eprintln!("on {adapter}");
    Some(device)
}

#[test]
fn what_models_compute_is_what_the_processor_computes() {
    let Some(device) = device() else { return };
    let (mut names, mut bad) = (Vec::new(), Vec::new());
    wgpu::check(&device, 17, &mut |one| {
        names.push(one.name.clone());
        if !one.holds() {
            bad.push(one);
        }
    })
    .unwrap();
    for part in [
        "Gelu, slopes",
        "log-probabilities",
        "gradients",
        "after a step",
        "drawn otherwise",
        "vectors",
    ] {
        assert!(names.iter().any(|name| name.contains(part)), "{part}");
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

fn sequences(path: &str) -> Vec<Vec<u32>> {
    json(path)["sequences"].as_array().unwrap().iter().map(tokens).collect()
}

#[test]
fn logits_with_an_adapter_are_those_of_peft() {
    let Some(device) = device() else { return };
    for name in ["gemma", "llama_untied"] {
        let options = DecoderOptions::inference(device.clone());
        let mut model = Decoder::load(&fixture(&format!("models/{name}")), &options).unwrap();
        model.load_adapter(&fixture(&format!("adapters/{name}"))).unwrap();
        let expected = tensors(&format!("adapters/{name}/expected.safetensors"));
        for (index, sequence) in sequences(&format!("adapters/{name}/expected.json")).iter().enumerate() {
            for (policy, label) in [(Policy::Current, "adapted"), (Policy::Reference, "base")] {
                let logits = tensor_to_vec(model.logits(&whole(sequence), policy).unwrap()).unwrap();
                let apart = apart(&logits, &tensor(&expected, &format!("{label}.{index}")));
                assert!(apart < TOLERANCE, "{name} {label}, sequence {index}: {apart}");
            }
        }
    }
}

#[test]
fn vectors_are_those_of_transformers() {
    let Some(device) = device() else { return };
    for name in ["bert", "bert_pooled"] {
        let expected = tensors(&format!("models/{name}/expected.safetensors"));
        let sequences = sequences(&format!("models/{name}/expected.json"));
        let texts: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        for (pooling, label) in [(Pooling::Cls, "cls"), (Pooling::Mean, "mean")] {
            let options = EncoderOptions {
                device: device.clone(),
                pooling: Some(pooling),
                train: false,
            };
            let model = Bert::load(&fixture(&format!("models/{name}")), &options).unwrap();
            let vectors = model.embed(&texts).unwrap();
            for (index, vector) in vectors.chunks_exact(model.dimension()).enumerate() {
                let apart = apart(vector, &tensor(&expected, &format!("{label}.{index}")));
                assert!(apart < TOLERANCE, "{name} {label} {index}: {apart}");
            }
        }
    }
}

#[test]
fn an_adapter_that_is_not_there_is_named_with_those_that_are() {
    let Some(_) = device() else { return };
    let error = wgpu::open(4711).unwrap_err().to_string();
    assert!(
        error.contains("wgpu:4711") && error.contains("counted from 0: "),
        "{error}"
    );
}
