//! Logits and vectors against transformers and PEFT (`tests/reference/tiny_models.py`, `lora_adapters.py`).
#![allow(clippy::unwrap_used)]

mod recorded;

use models::{
    Bert, Decoder, DecoderOptions, Device, Dtype, Encoder, EncoderOptions, Policy, Pooling, TrainedPart, tensor_to_vec,
};
use recorded::{apart, decoder, fixture, json, tensor, tensors, tokens, whole};

const TOLERANCE: f32 = 1e-4;

fn sequences(path: &str) -> Vec<Vec<u32>> {
    json(path)["sequences"].as_array().unwrap().iter().map(tokens).collect()
}

#[test]
fn logits_are_those_of_transformers() {
    for name in ["gemma", "llama", "llama_untied", "llama_biased"] {
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

#[test]
fn a_merged_model_has_the_logits_of_the_adapted_one_and_a_head_of_its_own() {
    for (name, tied) in [("gemma", true), ("llama_untied", false)] {
        let mut adapted = decoder(name, TrainedPart::Nothing);
        adapted.load_adapter(&fixture(&format!("adapters/{name}"))).unwrap();
        let expected = tensors(&format!("adapters/{name}/expected.safetensors"));
        // Rounding of weights to 11 and to 8 bits shows in the logits of these models, eight times as much in the latter.
        for (dtype, tolerance) in [(Dtype::F32, TOLERANCE), (Dtype::F16, 0.03), (Dtype::Bf16, 0.3)] {
            let folder = tempfile::tempdir().unwrap();
            let merged = adapted.save_merged(folder.path(), dtype).unwrap();
            assert_eq!(merged.untied, tied, "{name}");
            assert_eq!(merged.adapters, 7 * adapted.plan().layers + 1, "{name}");
            let model = Decoder::load(folder.path(), &DecoderOptions::inference(Device::flex())).unwrap();
            assert!(!model.plan().tied, "{name}");
            for (index, sequence) in sequences(&format!("adapters/{name}/expected.json")).iter().enumerate() {
                let logits = tensor_to_vec(model.logits(&whole(sequence), Policy::Current).unwrap()).unwrap();
                let apart = apart(&logits, &tensor(&expected, &format!("adapted.{index}")));
                assert!(apart < tolerance, "{name} {dtype:?}, sequence {index}: {apart}");
            }
        }
    }
}

#[test]
fn merging_nothing_writes_the_model_as_it_is_tied() {
    let model = decoder("gemma", TrainedPart::Nothing);
    let folder = tempfile::tempdir().unwrap();
    let merged = model.save_merged(folder.path(), Dtype::F32).unwrap();
    assert_eq!((merged.adapters, merged.untied), (0, false));
    let again = Decoder::load(folder.path(), &DecoderOptions::inference(Device::flex())).unwrap();
    assert!(again.plan().tied);
    for id in model.weights().ids() {
        assert_eq!(again.weights().spec(id), model.weights().spec(id));
        assert_eq!(again.weights().to_vec(id).unwrap(), model.weights().to_vec(id).unwrap());
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
            let tracked = model.embed_tracked(&texts).unwrap().vectors;
            assert!(apart(&vectors, &tracked) < 1e-5, "{name}, update {update}");
            assert_ne!(vectors, before, "{name}: the update changed nothing");
            for (text, vector) in texts.iter().zip(vectors.chunks_exact(model.dimension())) {
                assert_eq!(
                    model.embed(&[text]).unwrap(),
                    vector,
                    "{name}: a vector depends on its batch"
                );
            }
            let trainable = model.trainable();
            for index in 0..trainable.trained().len() {
                let values = trainable.values(index).unwrap();
                let less = values.into_iter().map(|value| 0.9 * value).collect();
                trainable.set_values(index, less).unwrap();
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
