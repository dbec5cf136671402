//! A run's event files, read by TensorBoard itself. Runs where `TENSORBOARD_PYTHON` names a Python with the package
//! `tensorboard`; the bytes are compared with a recorded file of that package in any case (src/log/event.rs).

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use trainer::log::{Logger, Sample, scalars};

#[test]
fn tensorboard_reads_scalars_and_texts() {
    let Ok(python) = std::env::var("TENSORBOARD_PYTHON") else {
        println!("skipped: TENSORBOARD_PYTHON names no Python with TensorBoard");
        return;
    };
    let run = tempfile::tempdir().unwrap();
    let mut logger = Logger::create(run.path()).unwrap();
    let ndcg = scalars::ranking(scalars::ProfileKind::Generated, "ndcg", 20);
    for step in 1..=300 {
        logger
            .scalars(step, &[(&ndcg, step as f64 / 1024.0), (scalars::KL, -0.5)])
            .unwrap();
    }
    logger.text("config", 0, "seed = 1\n").unwrap();
    let sample = Sample {
        user: 3,
        prompt: "p".into(),
        profile: "ünlü".into(),
        reference: "r".into(),
        rank: None,
    };
    logger.samples(300, &[sample]).unwrap();

    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/reference/tensorboard_check.py");
    let output = Command::new(python)
        .arg(script)
        .arg("read")
        .arg(run.path().join("events"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let seen: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(seen.len(), 2 * 300 + 2);
    assert!(seen.contains(&json!({"tag": "objective/gen_ndcg@20", "step": 256, "value": 0.25})));
    assert!(seen.contains(&json!({"tag": "objective/kl", "step": 300, "value": -0.5})));
    assert!(seen.contains(&json!({"tag": "config", "step": 0, "plugin": "text", "text": ["seed = 1\n"]})));
    let table = "| user | rank | prompt | profile | reference |\n|---|---|---|---|---|\n| 3 | – | p | ünlü | r |\n";
    assert!(seen.contains(&json!({"tag": "samples", "step": 300, "plugin": "text", "text": [table]})));
}
