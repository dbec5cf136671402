//! The demo from end to end. What it promises is checked by the long trials.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

use serde_json::Value;
use trainer::demo::{Demo, Scale, Summary, TRAINING_SEED, World, WorldSize};

fn demo(folder: &Path, seed: u64) -> Demo {
    Demo {
        output: folder.to_owned(),
        seed,
        models: None,
        resume: false,
        scale: Scale::Whole,
        device: trainer::config::Device::Cpu,
        precision: trainer::config::Precision::F32,
    }
}

#[test]
fn a_folder_in_use_and_the_seeds_of_pretraining_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let seed = demo(&folder.path().join("new"), TRAINING_SEED).run().unwrap_err();
    assert!(seed.to_string().contains("4294967296"), "{seed}");
    fs::write(folder.path().join("mine"), "").unwrap();
    let used = demo(folder.path(), 1).run().unwrap_err();
    assert!(used.to_string().contains("not empty"), "{used}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn only_a_demo_of_the_same_seed_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let resumed = |seed| Demo {
        resume: true,
        ..demo(folder.path(), seed)
    };
    fs::write(folder.path().join("mine"), "").unwrap();
    let other = resumed(1).run().unwrap_err();
    assert!(other.to_string().contains("no demo"), "{other}");
    let size = WorldSize { films: 10, people: 10 };
    World::generate(2, size).write(&folder.path().join("world")).unwrap();
    let seed = resumed(1).run().unwrap_err();
    assert!(seed.to_string().contains("--seed 2"), "{seed}");
}

#[test]
fn a_demo_goes_from_a_world_to_a_summary_and_does_not_begin_twice() {
    let folder = tempfile::tempdir().unwrap();
    let output = folder.path().join("demo");
    let trial = Demo {
        scale: Scale::Trial,
        device: trainer::config::Device::Cpu,
        precision: trainer::config::Precision::F32,
        ..demo(&output, 5)
    };
    let summary = trial.run().unwrap();
    let written: Value = serde_json::from_slice(&fs::read(output.join("summary.json")).unwrap()).unwrap();
    assert_eq!(written["synthetic"], true);
    assert_eq!(written["ndcg@10"]["trained"], summary.ndcg.trained);
    assert_eq!(written["ndcg@10"].as_object().unwrap().len(), 7);
    assert!(summary.users > 20 && summary.examples.len() == 3, "{summary:?}");
    assert!(
        summary
            .examples
            .iter()
            .all(|example| !example.history.is_empty() && example.after.rank >= 1)
    );
    assert!(output.join("run/report/manifest.json").is_file());
    assert!(output.join("evaluation/test/evaluation.json").is_file());

    let again = trial.run().unwrap_err();
    assert!(again.to_string().contains("--resume"), "{again}");
    let weights = || fs::read(output.join("run/checkpoints/update-000004/lm/model.safetensors")).unwrap();
    let trained = weights();
    let resumed = Demo { resume: true, ..trial };
    assert_eq!(resumed.run().unwrap().ndcg, summary.ndcg);
    assert_eq!(weights(), trained);
}

/// Rewards of the language model's updates, in order.
fn rewards(run: &Path) -> Vec<f64> {
    let text = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    text.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["objective/rewards"].as_f64())
        .collect()
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// What `docs/demo.md` says of seeds 1, 2 and 3.
#[test]
#[ignore = "takes some twenty minutes"]
fn training_pays_in_every_world() {
    let mut least_p = 1.0_f64;
    for seed in 1..=3 {
        let folder = tempfile::tempdir().unwrap();
        let output = folder.path().join("demo");
        let Summary {
            ndcg,
            p_value_trained_vs_zero_shot,
            p_value_trained_vs_untrained,
            ..
        } = demo(&output, seed).run().unwrap();
        assert!(
            ndcg.trained > ndcg.zero_shot && p_value_trained_vs_zero_shot < 0.05,
            "seed {seed}: {ndcg:?}"
        );
        assert!(
            ndcg.trained > ndcg.untrained && p_value_trained_vs_untrained < 0.001,
            "seed {seed}: {ndcg:?}"
        );
        assert!(ndcg.trained > ndcg.reference_profile, "seed {seed}: {ndcg:?}");
        let rewards = rewards(&output.join("run"));
        let quarter = rewards.len() / 4;
        let [first, last] = [&rewards[..quarter], &rewards[rewards.len() - quarter..]].map(mean);
        assert!(last > first, "seed {seed}: rewards went from {first} to {last}");
        least_p = least_p.min(p_value_trained_vs_zero_shot);
    }
    // Of the three together: Bonferroni's bound on the least of them.
    assert!(3.0 * least_p < 0.01, "{least_p}");
}
