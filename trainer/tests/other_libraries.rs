//! Checkpoints and exports in transformers and PEFT, and theirs here. Runs where `TRANSFORMERS_PYTHON` names a Python with torch,
//! transformers and peft; what those libraries made and computed is compared in any case (models/tests/against_transformers.rs).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

mod tiny_run;

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tiny_run::{arguments, fixture, langptune, lines, prepared, text};

fn python() -> Option<String> {
    let python = std::env::var("TRANSFORMERS_PYTHON").ok();
    if python.is_none() {
        println!("skipped: TRANSFORMERS_PYTHON names no Python with transformers and peft");
    }
    python
}

fn run_script(python: &str, arguments: &[&OsStr]) -> String {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/other_libraries.py");
    let output = Command::new(python).arg(script).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The standard output of a command, which must succeed.
fn output_of(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_langptune"))
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Tokens are given as numbers here; the program wants a tokenizer all the same.
const TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null, "post_processor": null,
    "decoder": null, "model": {"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}}"#;

/// Lets the other libraries load `lm` and `embedder`, and compares what they compute with ours.
fn check(python: &str, folder: &Path, lm: &Path, embedder: &Path) {
    let [texts, queries, scored, vectors] =
        ["texts.txt", "texts.jsonl", "scored.jsonl", "vectors.npy"].map(|name| folder.join(name));
    let examples = [
        "a film about the sea",
        "The Quiet Island: told in letters, with a tender mood.",
    ];
    fs::write(&texts, examples.join("\n") + "\n").unwrap();
    let query = |text: &&str| serde_json::json!({ "text": text }).to_string() + "\n";
    fs::write(&queries, examples.iter().map(query).collect::<String>()).unwrap();
    fs::write(
        &scored,
        output_of(&["logprob", "--model", text(lm), "--input", text(&queries)]),
    )
    .unwrap();
    let embed = ["embed", "--model", text(embedder), "--pooling", "mean"];
    output_of(&[&embed[..], &["--input", text(&texts), "--output", text(&vectors)]].concat());
    let files = [lm, &scored, embedder, &texts, &vectors].map(Path::as_os_str);
    let said = run_script(python, &[&[OsStr::new("check")], &files[..]].concat());
    println!("{}: {said}", lm.display());
}

#[test]
#[ignore = "needs transformers and peft"]
fn checkpoints_and_exports_load_in_transformers_and_peft() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let lora = [("--lora_rank", "4"), ("--lora_alpha", "64")];
    let last = [("--trainable", "last-n"), ("--num_layers_unfrozen", "1")];
    for (name, part) in [("lora", lora), ("last", last)] {
        let run = folder.path().join(name);
        let schedule = [
            ("--num_iterations", "1"),
            ("--num_emb_updates", "2"),
            ("--num_lm_updates", "2"),
        ];
        let arguments = arguments(&dataset, &run, &[&schedule[..], &part].concat());
        let (done, said) = langptune(&arguments.iter().map(String::as_str).collect::<Vec<_>>());
        assert!(done, "{said}");
        let checkpoint = run.join("checkpoints/update-000004");
        check(
            &python,
            folder.path(),
            &checkpoint.join("lm"),
            &checkpoint.join("embedder"),
        );
        let exported = folder.path().join(format!("{name}-exported"));
        output_of(&["export", "--run", text(&run), "--output", text(&exported)]);
        check(&python, folder.path(), &exported.join("lm"), &exported.join("embedder"));
    }
}

#[test]
#[ignore = "needs transformers and peft"]
fn adapters_and_shards_of_the_other_libraries_load_here() {
    let Some(python) = python() else { return };
    let folder = tempfile::tempdir().unwrap();
    for base in ["gemma", "llama_untied", "tiny-lm"] {
        let (base, made): (PathBuf, _) = (fixture(&format!("models/{base}")), folder.path().join(base));
        run_script(&python, &[OsStr::new("write"), base.as_os_str(), made.as_os_str()]);
        for kind in ["adapter", "sharded"] {
            let model = made.join(kind);
            fs::write(model.join("tokenizer.json"), TOKENIZER).unwrap();
            fs::write(model.join("tokenizer_config.json"), "{\"eos_token\": \"a\"}").unwrap();
            let expected = lines(&made.join(kind).with_extension("jsonl"));
            let queries = made.join("queries.jsonl");
            let query = |line: &Value| serde_json::json!({ "tokens": line["tokens"] }).to_string() + "\n";
            fs::write(&queries, expected.iter().map(query).collect::<String>()).unwrap();
            let found = output_of(&["logprob", "--model", text(&model), "--input", text(&queries)]);
            for (line, expected) in found.lines().zip(&expected) {
                let found: Value = serde_json::from_str(line).unwrap();
                let pairs = found["logprobs"]
                    .as_array()
                    .unwrap()
                    .iter()
                    .zip(expected["logprobs"].as_array().unwrap());
                for (ours, theirs) in pairs.skip(1) {
                    let apart = (ours.as_f64().unwrap() - theirs.as_f64().unwrap()).abs();
                    assert!(apart < 1e-4, "{}: {ours} {theirs}", model.display());
                }
            }
            assert_eq!(found.lines().count(), expected.len());
        }
    }
}
