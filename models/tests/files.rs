//! What is wrong with a model folder is said, and what is saved loads again.
#![allow(clippy::unwrap_used)]

mod recorded;

use std::fs;
use std::path::Path;

use models::{
    Bert, Decoder, DecoderOptions, Device, Encoder, EncoderOptions, LanguageModel, Policy, TrainedPart, tensor_to_vec,
};
use recorded::{decoder, fixture, whole};

fn copy(name: &str, to: &Path) {
    for entry in fs::read_dir(fixture(&format!("models/{name}"))).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
        }
    }
}

fn error_of(folder: &Path) -> String {
    Decoder::load(folder, &DecoderOptions::inference(Device::flex()))
        .unwrap_err()
        .to_string()
}

fn edit_config(folder: &Path, from: &str, to: &str) {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).unwrap();
}

#[test]
fn a_truncated_file_is_named() {
    let folder = tempfile::tempdir().unwrap();
    copy("llama", folder.path());
    let path = folder.path().join("model.safetensors");
    let bytes = fs::read(&path).unwrap();
    fs::write(&path, &bytes[..bytes.len() / 2]).unwrap();
    let error = error_of(folder.path());
    assert!(
        error.contains("model.safetensors") && error.contains("not a whole safetensors file"),
        "{error}"
    );
}

#[test]
fn missing_and_unexpected_parameters_are_named() {
    let folder = tempfile::tempdir().unwrap();
    copy("llama", folder.path());
    edit_config(folder.path(), "\"num_hidden_layers\": 3", "\"num_hidden_layers\": 4");
    let error = error_of(folder.path());
    assert!(
        error.contains("missing") && error.contains("model.layers.3."),
        "{error}"
    );
    edit_config(folder.path(), "\"num_hidden_layers\": 4", "\"num_hidden_layers\": 1");
    let error = error_of(folder.path());
    assert!(
        error.contains("no place") && error.contains("model.layers.1."),
        "{error}"
    );
}

#[test]
fn a_wrong_shape_is_named_with_both_shapes() {
    let folder = tempfile::tempdir().unwrap();
    copy("llama", folder.path());
    edit_config(folder.path(), "\"vocab_size\": 320", "\"vocab_size\": 321");
    let error = error_of(folder.path());
    assert!(
        error.contains("model.embed_tokens.weight") && error.contains("[320, ") && error.contains("[321, "),
        "{error}"
    );
}

#[test]
fn an_unknown_architecture_is_named_with_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    copy("llama", folder.path());
    edit_config(folder.path(), "\"model_type\": \"llama\"", "\"model_type\": \"mamba\"");
    let error = error_of(folder.path());
    assert!(
        error.contains("`mamba`") && error.contains("gemma and llama"),
        "{error}"
    );
}

#[test]
fn an_index_that_leaves_the_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    copy("gemma", folder.path());
    let path = folder.path().join("model.safetensors.index.json");
    let text = fs::read_to_string(&path)
        .unwrap()
        .replace("model-00001-of", "../model-00001-of");
    fs::write(&path, text).unwrap();
    assert!(error_of(folder.path()).contains("not a plain file name"));
}

#[test]
fn a_tokenizer_larger_than_the_embedding_is_refused() {
    let model = decoder("llama", TrainedPart::Nothing);
    assert!(model.check_tokenizer(320).is_ok());
    let error = model.check_tokenizer(400).unwrap_err().to_string();
    assert!(error.contains("399") && error.contains("320"), "{error}");
}

#[test]
fn a_saved_model_loads_with_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let model = decoder("llama_untied", TrainedPart::LastLayers(1));
    model.save(folder.path()).unwrap();
    let again = Decoder::load(folder.path(), &DecoderOptions::inference(Device::flex())).unwrap();
    let logits =
        |model: &Decoder| tensor_to_vec(model.logits(&whole(&[3, 50, 200]), Policy::Reference).unwrap()).unwrap();
    assert_eq!(logits(&model), logits(&again));
}

#[test]
fn a_saved_adapter_loads_with_the_same_logits() {
    let folder = tempfile::tempdir().unwrap();
    let mut model = decoder("gemma", TrainedPart::Nothing);
    model.load_adapter(&fixture("adapters/gemma")).unwrap();
    model.save(folder.path()).unwrap();
    let mut again = decoder("gemma", TrainedPart::Nothing);
    again.load_adapter(folder.path()).unwrap();
    let logits =
        |model: &Decoder| tensor_to_vec(model.logits(&whole(&[3, 50, 200]), Policy::Current).unwrap()).unwrap();
    assert_eq!(logits(&model), logits(&again));
}

#[test]
fn a_saved_encoder_loads_with_its_pooling_and_vectors() {
    let folder = tempfile::tempdir().unwrap();
    let options = EncoderOptions {
        device: Device::flex(),
        pooling: None,
        train: false,
    };
    let model = Bert::load(&fixture("models/bert_pooled"), &options).unwrap();
    model.save(folder.path()).unwrap();
    let again = Bert::load(folder.path(), &options).unwrap();
    assert_eq!(again.pooling(), model.pooling());
    let texts: [&[u32]; 2] = [&[5, 6, 7], &[9]];
    assert_eq!(model.embed(&texts).unwrap(), again.embed(&texts).unwrap());
}
