//! `langptune prepare` as a user meets it: results, errors, and that a failure leaves nothing behind.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use tempfile::TempDir;
use trainer::data::{DataError, Dataset, Preparation, Rules};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures")
}

/// 30 users who reviewed the same 8 items one after the other; line n + 1 is user n / 8, item n % 8.
fn reviews() -> Vec<String> {
    let line = |number: usize| {
        let (user, item) = (number / 8, number % 8);
        let time = user * 1000 + item;
        format!(
            r#"{{"user_id": "u{user}", "parent_asin": "i{item}", "rating": 4.0, "timestamp": {time}, "text": "ok"}}"#
        )
    };
    (0..240).map(line).collect()
}

fn metadata() -> Vec<String> {
    let line = |item: usize| {
        format!(
            r#"{{"parent_asin": "i{item}", "title": "T{item}", "description": ["d"], "categories": ["c"], "average_rating": 4.5, "price": null}}"#
        )
    };
    (0..8).map(line).collect()
}

/// A raw set in a folder of its own, and where its dataset goes.
struct Raw {
    folder: TempDir,
}

impl Raw {
    fn new(reviews: &[String], metadata: &[String]) -> Self {
        let folder = TempDir::new().unwrap();
        fs::write(folder.path().join("reviews.jsonl"), reviews.join("\n")).unwrap();
        fs::write(folder.path().join("meta.jsonl"), metadata.join("\n")).unwrap();
        Self { folder }
    }

    fn preparation(&self) -> Preparation {
        Preparation {
            reviews: self.folder.path().join("reviews.jsonl"),
            metadata: self.folder.path().join("meta.jsonl"),
            lm: fixtures().join("models/tiny-lm"),
            embedder: fixtures().join("models/tiny-embedder"),
            output: self.folder.path().join("dataset"),
            overwrite: false,
            skip_bad_lines: false,
            rules: Rules::default(),
        }
    }

    /// The message of a preparation that fails and leaves only the two raw files.
    fn failure(&self, preparation: &Preparation) -> String {
        let error = preparation.run().unwrap_err();
        assert_eq!(
            self.names(),
            ["meta.jsonl", "reviews.jsonl"],
            "something half-written: {error}"
        );
        error.to_string()
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// Runs the binary with the two files, the tiny models and `more`.
    fn langptune(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
        command.current_dir(self.folder.path()).arg("prepare");
        command.args([
            "--reviews",
            "reviews.jsonl",
            "--metadata",
            "meta.jsonl",
            "--output",
            "dataset",
        ]);
        command.arg("--lm").arg(fixtures().join("models/tiny-lm"));
        command.arg("--embedder").arg(fixtures().join("models/tiny-embedder"));
        command.args(more).output().unwrap()
    }
}

#[test]
fn the_command_prints_counts_and_writes_the_dataset() {
    let raw = Raw::new(&reviews(), &metadata());
    let output = raw.langptune(&["--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let counts: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(counts["reviews_read"], 240);
    assert_eq!(
        (&counts["train_users"], &counts["val_users"], &counts["test_users"]),
        (&24.into(), &3.into(), &3.into())
    );
    let stats = fs::read(raw.folder.path().join("dataset/stats.json")).unwrap();
    assert_eq!(serde_json::from_slice::<serde_json::Value>(&stats).unwrap(), counts);

    let again = raw.langptune(&[]);
    assert_eq!(again.status.code(), Some(1));
    let message = String::from_utf8(again.stderr).unwrap();
    assert!(
        message.contains("dataset is not empty") && message.contains("--overwrite"),
        "{message}"
    );

    let overwritten = raw.langptune(&["--overwrite", "--preset", "llama"]);
    assert!(overwritten.status.success());
    let table = String::from_utf8(overwritten.stdout).unwrap();
    assert!(
        table.contains("reviews read                                              240\n"),
        "{table}"
    );
    assert_eq!(raw.names(), ["dataset", "meta.jsonl", "reviews.jsonl"]);
    let dataset = Dataset::open(&raw.folder.path().join("dataset")).unwrap();
    assert!(dataset.manifest.prompt_form.contains("{prompt}"));
    assert_eq!(dataset.train[0].history, [0, 1, 2, 3]);
    assert_eq!(
        (&dataset.train[0].targets, &dataset.train[0].later),
        (&vec![4], &vec![4, 5, 6, 7])
    );
}

#[test]
fn the_same_input_gives_the_same_bytes() {
    let raw = Raw::new(&reviews(), &metadata());
    let other = Preparation {
        output: raw.folder.path().join("other"),
        ..raw.preparation()
    };
    raw.preparation().run().unwrap();
    other.run().unwrap();
    for entry in fs::read_dir(&other.output).unwrap() {
        let name = entry.unwrap().file_name();
        let bytes = |folder: &Path| fs::read(folder.join(&name)).unwrap();
        assert_eq!(bytes(&other.output), bytes(&raw.preparation().output), "{name:?}");
    }
}

#[test]
fn a_broken_line_is_named_or_skipped_and_counted() {
    let mut lines = reviews();
    lines.insert(7, "{\"user_id\": \"u1\", oops".to_owned());
    lines.insert(3, String::new());
    let raw = Raw::new(&lines, &metadata());
    let message = raw.failure(&raw.preparation());
    assert!(
        message.contains("reviews.jsonl:9: expected a JSON object, found broken JSON"),
        "{message}"
    );
    assert!(
        message.contains("oops") && message.contains("--skip-bad-lines"),
        "{message}"
    );

    let skipping = Preparation {
        skip_bad_lines: true,
        ..raw.preparation()
    };
    let stats = skipping.run().unwrap().stats;
    assert_eq!((stats.reviews_read, stats.bad_review_lines), (240, 1));
}

#[test]
fn a_missing_field_is_named_in_either_file() {
    let mut lines = reviews();
    lines[4] = r#"{"user_id": "u0", "parent_asin": "i4", "timestamp": 4, "text": ""}"#.to_owned();
    let raw = Raw::new(&lines, &metadata());
    let message = raw.failure(&raw.preparation());
    assert!(
        message.contains("reviews.jsonl:5: field `rating` is missing; the line has parent_asin,"),
        "{message}"
    );

    let mut items = metadata();
    items[1] = items[1].replace("\"title\"", "\"name\"");
    let raw = Raw::new(&reviews(), &items);
    let message = raw.failure(&raw.preparation());
    assert!(message.contains("meta.jsonl:2: field `title` is missing"), "{message}");
    let skipping = Preparation {
        skip_bad_lines: true,
        ..raw.preparation()
    };
    assert_eq!(skipping.run().unwrap().stats.bad_metadata_lines, 1);
}

#[test]
fn a_repeated_item_names_both_lines() {
    let mut items = metadata();
    items.push(items[2].clone());
    let raw = Raw::new(&reviews(), &items);
    let message = raw.failure(&Preparation {
        skip_bad_lines: true,
        ..raw.preparation()
    });
    assert!(
        message.contains("meta.jsonl:9: item \"i2\" was described before, in line 3"),
        "{message}"
    );

    // An item without a title is none.
    items[2] = items[2].replace("\"T2\"", "null");
    let raw = Raw::new(&reviews(), &items);
    assert_eq!(raw.preparation().run().unwrap().stats.items_without_title, 1);
}

#[test]
fn a_filter_that_leaves_nothing_is_named_with_the_counts_before() {
    let raw = Raw::new(&reviews(), &metadata());
    let with = |change: fn(&mut Rules)| {
        let mut preparation = raw.preparation();
        change(&mut preparation.rules);
        raw.failure(&preparation)
    };
    let before = "before it: 240 reviews of 30 users on 8 items";
    for (message, filter) in [
        (with(|rules| rules.k = 31), "users and items with at least 31 reviews\""),
        (
            with(|rules| rules.max_item_tokens = 3),
            "no item of more than 3 tokens in a session",
        ),
        (
            with(|rules| rules.max_prompt_tokens = 9),
            "no prompt of more than 9 tokens",
        ),
        (
            with(|rules| rules.test_share = 0.99),
            "training users, all but a share of 0.99",
        ),
    ] {
        assert!(message.contains(filter) && message.contains(before), "{message}");
    }
    let message = with(|rules| rules.history = 8);
    assert!(message.contains("test users with at least 9 items"), "{message}");

    let mut strangers = metadata();
    strangers.iter_mut().for_each(|line| *line = line.replace("\"i", "\"x"));
    let raw = Raw::new(&reviews(), &strangers);
    let message = raw.failure(&raw.preparation());
    assert!(
        message.contains("reviews of items that the metadata describes"),
        "{message}"
    );
    assert!(message.contains("before it: 240 reviews"), "{message}");
}

#[test]
fn impossible_options_are_named() {
    let raw = Raw::new(&reviews(), &metadata());
    for (more, expected) in [
        (["--history", "0"], "--history 0: expected 1 or more"),
        (["--k", "0"], "--k 0: expected 1 or more"),
        (["--test-share", "1"], "--test-share 1: expected 0 or more and below 1"),
    ] {
        let output = raw.langptune(&more);
        assert_eq!(output.status.code(), Some(2));
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(raw.names(), ["meta.jsonl", "reviews.jsonl"]);
}

#[test]
fn a_place_that_cannot_be_written_to_is_found_before_the_work() {
    let raw = Raw::new(&reviews(), &metadata());
    let under_a_file = Preparation {
        output: raw.folder.path().join("meta.jsonl/dataset"),
        ..raw.preparation()
    };
    let message = raw.failure(&under_a_file);
    assert!(
        message.contains("cannot write") && message.contains("meta.jsonl"),
        "{message}"
    );
    let a_file = Preparation {
        output: raw.folder.path().join("meta.jsonl"),
        ..raw.preparation()
    };
    assert!(raw.failure(&a_file).contains("cannot write"));
}

#[test]
fn overwriting_spares_folders_that_are_no_datasets() {
    let raw = Raw::new(&reviews(), &metadata());
    let preparation = Preparation {
        overwrite: true,
        ..raw.preparation()
    };
    fs::create_dir(&preparation.output).unwrap();
    fs::write(preparation.output.join("letter.txt"), "dear").unwrap();
    let message = preparation.run().unwrap_err().to_string();
    assert!(message.contains("no manifest.json"), "{message}");
    assert_eq!(
        fs::read_to_string(preparation.output.join("letter.txt")).unwrap(),
        "dear"
    );
}

#[test]
fn a_missing_or_cut_off_file_is_named() {
    let raw = Raw::new(&reviews(), &metadata());
    let missing = Preparation {
        reviews: raw.folder.path().join("none.jsonl"),
        ..raw.preparation()
    };
    assert!(raw.failure(&missing).contains("none.jsonl"));

    let whole = fs::read(fixtures().join("raw/hard/reviews.jsonl.gz")).unwrap();
    fs::write(raw.folder.path().join("reviews.jsonl"), &whole[..whole.len() / 2]).unwrap();
    let message = raw.failure(&raw.preparation());
    assert!(
        message.contains("cannot read") && message.contains("reviews.jsonl"),
        "{message}"
    );
}

#[test]
fn users_with_tied_targets_are_counted_and_dropped_on_demand() {
    let mut lines = reviews();
    // User 0's fifth review comes in the same millisecond as the fourth.
    lines[4] = lines[4].replace("\"timestamp\": 4,", "\"timestamp\": 3,");
    let raw = Raw::new(&lines, &metadata());
    let kept = raw.preparation().run().unwrap().stats;
    assert_eq!(
        (
            kept.users_with_tied_target_time,
            kept.users_dropped_for_tied_target_time
        ),
        (1, 0)
    );
    let dataset = Dataset::open(&raw.preparation().output).unwrap();
    let tied: Vec<&str> = dataset
        .train
        .iter()
        .filter(|user| user.tied_target_time)
        .map(|user| user.id.as_str())
        .collect();
    assert_eq!(tied, ["u0"]);

    let mut dropping = Preparation {
        overwrite: true,
        ..raw.preparation()
    };
    dropping.rules.drop_tied_targets = true;
    let dropped = dropping.run().unwrap().stats;
    assert_eq!(
        (
            dropped.users_with_tied_target_time,
            dropped.users_dropped_for_tied_target_time
        ),
        (1, 1)
    );
    assert_eq!(
        Dataset::open(&dropping.output).unwrap().train.len(),
        dataset.train.len() - 1
    );
}

#[test]
fn a_dataset_is_checked_when_it_is_opened() {
    let raw = Raw::new(&reviews(), &metadata());
    let folder = raw.preparation().output;
    raw.preparation().run().unwrap();
    let manifest = fs::read_to_string(folder.join("manifest.json")).unwrap();
    let with = |from: &str, to: &str| {
        assert!(manifest.contains(from));
        fs::write(folder.join("manifest.json"), manifest.replace(from, to)).unwrap();
        Dataset::open(&folder).unwrap_err()
    };
    let version = with("\"version\": 1", "\"version\": 2");
    assert!(
        matches!(
            version,
            DataError::Version {
                found: 2,
                expected: 1,
                ..
            }
        ),
        "{version}"
    );
    let rows = with("\"rows\": 24", "\"rows\": 25");
    assert!(
        matches!(
            rows,
            DataError::RowCount {
                found: 24,
                expected: 25,
                ..
            }
        ),
        "{rows}"
    );
    let history = with("\"history\": 4", "\"history\": 3");
    assert!(matches!(&history, DataError::Row { row: 0, .. }), "{history}");
    assert!(
        history
            .to_string()
            .contains("users-train.parquet, row 0: `history` has 4 entries, expected 3"),
        "{history}"
    );

    // A smaller catalogue of another dataset: indices point behind its end.
    let few: Vec<String> = reviews().into_iter().filter(|line| !line.contains("\"i7\"")).collect();
    let smaller = Raw::new(&few, &metadata());
    smaller.preparation().run().unwrap();
    fs::copy(
        smaller.preparation().output.join("items.parquet"),
        folder.join("items.parquet"),
    )
    .unwrap();
    let index = with(
        "\"name\": \"items.parquet\",\n      \"rows\": 8",
        "\"name\": \"items.parquet\",\n      \"rows\": 7",
    );
    assert!(
        index.to_string().contains("`later` has item 7, but there are 7 items"),
        "{index}"
    );

    fs::write(folder.join("items.parquet"), "PAR1").unwrap();
    let damaged = with("\"seed\"", "\"seed\"");
    assert!(
        matches!(&damaged, DataError::Parquet { path, .. } if path.ends_with("items.parquet")),
        "{damaged}"
    );
    fs::remove_file(folder.join("manifest.json")).unwrap();
    assert!(matches!(Dataset::open(&folder), Err(DataError::Manifest { .. })));
}
