//! Logits and vectors against transformers and PEFT (`tests/reference/tiny_models.py`, `lora_adapters.py`).
#![allow(clippy::unwrap_used)]

mod recorded;

use models::{Bert, Device, Encoder, EncoderOptions, Policy, Pooling, Trainable, TrainedPart, tensor_to_vec};
use recorded::{apart, decoder, fixture, json, tensor, tensors, tokens, whole};

const TOLERANCE: f32 = 1e-4;

fn sequences(path: &str) -> Vec<Vec<u32>> {
    json(path)["sequences"].as_array().unwrap().iter().map(tokens).collect()
}

#[test]
fn logits_are_those_of_transformers() {
    for name in ["gemma", "llama", "llama_untied"] {
        let model = decoder(name, TrainedPart::Nothing);
        let expected = tensors(&format!("models/{name}/expected.safetensors"));
        for (index, sequence) in sequences(&format!("models/{name}/expected.json")).iter().enumerate() {
            let logits = tensor_to_vec(model.logits(&whole(sequence), Policy::Current).unwrap()).unwrap();
            let apart = apart(&logits, &tensor(&expected, &format!("logits.{index}")));
            assert!(apart < TOLERANCE, "{name}, sequence {index}: {apart}");
        }
    }
}

#[test]
fn logits_with_an_adapter_are_those_of_peft_and_the_reference_policy_is_without_it() {
    for name in ["gemma", "llama_untied"] {
        let mut model = decoder(name, TrainedPart::Nothing);
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

fn bert(name: &str, pooling: Option<Pooling>) -> Bert {
    let options = EncoderOptions {
        device: Device::flex(),
        pooling,
        train: false,
    };
    Bert::load(&fixture(&format!("models/{name}")), &options).unwrap()
}

#[test]
fn vectors_are_those_of_transformers_alone_and_in_a_batch() {
    for name in ["bert", "bert_pooled"] {
        let expected = tensors(&format!("models/{name}/expected.safetensors"));
        let sequences = sequences(&format!("models/{name}/expected.json"));
        let texts: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        for (pooling, label) in [(Pooling::Cls, "cls"), (Pooling::Mean, "mean")] {
            let model = bert(name, Some(pooling));
            let together = model.embed(&texts).unwrap();
            for (index, text) in texts.iter().enumerate() {
                let expected = tensor(&expected, &format!("{label}.{index}"));
                let width = model.dimension();
                let batched = &together[index * width..(index + 1) * width];
                assert!(apart(batched, &expected) < TOLERANCE, "{name} {label} {index}");
                assert!(
                    apart(&model.embed(&[text]).unwrap(), &expected) < TOLERANCE,
                    "{name} {label} {index} alone"
                );
            }
        }
        let model = bert(name, None);
        for (index, text) in texts.iter().enumerate() {
            let expected = tensor(&expected, &format!("last_hidden.{index}"));
            assert!(
                apart(&model.hidden(text).unwrap(), &expected) < TOLERANCE,
                "{name} hidden {index}"
            );
        }
    }
}

/// Vectors without gradients are computed by other code than those with: the same numbers, also after an update, and for
/// a text whatever stands beside it.
#[test]
fn vectors_without_gradients_are_those_that_training_sees() {
    for name in ["bert", "bert_pooled"] {
        let options = EncoderOptions {
            device: Device::flex(),
            pooling: Some(Pooling::Mean),
            train: true,
        };
        let mut model = Bert::load(&fixture(&format!("models/{name}")), &options).unwrap();
        let sequences = sequences(&format!("models/{name}/expected.json"));
        let texts: Vec<&[u32]> = sequences.iter().map(Vec::as_slice).collect();
        let mut before = Vec::new();
        for update in 0..2 {
            let vectors = model.embed(&texts).unwrap();
            let tracked = tensor_to_vec(model.embed_tracked(&texts).unwrap()).unwrap();
            assert!(apart(&vectors, &tracked) < 1e-5, "{name}, update {update}");
            assert_ne!(vectors, before, "{name}: the update changed nothing");
            for (text, vector) in texts.iter().zip(vectors.chunks_exact(model.dimension())) {
                assert_eq!(
                    model.embed(&[text]).unwrap(),
                    vector,
                    "{name}: a vector depends on its batch"
                );
            }
            for id in model.trained().to_vec() {
                let value = model.parameters().get(id);
                model.set_parameter(id, value.mul_scalar(0.9));
            }
            before = vectors;
        }
    }
}

#[test]
fn the_folders_pooling_is_respected() {
    assert_eq!(bert("bert", None).pooling(), Pooling::Cls);
    assert_eq!(bert("bert_pooled", None).pooling(), Pooling::Mean);
}
