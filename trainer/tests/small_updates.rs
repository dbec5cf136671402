//! `langptune bench --small-updates` against PyTorch with PEFT (`tests/reference/small_updates.py fixture`).
#![allow(clippy::unwrap_used)]

#[path = "../../models/tests/recorded/mod.rs"]
mod recorded;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use recorded::{fixture, json, numbers};
use serde_json::Value;
use tempfile::TempDir;

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// The tiny Gemma, its recorded adapter and `rollouts`.
fn folder(rollouts: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    copy(&fixture("models/gemma"), &folder.path().join("model"));
    copy(&fixture("adapters/gemma"), &folder.path().join("adapter"));
    fs::write(folder.path().join("rollouts.jsonl"), rollouts).unwrap();
    folder
}

fn bench(folder: &Path, options: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    command.arg("bench").arg("--small-updates").arg(folder).args(options);
    command.output().unwrap()
}

#[test]
fn logprobs_move_as_pytorch_moves_them() {
    let rollouts = fs::read_to_string(fixture("small_updates/rollouts.jsonl")).unwrap();
    let folder = folder(&rollouts);
    // Counts come in any order, and twice.
    let output = bench(folder.path(), &["--steps", "3,1,3", "--lr", "1e-3"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let expected = json("small_updates/expected.json");
    assert_eq!(found["lr"], expected["lr"]);
    assert_eq!(found["precision"], "f32");
    let (found, expected) = (
        found["after"].as_array().unwrap(),
        expected["after"].as_array().unwrap(),
    );
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(expected) {
        assert_eq!(found["steps"], expected["steps"]);
        let rows =
            |value: &Value| -> Vec<Vec<f64>> { value["logprobs"].as_array().unwrap().iter().map(numbers).collect() };
        let (found, expected) = (rows(found), rows(expected));
        assert_eq!(found.len(), expected.len());
        for (found, expected) in found.iter().zip(&expected) {
            assert_eq!(found.len(), expected.len());
            // They move by up to 1.7 nats; f32 alone is 3e-6 apart.
            assert!(
                found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 2e-5),
                "{found:?} {expected:?}"
            );
        }
    }
}

#[test]
fn bf16_masters_move_logprobs_alike_and_the_same_way_twice() {
    let rollouts = fs::read_to_string(fixture("small_updates/rollouts.jsonl")).unwrap();
    let folder = folder(&rollouts);
    let logprobs = |masters: &str| {
        let output = bench(
            folder.path(),
            &["--steps", "30", "--lr", "1e-4", "--master-weights", masters],
        );
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(found["master_weights"], masters);
        let of =
            |after: &Value| -> Vec<f64> { after["logprobs"].as_array().unwrap().iter().flat_map(numbers).collect() };
        let after = found["after"].as_array().unwrap();
        [of(&after[0]), of(&after[1])]
    };
    let (wide, narrow) = (logprobs("f32"), logprobs("bf16"));
    assert_eq!(narrow, logprobs("bf16"));
    assert_ne!(narrow, wide);
    let change =
        |[before, after]: &[Vec<f64>; 2]| -> Vec<f64> { after.iter().zip(before).map(|(x, y)| x - y).collect() };
    let (wide, narrow) = (change(&wide), change(&narrow));
    let size = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>().sqrt();
    let cosine = wide.iter().zip(&narrow).map(|(x, y)| x * y).sum::<f64>() / size(&wide) / size(&narrow);
    assert!(cosine > 0.9, "{cosine}");
}

#[test]
fn rollouts_that_do_not_fit_name_their_line() {
    let good = r#"{"prompt": [5], "responses": [[6, 7]], "slopes": [1.0]}"#;
    for (bad, expected) in [
        (
            r#"{"prompt": [5], "responses": [[6]]}"#,
            "rollouts.jsonl:2: missing field `slopes`",
        ),
        (
            r#"{"prompt": [5], "responses": [[6], [7]], "slopes": [1.0]}"#,
            "rollouts.jsonl:2: field `slopes`: expected one for each of 2 responses, found 1",
        ),
        (
            r#"{"prompt": [], "responses": [[6]], "slopes": [1.0]}"#,
            "rollouts.jsonl:2: field `prompt`: expected at least one token, found none",
        ),
        (
            r#"{"prompt": [5], "responses": [[6], []], "slopes": [1.0, 1.0]}"#,
            "rollouts.jsonl:2: field `responses`: 1 (from 0) has no tokens",
        ),
        (
            r#"{"prompt": [5], "responses": [], "slopes": []}"#,
            "rollouts.jsonl:2: field `responses`: expected at least one, found none",
        ),
        (
            r#"{"prompt": [5], "responses": [[600, 6]], "slopes": [1.0]}"#,
            "token id 600",
        ),
    ] {
        let folder = folder(&format!("{good}\n{bad}\n"));
        let output = bench(folder.path(), &["--steps", "1"]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
    }
    let empty = folder("");
    let output = bench(empty.path(), &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("rollouts.jsonl: expected at least one line, found none"),
        "{said}"
    );
}

#[test]
fn no_steps_are_a_mistake_in_the_command_line() {
    let folder = folder("");
    let output = bench(folder.path(), &["--steps", "0,10"]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--steps: expected numbers from 1"), "{said}");
}
