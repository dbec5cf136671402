//! `bench/scaling.py` and `bench/scaling_model.py` on tiny models: what they print, not how fast anything is.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::process::{Command, Output};

use serde_json::{Value, json};

fn script(name: &str, arguments: &[&str]) -> Output {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../bench");
    Command::new("python3")
        // No folder of compiled files in the tree.
        .arg("-B")
        .arg(folder.join(name))
        .args(arguments)
        .output()
        .unwrap()
}

fn printed(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn scaling(arguments: &[&str]) -> Output {
    script(
        "scaling.py",
        &[&[env!("CARGO_BIN_EXE_langptune")][..], arguments].concat(),
    )
}

#[test]
fn one_and_two_ranks_are_compared_and_set_beside_predictions() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("measured.json");
    let file = file.to_str().unwrap();
    let said = printed(&scaling(&["--ranks", "2", "--updates", "1", "--output", file]));
    let found: Value = serde_json::from_str(&said).unwrap();
    let runs = found["runs"].as_array().unwrap();
    let told: Vec<_> = runs.iter().map(|run| (&run["ranks"], &run["sharded"])).collect();
    // One rank, two, and two without ZeRO-2.
    assert_eq!(
        told,
        [
            (&json!(1), &json!(false)),
            (&json!(2), &json!(true)),
            (&json!(2), &json!(false))
        ]
    );
    for (kind, ranks) in [("weak", 1.0), ("strong", 2.0)] {
        let seconds = |run: usize, kind: &str| runs[run][kind]["stages"]["sweep"]["seconds"].as_f64().unwrap();
        let efficiency = runs[1][kind]["efficiency"]["sweep"].as_f64().unwrap();
        assert!((efficiency - seconds(0, "weak") / seconds(1, kind) / ranks).abs() < 1e-9);
        assert!(runs[1][kind]["update_seconds"].as_f64().unwrap() > 0.0);
    }
    let table = printed(&script("scaling_model.py", &[file]));
    // Six stages weak and strong, two without ZeRO-2, below two lines of heading.
    assert_eq!(table.lines().filter(|line| line.starts_with('|')).count(), 2 + 12 + 2);
    assert!(table.contains("Nothing is predicted for these shapes"), "{table}");
}

#[test]
fn a_step_of_eight_gpus_is_predicted_by_hand() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("measured.json");
    let stages =
        |seconds: f64| json!({"language_model": {"seconds": seconds, "idle_share": 0.0, "communication_share": 0.0}});
    let run = |ranks: u64, seconds: f64| {
        json!({
            "ranks": ranks, "sharded": true, "shapes": "gemma-2b", "strong": null,
            "weak": {"load": {"epochs": 4, "items": 8192}, "embedder_trained": 335_000_000, "stages": stages(seconds)},
        })
    };
    let measured = json!({"runs": [run(1, 4.732), run(8, 5.0)]});
    std::fs::write(&file, measured.to_string()).unwrap();
    let table = printed(&script("scaling_model.py", &[file.to_str().unwrap()]));
    // A step: 16.4/8 + 23.6 ms on the card, 1.519 · 8 · 7/8 GB at 360 GB/s = 29.5 ms, 2 · 23 · 7 · 2 µs = 0.6 ms; 16.4 ms are saved. Four
    // of them: 4.732 + 4 · 0.0394 s.
    assert!(table.contains("| 5.000 s | 4.890 s | 94.6 % | 96.8 % |"), "{table}");
}

#[test]
fn a_run_that_fails_is_told_and_what_is_not_known_is_refused() {
    let failed = scaling(&["--ranks", "1", "--updates", "1", "--timeout", "0.001"]);
    assert_eq!(failed.status.code(), Some(1));
    let found: Value = serde_json::from_slice(&failed.stdout).unwrap();
    assert!(
        found["runs"][0]["failed"]
            .as_str()
            .unwrap()
            .ends_with("not done after 0.001 s")
    );
    let refused = scaling(&["--stages", "embedder,dreams"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("dreams: expected some of rollouts"));
}

#[test]
#[ignore = "long: a minute, with the demo's dataset and models"]
fn a_rank_is_killed_in_an_update_and_half_as_many_go_on() {
    let said = printed(&scaling(&["--ranks", "2", "--fault"]));
    let found: Value = serde_json::from_str(&said).unwrap();
    let fault = &found["fault"];
    for (name, expected) in [
        ("holds", json!(true)),
        ("resumed_ranks", json!(1)),
        ("went_on_from", json!(4)),
    ] {
        assert_eq!(fault[name], expected, "{fault}");
    }
}
