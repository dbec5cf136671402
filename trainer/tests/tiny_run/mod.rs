//! Runs of the binary on tiny models.
#![allow(clippy::unwrap_used, dead_code)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

pub fn fixture(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(path)
}

/// Runs the program: whether it succeeded, and what it said.
pub fn langptune(arguments: &[&str]) -> (bool, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_langptune"))
        .args(arguments)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.success(), text)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A dataset of the hard raw set, in `folder`: of its shorter prompts, a third of the users, which is enough to train on.
pub fn prepared(folder: &Path) -> PathBuf {
    let dataset = folder.join("dataset");
    let (done, said) = langptune(&[
        "prepare",
        "--reviews",
        text(&fixture("raw/hard/reviews.jsonl.gz")),
        "--metadata",
        text(&fixture("raw/hard/meta.jsonl.gz")),
        "--lm",
        text(&fixture("models/tiny-lm")),
        "--embedder",
        text(&fixture("models/tiny-embedder")),
        "--template",
        "chat",
        "--max-prompt-tokens",
        "575",
        "--output",
        text(&dataset),
    ]);
    assert!(done, "{said}");
    dataset
}

/// `train` with settings that a tiny model learns something with, then `settings`, of which a later one goes before.
pub fn arguments(dataset: &Path, output: &Path, settings: &[(&str, &str)]) -> Vec<String> {
    let (lm, embedder) = (fixture("models/tiny-lm"), fixture("models/tiny-embedder"));
    let base = [
        ("--dataset", text(dataset)),
        ("--output", text(output)),
        ("--lm", text(&lm)),
        ("--embedder", text(&embedder)),
        ("--response_length", "6"),
        ("--gradient_accumulation_steps", "4"),
        ("--emb_gradient_accumulation_steps", "2"),
        ("--emb_per_device_train_batch_size", "4"),
        ("--lr", "1e-3"),
        ("--emb_lr", "1e-3"),
    ];
    let mut all: Vec<(&str, &str)> = base.to_vec();
    for &(flag, value) in settings {
        all.retain(|(other, _)| *other != flag);
        all.push((flag, value));
    }
    let words = all.iter().flat_map(|(flag, value)| [*flag, *value]);
    ["train"].into_iter().chain(words).map(str::to_owned).collect()
}

pub fn lines(path: &Path) -> Vec<Value> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Everything of a run that must not depend on when, where and in how many parts it ran: path to content. Event files are left out, as they hold
/// times, and so are the times in `metrics.jsonl` and the folder's own path in `config.toml`.
pub fn contents(run: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = vec![(
        PathBuf::from("trace"),
        fs::read(run.with_extension("trace")).unwrap_or_default(),
    )];
    collect(run, run, &mut found);
    found.sort();
    found
}

fn collect(run: &Path, folder: &Path, found: &mut Vec<(PathBuf, Vec<u8>)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.strip_prefix(run).unwrap().to_owned();
        if path.is_dir() {
            collect(run, &path, found);
            continue;
        }
        let content = match name.to_str().unwrap() {
            name if name.starts_with("events/") || name == "config.toml" || name == ".lock" => continue,
            name if name.ends_with("state.json") => {
                let mut state: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
                state.as_object_mut().unwrap().remove("logs");
                state.to_string().into_bytes()
            }
            "metrics.jsonl" => {
                let mut lines = lines(&path);
                lines.iter_mut().for_each(|line| {
                    line.as_object_mut().unwrap().remove("wall_time");
                });
                format!("{lines:#?}").into_bytes()
            }
            _ => {
                let content = fs::read(&path).unwrap();
                // The report and the adapters say where they come from: the same place under another name.
                String::from_utf8(content).map_or_else(
                    |error| error.into_bytes(),
                    |content| {
                        content
                            .replace(text(run), "RUN")
                            .replace(text(&run.with_extension("trace")), "TRACE")
                            .into_bytes()
                    },
                )
            }
        };
        found.push((name, content));
    }
}

pub fn assert_same(run: &Path, expected: &[(PathBuf, Vec<u8>)], how: &str) {
    let own = contents(run);
    let names = |contents: &[(PathBuf, Vec<u8>)]| contents.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&own), names(expected), "{how}: other files");
    for ((name, ours), (_, theirs)) in own.iter().zip(expected) {
        assert!(ours == theirs, "{how}: {} differs", name.display());
    }
}
