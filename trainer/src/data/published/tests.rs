//! Sets written by `tests/reference/published_sets.py`, an export and back, and what is wrong with a set.
#![allow(clippy::unwrap_used)]

use std::fs;

use serde::Deserialize;
use tempfile::TempDir;

use super::*;
use crate::data::{DataError, Dataset, DatasetSource, Item, ModelName, Preparation, Rules, TemplateForm, User};

fn fixtures() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

#[derive(Deserialize)]
struct Expected {
    instruction: String,
    prompt_length: usize,
    item_length: usize,
    items: Vec<ExpectedItem>,
    gemma: ExpectedSplits,
    llama: ExpectedSplits,
}

#[derive(Deserialize)]
struct ExpectedItem {
    text: String,
    title: String,
    categories: Vec<String>,
    tokens: Vec<u32>,
}

#[derive(Deserialize)]
struct ExpectedSplits {
    train: Vec<ExpectedUser>,
    val: Vec<ExpectedUser>,
    test: Vec<ExpectedUser>,
}

#[derive(Deserialize)]
struct ExpectedUser {
    index: i64,
    history: Vec<u32>,
    targets: Vec<u32>,
    ratings: Vec<f32>,
    reviews: Vec<String>,
    prompt: String,
    prompt_tokens: Vec<u32>,
}

fn expected() -> Expected {
    serde_json::from_slice(&fs::read(fixtures().join("published/expected.json")).unwrap()).unwrap()
}

/// A set under the fixtures, for tokenizers under the fixtures.
fn source(dataset: &str, items: Option<&str>, lm: Option<&str>, embedder: Option<&str>) -> DatasetSource {
    let published = fixtures().join("published");
    let model = |name: &str| ModelName::from(fixtures().join("tokenizers").join(name).as_path());
    DatasetSource {
        dataset: published.join(dataset),
        items: items.map(|items| published.join(items)),
        lm: lm.map(model),
        embedder: embedder.map(model),
        template: None,
    }
}

fn check_items(items: &[Item], expected: &[ExpectedItem]) {
    assert_eq!(items.len(), expected.len());
    for (item, expected) in items.iter().zip(expected) {
        assert_eq!(
            (&item.text, &item.title, &item.categories, &item.tokens),
            (&expected.text, &expected.title, &expected.categories, &expected.tokens)
        );
    }
}

fn check_users(dataset: &Dataset, expected: &ExpectedSplits) {
    let splits = [
        ("train", &dataset.train, &expected.train),
        ("val", &dataset.val, &expected.val),
        ("test", &dataset.test, &expected.test),
    ];
    for (split, users, expected) in splits {
        assert_eq!(users.len(), expected.len());
        for (user, expected) in users.iter().zip(expected) {
            let wanted = User {
                id: format!("{split}-{}", expected.index),
                history: expected.history.clone(),
                targets: expected.targets.clone(),
                later: expected.targets.clone(),
                ratings: expected.ratings.clone(),
                reviews: expected.reviews.clone(),
                prompt: expected.prompt.clone(),
                prompt_tokens: expected.prompt_tokens.clone(),
                tied_target_time: false,
            };
            assert_eq!(*user, wanted);
        }
    }
}

#[test]
fn a_gemma_set_in_two_folders_is_read_with_its_padding_taken_off() {
    let expected = expected();
    let dataset = source("gemma", Some("items"), Some("gemma-like"), Some("bert-like"))
        .open()
        .unwrap();
    check_items(&dataset.items, &expected.items);
    check_users(&dataset, &expected.gemma);
    let rules = &dataset.manifest.rules;
    assert_eq!(
        (rules.template, rules.history, &rules.instruction),
        (TemplateForm::Gemma, 4, &expected.instruction)
    );
    assert_eq!(
        (rules.max_prompt_tokens, rules.max_item_tokens),
        (expected.prompt_length, expected.item_length)
    );
    let read = |user: &ExpectedUser| {
        user.history
            .iter()
            .chain(&user.targets)
            .filter(|item| **item == 3)
            .count()
    };
    let count: usize = expected.gemma.train.iter().map(read).sum();
    assert_eq!(dataset.items[3].train_count as usize, count);
}

#[test]
fn a_llama_set_of_other_types_and_names_keeps_the_ids_where_its_texts_lost_spaces() {
    let expected = expected();
    let dataset = source("llama", None, Some("llama3-like"), Some("bert-like"))
        .open()
        .unwrap();
    check_items(&dataset.items, &expected.items);
    check_users(&dataset, &expected.llama);
    assert_eq!(dataset.items[0].id, "1");
    assert_eq!(dataset.manifest.rules.template, TemplateForm::Chat);
}

#[test]
fn a_set_for_another_language_model_is_tokenized_anew() {
    let mut other = source("gemma", Some("items"), Some("llama3-like"), Some("bert-like"));
    other.template = Some(TemplateForm::Chat);
    let (dataset, expected) = (other.open().unwrap(), expected());
    for (user, expected) in dataset.train.iter().zip(&expected.llama.train) {
        assert_eq!(user.prompt_tokens, expected.prompt_tokens);
    }
    // Chat templates trim the prompt; the published text is not.
    assert_eq!(dataset.train[2].prompt, expected.gemma.train[2].prompt);
}

#[test]
fn without_models_there_are_texts_and_no_ids() {
    let dataset = source("llama", None, None, None).open().unwrap();
    let user = &dataset.train[0];
    assert!(user.prompt_tokens.is_empty() && dataset.items[0].tokens.is_empty());
    assert_eq!(user.reviews.len(), 4);
    assert!(user.prompt.starts_with("The user has rated (out of 5.0)"));
}

#[test]
fn items_of_other_sessions_are_refused_by_file_row_and_column() {
    let folder = TempDir::new().unwrap();
    let copy = |from: &str, to: &str| {
        let to = folder.path().join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(fixtures().join("published").join(from), to).unwrap();
    };
    copy("gemma/data/val-00000-of-00001.parquet", "train.parquet");
    copy("gemma/data/val-00000-of-00001.parquet", "val.parquet");
    copy("gemma/data/val-00000-of-00001.parquet", "test.parquet");
    // Numbered from 1 and in reverse order: index 0 is missing, and every other text is another one.
    copy("llama/items.parquet", "items.parquet");
    let mut source = source("gemma", None, None, None);
    source.dataset = folder.path().to_owned();
    let message = source.open().unwrap_err().to_string();
    assert!(
        message.contains("train.parquet, row 0, column `ref_responses`: is not the text of the history's last item")
            || message.contains(
                "train.parquet, row 0, column `in_sess_item_idxs`: item 0 is not among the 12 items, of index 1 to 12"
            ),
        "{message}"
    );
}

/// A set of ours of 24, 3 and 3 users on 8 items.
fn prepared(folder: &std::path::Path, template: TemplateForm) -> Dataset {
    let review = |number: usize| {
        let (user, item) = (number / 8, number % 8);
        let time = user * 1000 + item;
        format!(
            "{{\"user_id\": \"u{user}\", \"parent_asin\": \"i{item}\", \"rating\": {}.5, \"timestamp\": {time}, \"text\": \"ok, {item} \\u00e9 .\\n\\nwell \"}}",
            number % 5
        )
    };
    let item = |item: usize| {
        format!(
            "{{\"parent_asin\": \"i{item}\", \"title\": \"T {item}\", \"description\": [\"d ?\"], \"categories\": [\"c\", \"e\"], \"average_rating\": 4.5, \"price\": null}}"
        )
    };
    fs::write(
        folder.join("reviews.jsonl"),
        (0..240).map(review).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    fs::write(
        folder.join("meta.jsonl"),
        (0..8).map(item).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    let lm = match template {
        TemplateForm::Gemma => "tokenizers/gemma-like",
        TemplateForm::Chat => "models/tiny-lm",
    };
    Preparation {
        reviews: folder.join("reviews.jsonl"),
        metadata: folder.join("meta.jsonl"),
        lm: fixtures().join(lm),
        embedder: fixtures().join("models/tiny-embedder"),
        output: folder.join("dataset"),
        overwrite: false,
        skip_bad_lines: false,
        rules: Rules {
            template,
            ..Rules::default()
        },
    }
    .run()
    .unwrap();
    Dataset::open(&folder.join("dataset")).unwrap()
}

fn export(folder: &std::path::Path) -> Export {
    Export {
        dataset: folder.join("dataset"),
        output: folder.join("published"),
        overwrite: false,
        lm_pad: None,
        embedder_pad: None,
    }
}

#[test]
fn an_exported_dataset_reads_back_as_it_was() {
    for (template, lm) in [
        (TemplateForm::Gemma, "tokenizers/gemma-like"),
        (TemplateForm::Chat, "models/tiny-lm"),
    ] {
        let folder = TempDir::new().unwrap();
        let ours = prepared(folder.path(), template);
        let files = export(folder.path()).run().unwrap();
        let rows: Vec<usize> = files.iter().map(|file| file.rows).collect();
        assert_eq!(rows, [8, 24, 3, 3]);
        let source = DatasetSource {
            dataset: folder.path().join("published"),
            items: None,
            lm: Some(fixtures().join(lm).as_path().into()),
            embedder: Some(fixtures().join("models/tiny-embedder").as_path().into()),
            template: None,
        };
        let back = source.open().unwrap();
        for (split, [ours, back]) in [
            ("train", [&ours.train, &back.train]),
            ("val", [&ours.val, &back.val]),
            ("test", [&ours.test, &back.test]),
        ] {
            let renamed = ours.iter().enumerate().map(|(index, user)| User {
                // What the layout does not carry: ids, and what came after the target.
                id: format!("{split}-{index}"),
                later: user.targets.clone(),
                ..user.clone()
            });
            assert_eq!(renamed.collect::<Vec<_>>(), *back);
        }
        for (ours, back) in ours.items.iter().zip(&back.items) {
            assert_eq!(
                (&ours.text, &ours.title, &ours.categories, &ours.tokens),
                (&back.text, &back.title, &back.categories, &back.tokens)
            );
        }
        assert_eq!(back.manifest.rules.instruction, ours.manifest.rules.instruction);
        assert_eq!(back.manifest.rules.max_prompt_tokens, 1024);
    }
}

#[test]
fn a_pad_that_is_a_token_of_the_texts_is_refused_and_nothing_is_left() {
    let folder = TempDir::new().unwrap();
    let ours = prepared(folder.path(), TemplateForm::Chat);
    let used = ours.train[0].prompt_tokens[5];
    let mut export = export(folder.path());
    export.lm_pad = Some(used);
    let message = export.run().unwrap_err().to_string();
    let says = format!("has the token {used} that is to pad it; give another id with --lm-pad-id");
    assert!(message.contains(&says), "{message}");
    assert!(!folder.path().join("published").exists());
}

#[test]
fn a_prepared_dataset_takes_no_other_items() {
    let folder = TempDir::new().unwrap();
    prepared(folder.path(), TemplateForm::Chat);
    let mut source = source("gemma", Some("items"), None, None);
    source.dataset = folder.path().join("dataset");
    let message = source.open().unwrap_err().to_string();
    assert!(
        message.contains("has its own items; leave out --task.item-dataset"),
        "{message}"
    );
}

#[test]
fn a_place_that_is_neither_folder_nor_hub_id_is_refused() {
    let mut source = source("gemma", None, None, None);
    source.dataset = "./nowhere/at/all".into();
    assert!(matches!(source.open(), Err(DataError::NoDataset { .. })));
}
