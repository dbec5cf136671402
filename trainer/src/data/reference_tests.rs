//! The preparation against an independent one in pandas: `tests/reference/prepare_reference.py` recorded its counts,
//! sessions and token ids.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::{
    Dataset, Item, Preparation, Rules, Stats, TemplateForm, User,
    prepare::{UsersAndItems, Work},
};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

fn recorded(path: &str) -> Value {
    serde_json::from_str(&fs::read_to_string(fixtures().join("raw").join(path)).unwrap()).unwrap()
}

fn number(value: &Value) -> usize {
    value.as_u64().unwrap() as usize
}

/// The rules that the recorded options name.
fn rules(options: &Value) -> Rules {
    Rules {
        instruction: options["instruction"].as_str().unwrap().to_owned(),
        history: number(&options["history"]),
        k: number(&options["k"]) as u32,
        max_item_tokens: number(&options["item_limit"]),
        max_prompt_tokens: number(&options["prompt_limit"]),
        test_share: options["test_percent"].as_f64().unwrap() / 100.0,
        template: match options["template"].as_str().unwrap() {
            "gemma" => TemplateForm::Gemma,
            _ => TemplateForm::Chat,
        },
        ..Rules::default()
    }
}

fn hard_set(lm: &str, expected: &Value, output: &Path) -> Preparation {
    Preparation {
        reviews: fixtures().join("raw/hard/reviews.jsonl.gz"),
        metadata: fixtures().join("raw/hard/meta.jsonl.gz"),
        lm: fixtures().join(lm),
        embedder: fixtures().join("models/tiny-embedder"),
        output: output.to_owned(),
        overwrite: false,
        skip_bad_lines: false,
        rules: rules(&expected["options"]),
    }
}

fn check_counts(expected: &Value, stats: &Stats) {
    let counts = serde_json::to_value(stats).unwrap();
    for (name, count) in expected["counts"].as_object().unwrap() {
        assert_eq!(&counts[name], count, "{name}");
    }
    let more = &expected["more_counts"];
    let of = |names: &[&str]| -> usize { names.iter().map(|name| number(&more[*name])).sum() };
    assert_eq!(
        stats.users_with_long_item,
        of(&["users_with_long_item_only", "users_with_both"])
    );
    assert_eq!(stats.users_with_long_prompt, of(&["users_with_long_prompt_only"]));
    assert_eq!(stats.train_items, of(&["items_in_train"]));
    let long_again = of(&["train_users_too_long_again", "heldout_users_too_long_again"]);
    assert_eq!(stats.users_too_long_after_split, long_again);
    assert_eq!(
        stats.test_users_before_cold_items - stats.test_users_after_cold_items,
        of(&["test_users_left_with_too_few"])
    );
}

fn check_sessions(expected: &Value, found: &UsersAndItems) {
    let ids = |items: &[u32]| -> Vec<&str> {
        items
            .iter()
            .map(|item| found.items[*item as usize].id.as_str())
            .collect()
    };
    let sessions = expected["sessions"].as_array().unwrap();
    let users = found
        .train
        .iter()
        .map(|user| ("train", user))
        .chain(found.held_out.iter().map(|user| ("heldout", user)));
    let mut checked = 0;
    for ((split, user), session) in users.zip(sessions) {
        assert_eq!(user.id, session["user_id"].as_str().unwrap());
        assert_eq!(split, session["split"].as_str().unwrap(), "{}", user.id);
        assert_eq!(serde_json::json!(ids(&user.history)), session["history"], "{}", user.id);
        assert_eq!(ids(&user.targets), [session["target"].as_str().unwrap()], "{}", user.id);
        assert_eq!(
            user.prompt_tokens.len(),
            number(&session["prompt_tokens"]),
            "{}",
            user.id
        );
        checked += 1;
    }
    assert_eq!(
        (checked, found.train.len() + found.held_out.len()),
        (sessions.len(), sessions.len())
    );
    let items = expected["items"].as_array().unwrap();
    assert_eq!(found.items.len(), items.len());
    for (item, expected) in found.items.iter().zip(items) {
        assert_eq!(item.id, expected["parent_asin"].as_str().unwrap());
        assert_eq!(item.tokens.len(), number(&expected["tokens"]), "{}", item.id);
    }
}

/// Hashes over everything in order: sessions, prompt tokens and item tokens, as the script defines them.
fn check_hashes(expected: &Value, found: &UsersAndItems) {
    let id = |item: &u32| found.items[*item as usize].id.clone();
    let session = |split: &str, user: &User| {
        let history: Vec<String> = user.history.iter().map(id).collect();
        format!(
            "{}\t{split}\t{}\t{}\n",
            user.id,
            history.join(","),
            id(&user.targets[0])
        )
    };
    let train = found.train.iter().map(|user| session("train", user));
    let held_out = found.held_out.iter().map(|user| session("heldout", user));
    assert_eq!(sha256(train.chain(held_out)), expected["sessions_sha256"], "sessions");
    let users = found.train.iter().chain(&found.held_out);
    let prompts = users.map(|user| format!("{}\t{}\n", user.id, joined(&user.prompt_tokens)));
    assert_eq!(sha256(prompts), expected["prompts_sha256"], "prompts");
    let items = found
        .items
        .iter()
        .map(|item| format!("{}\t{}\n", item.id, joined(&item.tokens)));
    assert_eq!(sha256(items), expected["items_sha256"], "items");
}

fn joined(ids: &[u32]) -> String {
    let ids: Vec<String> = ids.iter().map(u32::to_string).collect();
    ids.join(",")
}

fn sha256(lines: impl Iterator<Item = String>) -> String {
    let mut hash = Sha256::new();
    lines.for_each(|line| hash.update(line));
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Checks everything, once before the draw between validation and test and once as it is read back.
fn check(expected: &Value, preparation: &Preparation) {
    let found = Work::open(preparation).unwrap().users_and_items().unwrap();
    if expected["sessions"].is_array() {
        check_sessions(expected, &found);
    }
    check_hashes(expected, &found);

    let manifest = preparation.run().unwrap();
    check_counts(expected, &manifest.stats);
    let dataset = Dataset::open(&preparation.output).unwrap();
    assert_eq!(dataset.manifest, manifest);
    assert_eq!(dataset.items, found.items);
    assert_eq!(without_prompts(dataset.train), found.train);
    let mut held_out = without_prompts([dataset.val, dataset.test].concat());
    let place = |user: &User| found.held_out.iter().position(|other| other.id == user.id);
    held_out.sort_by_key(place);
    assert_eq!(held_out, found.held_out);
}

fn without_prompts(mut users: Vec<User>) -> Vec<User> {
    users.iter_mut().for_each(|user| user.prompt.clear());
    users
}

#[test]
fn the_hard_set_agrees_with_pandas_in_the_chat_form() {
    let folder = TempDir::new().unwrap();
    let expected = recorded("hard/expected.json");
    check(
        &expected,
        &hard_set("models/tiny-lm", &expected, &folder.path().join("dataset")),
    );
}

#[test]
fn the_hard_set_agrees_with_pandas_in_the_gemma_form() {
    let folder = TempDir::new().unwrap();
    let expected = recorded("hard/expected-gemma.json");
    check(
        &expected,
        &hard_set("tokenizers/gemma-like", &expected, &folder.path().join("dataset")),
    );
}

#[test]
fn movielens_100k_agrees_with_pandas() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/ml-100k");
    let Some(models) = std::env::var_os("REAL_MODELS")
        .map(PathBuf::from)
        .filter(|_| data.is_dir())
    else {
        eprintln!(
            "skipped: needs {} and REAL_MODELS, the folder of the two real models",
            data.display()
        );
        return;
    };
    for (number, expected) in recorded("ml-100k-expected.json")["cases"]
        .as_array()
        .unwrap()
        .iter()
        .enumerate()
    {
        let folder = TempDir::new().unwrap();
        let preparation = Preparation {
            reviews: data.join("Movies_and_TV.jsonl.gz"),
            metadata: data.join("meta_Movies_and_TV.jsonl.gz"),
            lm: models.join("SmolLM2-135M-Instruct"),
            embedder: models.join("all-MiniLM-L6-v2"),
            output: folder.path().join(number.to_string()),
            overwrite: false,
            skip_bad_lines: false,
            rules: rules(&expected["options"]),
        };
        check(expected, &preparation);
    }
}

#[test]
fn a_prompt_read_back_is_what_the_tokens_say() {
    let folder = TempDir::new().unwrap();
    let expected = recorded("hard/expected.json");
    let preparation = hard_set("models/tiny-lm", &expected, &folder.path().join("dataset"));
    preparation.run().unwrap();
    let dataset = Dataset::open(&preparation.output).unwrap();
    let work = Work::open(&preparation).unwrap();
    for user in dataset.train.iter().chain(&dataset.val).chain(&dataset.test) {
        assert_eq!(
            work.encode_prompt(&user.prompt).unwrap(),
            user.prompt_tokens,
            "{}",
            user.id
        );
        assert!(user.prompt.starts_with(&dataset.manifest.rules.instruction));
    }
    let popularity: u32 = dataset.items.iter().map(|item: &Item| item.train_count).sum();
    let rows: usize = dataset
        .train
        .iter()
        .map(|user| user.history.len() + user.later.len())
        .sum();
    assert_eq!(popularity as usize, rows);
}
