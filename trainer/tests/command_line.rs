//! The commands as users meet them: help, errors and results of the binary.

#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use insta::assert_snapshot;

#[path = "command_line/sharing.rs"]
mod sharing;

/// Runs the binary in `folder`, away from the user's own settings.
fn langptune(folder: &Path, arguments: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("LANGPTUNE_") || name.starts_with("HF_")) {
        command.env_remove(name);
    }
    command.env("HF_HOME", folder.join("hf")).current_dir(folder);
    command.args(arguments.split_whitespace()).output().unwrap()
}

/// Exit code, stdout and stderr, as a page.
fn page(arguments: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    page_in(folder.path(), arguments)
}

fn page_in(folder: &Path, arguments: &str) -> String {
    let output = langptune(folder, arguments);
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (code, stdout, stderr) = (output.status.code().unwrap(), text(output.stdout), text(output.stderr));
    format!("exit code {code}\n--- stdout\n{stdout}--- stderr\n{stderr}")
}

#[test]
fn help_of_train() {
    assert_snapshot!(page("train --help"));
}

#[test]
fn help_of_doctor() {
    assert_snapshot!(page("doctor --help"), @r"
    exit code 0
    --- stdout
    Show what this machine can do, and what is missing for the rest

    Usage: langptune doctor [OPTIONS]

    Options:
          --json             Print JSON
          --gpu              Compare what a GPU computes with the processor, on fresh random models
          --device <DEVICE>  The GPU to compare, cuda:N or wgpu:N [default: the first that this build
                             can use]
          --seed <SEED>      Seed of those models [default: from the clock]
          --only <PART>      Compare only this part on an NVIDIA GPU; several times for more [possible
                             values: operations, language-models, embedders, ranking]
      -h, --help             Print help

    Examples:
      langptune doctor
      langptune doctor --json
      langptune doctor --gpu
      langptune doctor --gpu --device wgpu:1
    --- stderr
    ");
}

#[test]
fn help_does_not_depend_on_the_terminal() {
    let help = |columns: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
        command
            .args(["train", "--help"])
            .env("COLUMNS", columns)
            .output()
            .unwrap()
            .stdout
    };
    assert_eq!(help("40"), help("200"));
}

#[test]
fn the_published_gemma_command_resolves_to_the_preset() {
    let command = "train --preset gemma --print-config --num_lm_updates 200 --num_emb_updates 800 --num_iterations 5 \
        --gradient_accumulation_steps 16 --per_device_train_batch_size 1 --emb_per_device_train_batch_size 32 \
        --print_sample_output_freq 100 --lr 1e-7 --emb_lr 1e-7 --task.query_dataset D --task.item_dataset D \
        --reward_type ndcg --exp_name N --eta 1.0 --whiten_rewards --kl_coef 0.2 \
        --emb_model mixedbread-ai/mxbai-embed-large-v1 --lm_model google/gemma-2b-it --lora_rank 1024 --lora_alpha 2048";
    let published = page(command);
    assert_eq!(
        published,
        page("train --preset gemma --print-config --dataset D --exp-name N")
    );
    assert_snapshot!(published);
}

#[test]
fn the_published_llama_command_resolves_to_the_preset() {
    let command = "train --preset llama --print-config --num_lm_updates 500 --num_emb_updates 2500 --num_iterations 5 \
        --gradient_accumulation_steps 16 --per_device_train_batch_size 1 --emb_per_device_train_batch_size 32 \
        --print_sample_output_freq 500 --lr 3e-7 --emb_lr 3e-7 --task.query_dataset D --task.item_dataset D \
        --reward_type ndcg --exp_name N --eta 1.0 --whiten_rewards --kl_coef 0 \
        --emb_model mixedbread-ai/mxbai-embed-large-v1 --lm_model meta-llama/Meta-Llama-3-8B-Instruct \
        --num_layers_unfrozen 4";
    let published = page(command);
    assert_eq!(
        published,
        page("train --preset llama --print-config --dataset D --exp-name N")
    );
    assert_snapshot!(published);
}

#[test]
fn a_saved_configuration_prints_itself() {
    let folder = tempfile::tempdir().unwrap();
    let first = langptune(
        folder.path(),
        "train --preset llama --dataset D --print-config --lora_rank 4 --trace T",
    );
    fs::write(folder.path().join("c.toml"), &first.stdout).unwrap();
    let second = langptune(folder.path(), "train --config c.toml --print-config");
    assert_eq!(
        String::from_utf8(second.stdout).unwrap(),
        String::from_utf8(first.stdout).unwrap()
    );
}

#[test]
fn the_environment_sets_flags_and_the_command_line_wins() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    command
        .env("LANGPTUNE_TASK_TEMPERATURE", "0.5")
        .env("LANGPTUNE_SEED", "1")
        .current_dir(folder.path());
    let output = command
        .args("train --preset gemma --dataset D --seed 2 --print-config".split(' '))
        .output()
        .unwrap();
    let config: toml::Table = toml::from_str(&String::from_utf8(output.stdout).unwrap()).unwrap();
    assert_eq!(config["rl"]["temperature"].as_float(), Some(0.5));
    assert_eq!(config["run"]["seed"].as_integer(), Some(2));
}

#[test]
fn mistakes_in_flags() {
    assert_snapshot!(page("train --preset gemma"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: no prepared dataset: give --dataset, the environment variable LANGPTUNE_DATASET, or `run.dataset` in a --config file
    ");
    assert_snapshot!(page("train --preset gemma --dataset D --topk 0"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: --topk: expected at least 1, found 0
    ");
    assert_snapshot!(page("train --preset gemma --dataset D --gradient_accumulation_steps 2"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: --whiten-rewards: expected at least 8 rewards an update on a device, found 2 profiles × batch 1 × accumulation 2 = 4: raise --gradient-accumulation-steps or --per-device-train-batch-size, or pass --no-whiten-rewards
    ");
    assert_snapshot!(page("train --preset gemma --dataset D --lora_rank 8 --num_layers_unfrozen 2"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: the command line: --num-layers-unfrozen belongs to --trainable last-n, but settings of --trainable lora were given too: drop one
    ");
    assert_snapshot!(page("train --preset gemma --task.query_dataset A --dataset B"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: the command line: --dataset is B but --task.query-dataset is A: they are two names of one setting; give one of them
    ");
    assert_snapshot!(page("train --preset gemma --dataset D --reward_type map"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: invalid value 'map' for '--reward-type <REWARD_TYPE>'
      [possible values: ndcg, mrr]

    For more information, try '--help'.
    ");
    assert_snapshot!(page("train --preset gemma --dataset D --lerning_rate 1"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: unexpected argument '--lerning-rate' found

      tip: a similar argument exists: '--lr'

    Usage: langptune train --preset <PRESET> --dataset <DIR> --lr <X>

    For more information, try '--help'.
    ");
    assert_snapshot!(page("train --preset gemma --dataset D --num_lm_updates -1"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: invalid value '-1' for '--num-lm-updates <N>': expected a whole number, 0 or more

    For more information, try '--help'.
    ");
}

#[test]
fn mistakes_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let with = |text: &str| {
        fs::write(folder.path().join("c.toml"), text).unwrap();
        page_in(folder.path(), "train --config c.toml")
    };
    assert_snapshot!(with("[rl]\nkl_coeff = 1\n"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: c.toml, line 2: unknown key `rl.kl_coeff`; did you mean `rl.kl_coef`?
    ");
    assert_snapshot!(with("[lm.optimizer]\nlr = \"fast\"\n"), @r#"
    exit code 2
    --- stdout
    --- stderr
    error: c.toml, line 2: `lm.optimizer.lr`: invalid type: string "fast", expected f64
    "#);
    assert_snapshot!(with("[rl\n"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: c.toml, line 1: unclosed table, expected `]`
    ");
    assert_snapshot!(page("train --config none.toml"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: cannot read the configuration file none.toml: No such file or directory (os error 2)
    ");
}

#[test]
fn doctor_gives_json() {
    let folder = tempfile::tempdir().unwrap();
    let output = langptune(folder.path(), "doctor --json");
    assert!(output.status.success());
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(found["devices"][0]["device"], "cpu");
    assert_eq!(found["devices"][0]["usable"], true);
    assert_eq!(found["hub"]["token"], false);
    assert!(found["cpu"]["threads"].as_u64().unwrap() >= 1);
}

/// u1 finds its film first, u2 second of two; u3 is not in the run.
const RUN: &str = "u1 Q0 a 1 3.0 x\nu1 Q0 b 2 2.0 x\nu2 Q0 a 1 3.0 x\nu2 Q0 b 2 2.0 x\n";
const QRELS: &str = "u1 0 a 1\nu2 0 b 1\nu3 0 a 1\n";

fn with_trec_files(arguments: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.trec"), RUN).unwrap();
    fs::write(
        folder.path().join("other.trec"),
        RUN.replace("u1 Q0 a 1 3.0", "u1 Q0 c 1 3.0"),
    )
    .unwrap();
    fs::write(folder.path().join("broken.trec"), "u1 Q0 a 1 3.0 x\nu1 Q0 b 2 high x\n").unwrap();
    fs::write(folder.path().join("qrels.trec"), QRELS).unwrap();
    page_in(folder.path(), arguments)
}

#[test]
fn help_of_metrics() {
    assert_snapshot!(page("metrics --help"), @r"
    exit code 0
    --- stdout
    Compute ranking metrics of a TREC run, with confidence intervals

    Usage: langptune metrics [OPTIONS] --run <RUN> --qrels <QRELS>

    Options:
          --run <RUN>       The run, in TREC's format
          --qrels <QRELS>   What is relevant, in TREC's format
          --cutoffs <K>     How many places of a ranking count [default: 5,10,20]
          --baseline <RUN>  Another run of the same queries, to compare with in paired tests
          --seed <N>        Seed of the bootstrap and of the paired tests [default: 0]
          --json            Print JSON
      -h, --help            Print help

    Examples:
      langptune metrics --run ours.trec --qrels qrels.trec
      langptune metrics --run ours.trec --qrels qrels.trec --baseline popular.trec --cutoffs 10 --json

    A run has lines `query Q0 document rank score tag`, qrels have `query iteration document relevance`.
    Documents rank by descending score, equal scores by the order of their lines. Means are over all
    queries with a relevant document; one that the run does not have counts 0.
    --- stderr
    ");
}

#[test]
fn metrics_as_a_table() {
    assert_snapshot!(with_trec_files("metrics --run run.trec --qrels qrels.trec --cutoffs 1,2"), @r"
    exit code 0
    --- stdout
    metric             mean  95 % interval
    recall@1         0.3333  [0.0000, 1.0000]
    precision@1      0.3333  [0.0000, 1.0000]
    hit@1            0.3333  [0.0000, 1.0000]
    mrr@1            0.3333  [0.0000, 1.0000]
    mrr_first@1      0.3333  [0.0000, 1.0000]
    ndcg@1           0.3333  [0.0000, 1.0000]
    ndcg_exp@1       0.3333  [0.0000, 1.0000]
    map@1            0.3333  [0.0000, 1.0000]
    recall@2         0.6667  [0.0000, 1.0000]
    precision@2      0.3333  [0.0000, 0.5000]
    hit@2            0.6667  [0.0000, 1.0000]
    mrr@2            0.5000  [0.0000, 1.0000]
    mrr_first@2      0.5000  [0.0000, 1.0000]
    ndcg@2           0.5436  [0.0000, 1.0000]
    ndcg_exp@2       0.5436  [0.0000, 1.0000]
    map@2            0.5000  [0.0000, 1.0000]
    3 queries
    --- stderr
    note: run.trec: queries not in the run (they count 0): 1
    ");
    assert_snapshot!(with_trec_files("metrics --run run.trec --qrels qrels.trec --cutoffs 2 --baseline other.trec"), @r"
    exit code 0
    --- stdout
    metric             mean  95 % interval     baseline  difference        p
    recall@2         0.6667  [0.0000, 1.0000]    0.3333     +0.3333   1.0000
    precision@2      0.3333  [0.0000, 0.5000]    0.1667     +0.1667   1.0000
    hit@2            0.6667  [0.0000, 1.0000]    0.3333     +0.3333   1.0000
    mrr@2            0.5000  [0.0000, 1.0000]    0.1667     +0.3333   1.0000
    mrr_first@2      0.5000  [0.0000, 1.0000]    0.1667     +0.3333   1.0000
    ndcg@2           0.5436  [0.0000, 1.0000]    0.2103     +0.3333   1.0000
    ndcg_exp@2       0.5436  [0.0000, 1.0000]    0.2103     +0.3333   1.0000
    map@2            0.5000  [0.0000, 1.0000]    0.1667     +0.3333   1.0000
    3 queries
    --- stderr
    note: run.trec: queries not in the run (they count 0): 1
    note: other.trec: queries not in the run (they count 0): 1
    ");
}

#[test]
fn metrics_as_json_are_those_of_a_hand_calculation() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("run.trec"), RUN).unwrap();
    fs::write(folder.path().join("qrels.trec"), QRELS).unwrap();
    let output = langptune(
        folder.path(),
        "metrics --run run.trec --qrels qrels.trec --cutoffs 5,10,20 --json",
    );
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let mean = |key: &str| found[key]["mean"].as_f64().unwrap();
    let second = 1.0 / 3f64.log2();
    for (metric, expected) in [
        ("ndcg", (1.0 + second) / 3.0),
        ("recall", 2.0 / 3.0),
        ("hit", 2.0 / 3.0),
        ("mrr", 0.5),
        ("mrr_first", 0.5),
        ("map", 0.5),
    ] {
        for cutoff in [5, 10, 20] {
            let key = format!("{metric}@{cutoff}");
            assert!((mean(&key) - expected).abs() < 1e-12, "{key}: {}", mean(&key));
            let interval = found[&key]["ci95"].as_array().unwrap();
            assert!(interval[0].as_f64().unwrap() <= expected && expected <= interval[1].as_f64().unwrap());
        }
    }
    assert!((mean("precision@10") - 2.0 / 3.0 / 10.0).abs() < 1e-12);
}

#[test]
fn mistakes_in_metrics() {
    assert_snapshot!(with_trec_files("metrics --run run.trec --qrels qrels.trec --cutoffs 5,0"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: invalid value '0' for '--cutoffs <K>': a cutoff of 0 counts no place of the ranking: give a cutoff of at least 1

    For more information, try '--help'.
    ");
    assert_snapshot!(with_trec_files("metrics --run run.trec --qrels qrels.trec --cutoffs ten"), @r#"
    exit code 2
    --- stdout
    --- stderr
    error: invalid value 'ten' for '--cutoffs <K>': expected a cutoff, a whole number of at least 1 such as 10, found "ten"

    For more information, try '--help'.
    "#);
    assert_snapshot!(with_trec_files("metrics --run none.trec --qrels qrels.trec"), @r"
    exit code 1
    --- stdout
    --- stderr
    error: cannot open none.trec: No such file or directory (os error 2)
    ");
    assert_snapshot!(with_trec_files("metrics --run broken.trec --qrels qrels.trec"), @r#"
    exit code 1
    --- stdout
    --- stderr
    error: broken.trec: line 2, field "score": expected a finite number, found "high"
    "#);
    assert_snapshot!(page("metrics --run run.trec"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      --qrels <QRELS>

    Usage: langptune metrics --run <RUN> --qrels <QRELS>

    For more information, try '--help'.
    ");
}
