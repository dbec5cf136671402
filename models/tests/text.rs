//! Tokenizers and prompt templates on small hand-made model folders.
#![allow(clippy::unwrap_used)]

use std::{fs, path::Path};

use models::text::{PromptTemplate, SpecialTokens, TextError, Tokenizer};
use serde_json::{Value, json};
use tempfile::TempDir;

/// A word-level tokenizer that surrounds a text with CLS and SEP, and whose file truncates to 4 tokens and pads to 8.
fn bert_like() -> Value {
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
            "pad_type_id": 0, "pad_token": "[PAD]"},
        "added_tokens": [
            added(0, "[PAD]"), added(1, "[CLS]"), added(2, "[SEP]"), added(10, "<late>"),
        ],
        "normalizer": null,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [{"SpecialToken": {"id": "[CLS]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}}],
            "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [1], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [2], "tokens": ["[SEP]"]},
            },
        },
        "decoder": null,
        "model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {
            "[PAD]": 0, "[CLS]": 1, "[SEP]": 2, "[UNK]": 3, "a": 4, "b": 5, "c": 6, "d": 7, "e": 8, "f": 19}},
    })
}

fn added(id: u32, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
        "special": true})
}

fn folder(files: &[(&str, String)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn tokenizer(config: &Value) -> Tokenizer {
    let folder = folder(&[
        ("tokenizer.json", bert_like().to_string()),
        ("tokenizer_config.json", config.to_string()),
    ]);
    Tokenizer::open(folder.path()).unwrap()
}

fn chat(template: &str, config: Value) -> Result<PromptTemplate, TextError> {
    let mut config = config;
    config["chat_template"] = template.into();
    let folder = folder(&[("tokenizer_config.json", config.to_string())]);
    PromptTemplate::chat(folder.path())
}

#[test]
fn the_files_truncation_and_padding_are_ignored() {
    let tokenizer = tokenizer(&json!({}));
    let ids = tokenizer.encode("a b c d e f", SpecialTokens::Add).unwrap();
    assert_eq!(ids, [1, 4, 5, 6, 7, 8, 19, 2]);
    assert_eq!(tokenizer.encode("a b", SpecialTokens::None).unwrap(), [4, 5]);
}

#[test]
fn a_limit_cuts_the_middle_and_keeps_the_special_tokens() {
    let tokenizer = tokenizer(&json!({}));
    let start = tokenizer.encode_limited("a b c d", 4).unwrap();
    assert_eq!(start, [1, 4, 5, 2]);
    let end = tokenizer.encode_limited_to_end("a b c d", 4).unwrap();
    assert_eq!(end, [1, 6, 7, 2]);
    assert_eq!(
        tokenizer.encode_limited("a b", 4).unwrap(),
        [1, 4, 5, 2],
        "what fits stays whole"
    );
    let error = tokenizer.encode_limited("a", 2).unwrap_err();
    assert!(matches!(error, TextError::LimitTooSmall { limit: 2, special: 2 }));
}

#[test]
fn a_batch_keeps_its_order() {
    let tokenizer = tokenizer(&json!({}));
    let texts: Vec<String> = (0..200)
        .map(|n| if n % 2 == 0 { "a" } else { "b c" }.to_owned())
        .collect();
    let ids = tokenizer.encode_batch(&texts, SpecialTokens::None).unwrap();
    for (n, ids) in ids.iter().enumerate() {
        assert_eq!(ids.as_slice(), if n % 2 == 0 { &[4][..] } else { &[5, 6][..] });
    }
    let limited = tokenizer.encode_batch_limited(&texts[..2], 3).unwrap();
    assert_eq!(limited, [vec![1, 4, 2], vec![1, 5, 2]]);
}

#[test]
fn decoding_drops_special_tokens() {
    let tokenizer = tokenizer(&json!({}));
    assert_eq!(tokenizer.decode(&[1, 4, 5, 2, 0]).unwrap(), "a b");
}

#[test]
fn the_vocabulary_reaches_to_the_largest_id_over_gaps() {
    assert_eq!(tokenizer(&json!({})).vocabulary_size(), 20);
}

#[test]
fn special_tokens_are_named_as_text_or_as_an_object() {
    let tokenizer = tokenizer(&json!({
        "bos_token": "[CLS]", "eos_token": {"content": "[SEP]", "lstrip": false}, "pad_token": null,
    }));
    assert_eq!(tokenizer.bos(), Some(1));
    assert_eq!(tokenizer.eos(), Some(2));
    assert_eq!(tokenizer.pad(), Some(0), "from the padding of tokenizer.json");
}

#[test]
fn the_end_tokens_of_generation_do_not_replace_the_tokenizers() {
    let files = |config: Value| {
        folder(&[
            ("tokenizer.json", bert_like().to_string()),
            ("tokenizer_config.json", config.to_string()),
            ("generation_config.json", json!({"eos_token_id": [5, 6]}).to_string()),
        ])
    };
    let named = files(json!({"eos_token": "[SEP]"}));
    let tokenizer = Tokenizer::open(named.path()).unwrap();
    assert_eq!((tokenizer.eos(), tokenizer.generation_eos()), (Some(2), &[5, 6][..]));
    let silent = files(json!({}));
    assert_eq!(Tokenizer::open(silent.path()).unwrap().eos(), Some(5));
}

#[test]
fn the_gemma_form_has_one_bos_and_no_newline_at_the_end() {
    let template = PromptTemplate::Gemma;
    assert_eq!(
        template.render("a b").unwrap(),
        "<start_of_turn>user\na b<end_of_turn>\n<start_of_turn>model"
    );
    let with_bos = tokenizer(&json!({"bos_token": "[CLS]"}));
    // Split at white space the rendered form is three unknown words around `b<end_of_turn>`, which is unknown too.
    assert_eq!(template.encode(&with_bos, "a b").unwrap(), [1, 3, 4, 3, 3]);
    let without_bos = tokenizer(&json!({}));
    assert_eq!(template.encode(&without_bos, "a b").unwrap(), [3, 4, 3, 3]);
}

#[test]
fn a_chat_template_writes_its_own_bos_once() {
    let template = chat(
        "{{ bos_token }} {{ messages[0]['content'].strip() }} {{ eos_token }}",
        json!({"bos_token": "[CLS]", "eos_token": "[SEP]"}),
    )
    .unwrap();
    let tokenizer = tokenizer(&json!({"bos_token": "[CLS]"}));
    assert_eq!(template.encode(&tokenizer, " a b ").unwrap(), [1, 4, 5, 2]);
}

#[test]
fn block_tags_eat_their_line_as_in_transformers() {
    let source = "{% for message in messages %}\n    {% if message.role == 'user' %}\n{{ message.content }}!\n    {% endif %}\n{% endfor %}\n{% if add_generation_prompt %}\nmodel:\n{% endif %}\n";
    let template = chat(source, json!({})).unwrap();
    assert_eq!(template.render("hi").unwrap(), "hi!\nmodel:\n");
}

#[test]
fn json_in_a_template_is_spaced_as_python_does() {
    let template = chat("{{ [1, 'é<', none, true] | tojson }}", json!({})).unwrap();
    assert_eq!(template.render("").unwrap(), r#"[1, "é<", null, true]"#);
}

#[test]
fn the_file_comes_before_the_configuration_and_default_before_other_names() {
    let config = json!({"chat_template": [
        {"name": "tool_use", "template": "tools"}, {"name": "default", "template": "{{ messages[0].content }}"},
    ]});
    let named = folder(&[("tokenizer_config.json", config.to_string())]);
    let template = PromptTemplate::chat(named.path()).unwrap();
    assert_eq!(template.render("x").unwrap(), "x");

    let both = folder(&[
        ("tokenizer_config.json", config.to_string()),
        ("chat_template.jinja", "file".to_owned()),
    ]);
    let template = PromptTemplate::chat(both.path()).unwrap();
    assert_eq!(template.render("x").unwrap(), "file");
}

#[test]
fn template_errors_name_the_file_and_what_to_do() {
    let none = folder(&[]);
    let error = PromptTemplate::chat(none.path()).unwrap_err().to_string();
    assert!(error.contains("has no chat template"), "{error}");

    let refused = chat("{{ raise_exception('system turn needed') }}", json!({}));
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("tokenizer_config.json"), "{error}");
    assert!(error.contains("system turn needed"), "{error}");

    let broken = chat("line one\n{% if %}", json!({})).unwrap_err().to_string();
    assert!(broken.contains("line 2"), "{broken}");
}

#[test]
fn tokenizer_errors_name_the_file_and_the_line() {
    let error = Tokenizer::open(Path::new("no-such-folder")).unwrap_err();
    assert!(matches!(error, TextError::Read { .. }), "{error}");
    assert!(error.to_string().contains("no-such-folder"), "{error}");

    let broken = folder(&[
        ("tokenizer.json", bert_like().to_string()),
        ("tokenizer_config.json", "{\n\"bos_token\": ]".to_owned()),
    ]);
    let error = Tokenizer::open(broken.path()).unwrap_err();
    assert!(matches!(error, TextError::Json { line: 2, .. }), "{error}");

    let wrong = folder(&[
        ("tokenizer.json", bert_like().to_string()),
        ("tokenizer_config.json", json!({"bos_token": 7}).to_string()),
    ]);
    let error = Tokenizer::open(wrong.path()).unwrap_err().to_string();
    assert!(error.contains("`bos_token`"), "{error}");

    let half = folder(&[("tokenizer.json", "{\"version\"".to_owned())]);
    let error = Tokenizer::open(half.path()).unwrap_err();
    assert!(matches!(error, TextError::Tokenizer { .. }), "{error}");
}
