//! Token ids against transformers: `tests/reference/templates.py` recorded them.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use models::text::{PromptTemplate, SpecialTokens, Tokenizer};
use serde_json::Value;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn recorded(name: &str) -> Value {
    let path = fixtures().join("templates").join(format!("{name}.json"));
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn check_plain(recorded: &Value, tokenizer: &Tokenizer) {
    let rows = recorded["plain"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let input = text(&row["text"]);
        let bare = tokenizer.encode(input, SpecialTokens::None).unwrap();
        assert_eq!(bare, ids(&row["ids"]), "{input:?}");
        let whole = tokenizer.encode(input, SpecialTokens::Add).unwrap();
        assert_eq!(whole, ids(&row["with_special"]), "{input:?}");
        assert_eq!(tokenizer.decode(&bare).unwrap(), text(&row["decoded"]));
    }
}

/// Conversations of one user turn with the generation prompt, which is what prompts are.
fn check_chat(recorded: &Value, folder: &Path, tokenizer: &Tokenizer) {
    let template = PromptTemplate::chat(folder).unwrap();
    let rows = recorded["chat"].as_array().unwrap();
    let prompts = rows
        .iter()
        .filter(|row| row["messages"].as_array().unwrap().len() == 1 && row["add_generation_prompt"] == true);
    let mut checked = 0;
    for row in prompts {
        let prompt = text(&row["messages"][0]["content"]);
        assert_eq!(template.render(prompt).unwrap(), text(&row["rendered"]));
        assert_eq!(
            template.encode(tokenizer, prompt).unwrap(),
            ids(&row["ids"]),
            "{prompt:?}"
        );
        checked += 1;
    }
    assert!(checked >= 7, "{checked} prompts checked");
}

fn check_cut(recorded: &Value, tokenizer: &Tokenizer) {
    let rows = recorded["cut"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let limit = row["limit"].as_u64().unwrap() as usize;
        let cut = tokenizer.encode_limited(text(&row["text"]), limit).unwrap();
        assert_eq!(cut, ids(&row["ids"]), "cut at {limit}");
    }
}

/// A real model's folder, or `None` with a note.
fn real_folder(path: &str) -> Option<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path);
    let there = folder.join("tokenizer.json").is_file();
    if !there {
        eprintln!("skipped: {} is not there", folder.display());
    }
    there.then_some(folder)
}

#[test]
fn llama_like_texts_and_chats_tokenize_as_in_transformers() {
    for name in ["llama3-like", "llama3-like-config"] {
        let folder = fixtures().join("tokenizers").join(name);
        let tokenizer = Tokenizer::open(&folder).unwrap();
        let recorded = recorded(name);
        check_plain(&recorded, &tokenizer);
        check_chat(&recorded, &folder, &tokenizer);
    }
}

#[test]
fn gemma_like_texts_and_prompts_tokenize_as_in_transformers() {
    let tokenizer = Tokenizer::open(&fixtures().join("tokenizers/gemma-like")).unwrap();
    let recorded = recorded("gemma-like");
    check_plain(&recorded, &tokenizer);
    let rows = recorded["gemma"].as_array().unwrap();
    assert!(!rows.is_empty());
    for row in rows {
        let prompt = text(&row["prompt"]);
        assert_eq!(PromptTemplate::Gemma.render(prompt).unwrap(), text(&row["rendered"]));
        let prompt_ids = PromptTemplate::Gemma.encode(&tokenizer, prompt).unwrap();
        assert_eq!(prompt_ids, ids(&row["ids"]), "{prompt:?}");
    }
}

#[test]
fn bert_like_texts_tokenize_and_are_cut_as_in_transformers() {
    let tokenizer = Tokenizer::open(&fixtures().join("tokenizers/bert-like")).unwrap();
    let recorded = recorded("bert-like");
    check_plain(&recorded, &tokenizer);
    check_cut(&recorded, &tokenizer);
}

#[test]
fn smollm2_texts_and_chats_tokenize_as_in_transformers() {
    let Some(folder) = real_folder("shared/models/smollm2-135m-instruct") else {
        return;
    };
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let recorded = recorded("smollm2");
    check_plain(&recorded, &tokenizer);
    check_chat(&recorded, &folder, &tokenizer);
    assert_eq!(
        (tokenizer.bos(), tokenizer.eos(), tokenizer.pad()),
        (Some(1), Some(2), Some(2))
    );
    assert_eq!(tokenizer.vocabulary_size(), 49_152);
}

#[test]
fn minilm_texts_tokenize_and_are_cut_as_in_transformers() {
    let Some(models) = std::env::var_os("REAL_MODELS").map(PathBuf::from) else {
        eprintln!("skipped: REAL_MODELS does not name the folder of the real models");
        return;
    };
    let folder = models.join("all-MiniLM-L6-v2");
    let tokenizer = Tokenizer::open(&folder).unwrap();
    let recorded = recorded("minilm");
    check_plain(&recorded, &tokenizer);
    check_cut(&recorded, &tokenizer);
    assert_eq!(tokenizer.vocabulary_size(), 30_522);
}
