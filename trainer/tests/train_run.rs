//! A whole run of the binary on tiny models: raw reviews to a dataset, both phases, evaluation, checkpoints.

#![allow(clippy::unwrap_used)]

mod tiny_run;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;
use tiny_run::{arguments, assert_same, contents, fixture, langptune, lines, prepared, text};

/// One iteration of both phases, then flags and values by pairs.
fn train(dataset: &Path, output: &Path, more: &[(&str, &str)]) -> (bool, String) {
    let schedule = [
        ("--num_iterations", "1"),
        ("--num_emb_updates", "2"),
        ("--num_lm_updates", "2"),
        ("--print_sample_output_freq", "3"),
    ];
    let arguments = arguments(dataset, output, &[&schedule[..], more].concat());
    langptune(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
}

fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

#[test]
fn a_run_trains_both_models_and_writes_what_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let (run, trace) = (folder.path().join("run"), folder.path().join("trace.jsonl"));
    let (done, output) = train(
        &dataset,
        &run,
        &[
            ("--lora_rank", "4"),
            ("--lora_alpha", "8"),
            ("--kl_coef", "0.2"),
            ("--trace", text(&trace)),
        ],
    );
    assert!(done, "{output}");

    // Evaluated and saved before updates 1 and 4 and at the end, under the updates that were done.
    let checkpoints: BTreeSet<String> = fs::read_dir(run.join("checkpoints"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let expected = ["update-000000", "update-000003", "update-000004"].map(str::to_owned);
    assert_eq!(checkpoints, BTreeSet::from(expected));

    let metrics = lines(&run.join("metrics.jsonl"));
    let steps_with = |name: &str| -> Vec<u64> {
        let with = metrics.iter().filter(|line| line.get(name).is_some());
        with.map(|line| line["step"].as_u64().unwrap()).collect()
    };
    assert_eq!(steps_with("embedder/loss"), [1, 2]);
    assert_eq!(steps_with("dpo/loss/policy"), [3, 4]);
    assert_eq!(steps_with("objective/gen_ndcg@20"), [1, 4, 5]);
    assert_eq!(steps_with("objective/ref_recall@5"), [1, 4, 5]);

    for update in lines(&trace) {
        check_totals(&update);
    }
    assert_eq!(lines(&trace).len(), 2);
}

/// The whitened totals follow from the traced rewards and log-probabilities.
fn check_totals(update: &Value) {
    let responses: Vec<&Value> = update["responses"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|pair| pair.as_array().unwrap())
        .collect();
    let raw: Vec<f64> = responses
        .iter()
        .map(|response| {
            // Printed as f32: the shortest decimals, not the f64 of the same value.
            let sum = |field: &str| {
                numbers(&response[field])
                    .iter()
                    .map(|&x| f64::from(x as f32))
                    .sum::<f64>()
            };
            response["reward"].as_f64().unwrap() - 0.2 * (sum("logprobs") - sum("reference_logprobs"))
        })
        .collect();
    let mean = raw.iter().sum::<f64>() / raw.len() as f64;
    let variance = raw.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / raw.len() as f64;
    for (response, raw) in responses.iter().zip(&raw) {
        let total = response["total_reward"].as_f64().unwrap();
        assert!((total - (raw - mean) / (variance + 1e-8).sqrt()).abs() < 1e-6);
    }
    assert_eq!(update["losses"].as_array().unwrap().len(), 4);
}

/// Users that go through the model together give what they give one by one, but for the last bits.
#[test]
fn the_size_of_a_micro_batch_changes_no_result() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    // Three of four users together, then the fourth; and each alone.
    let run = |name: &str, together: &str, steps: &str| {
        let (output, trace) = (folder.path().join(name), folder.path().join(format!("{name}.jsonl")));
        let more = [
            ("--per_device_train_batch_size", together),
            ("--gradient_accumulation_steps", steps),
            ("--loss-reduction", "mean"),
            ("--lora_rank", "4"),
            ("--lora_alpha", "8"),
            ("--trace", text(&trace)),
        ];
        let (done, text) = train(&dataset, &output, &more);
        assert!(done, "{text}");
        lines(&trace)
    };
    let (apart, together) = (run("apart", "1", "6"), run("together", "3", "2"));
    assert_eq!(apart.len(), 2);
    for (one, other) in apart.iter().zip(&together) {
        assert_eq!(one["users"], other["users"]);
        for (a, b) in numbers(&one["losses"]).iter().zip(numbers(&other["losses"])) {
            assert!((a - b).abs() < 1e-5 * a.abs().max(1.0), "{a} {b}");
        }
    }
}

#[test]
fn a_run_repeated_is_the_same_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let [first, second, other] = ["first", "second", "other"].map(|name| folder.path().join(name));
    let part = [("--trainable", "last-n"), ("--num_layers_unfrozen", "1")];
    for output in [&first, &second] {
        let (done, text) = train(&dataset, output, &part);
        assert!(done, "{text}");
    }
    assert_same(&second, &contents(&first), "repeated");
    let (done, output) = train(
        &dataset,
        &other,
        &[&part[..], &[("--seed", "2"), ("--rollout_batch", "3")]].concat(),
    );
    assert!(done, "{output}");
    for model in ["lm", "embedder"] {
        let file = Path::new("checkpoints/update-000004")
            .join(model)
            .join("model.safetensors");
        assert_ne!(
            fs::read(first.join(&file)).unwrap(),
            fs::read(other.join(&file)).unwrap()
        );
    }
}

/// Log-probabilities of some text under the model in `folder`, by the program.
fn logprobs(folder: &Path, input: &Path) -> Vec<f64> {
    let (done, output) = langptune(&["logprob", "--model", text(folder), "--input", text(input)]);
    assert!(done, "{output}");
    let line: Value = serde_json::from_str(output.lines().next().unwrap()).unwrap();
    numbers(&Value::from(line["logprobs"].as_array().unwrap()[1..].to_vec()))
}

#[test]
fn an_exported_model_is_the_trained_one_without_its_adapter() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let (run, exported) = (folder.path().join("run"), folder.path().join("exported"));
    let (done, output) = train(&dataset, &run, &[("--lora_rank", "4"), ("--lora_alpha", "64")]);
    assert!(done, "{output}");
    let export = |more: &[&str]| langptune(&[&["export", "--output", text(&exported)][..], more].concat());
    let (done, output) = export(&["--run", text(&run), "--checkpoint", "last"]);
    assert!(done, "{output}");
    assert!(output.contains("layers merged"), "{output}");

    let input = folder.path().join("texts.jsonl");
    fs::write(&input, "{\"text\": \"a film about the sea and a long journey\"}\n").unwrap();
    let trained = logprobs(&run.join("checkpoints/update-000004/lm"), &input);
    let untrained = logprobs(&fixture("models/tiny-lm"), &input);
    let merged = logprobs(&exported.join("lm"), &input);
    let apart = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
    assert_eq!(merged.len(), trained.len());
    assert!(apart(&merged, &trained) < 1e-4, "{merged:?} {trained:?}");
    assert!(
        apart(&merged, &untrained) > 1e-2,
        "training changed nothing: {untrained:?}"
    );
    let weights = "embedder/model.safetensors";
    assert_eq!(
        fs::read(exported.join(weights)).unwrap(),
        fs::read(run.join("checkpoints/update-000004").join(weights)).unwrap()
    );

    let lm = run.join("checkpoints/update-000004/lm");
    let (done, output) = export(&["--lm", text(&lm)]);
    assert!(!done && output.contains("exported"), "{output}");
    let (done, output) = export(&["--lm", text(&lm), "--dtype", "bf16", "--overwrite"]);
    assert!(done, "{output}");
    assert!(exported.join("config.json").is_file() && !exported.join("embedder").exists());
    fs::remove_file(exported.join("langptune_export.json")).unwrap();
    let (done, output) = export(&["--lm", text(&lm), "--overwrite"]);
    assert!(!done && output.contains("langptune_export.json"), "{output}");
}

#[test]
fn the_raw_history_baseline_needs_no_language_model() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    let (done, output) = train(&dataset, &run, &[("--profiles", "none")]);
    assert!(done, "{output}");
    assert!(!run.join("checkpoints/update-000002/lm").exists());
    assert!(
        run.join("checkpoints/update-000002/embedder/model.safetensors")
            .is_file()
    );
}

#[test]
fn a_cutoff_beyond_the_catalogue_is_refused_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    let (done, output) = train(&dataset, &run, &[("--topk", "1000")]);
    assert!(
        !done && output.contains("topk: 1000 is above the catalogue's"),
        "{output}"
    );
    assert!(!run.exists());
}

#[test]
fn a_run_in_the_way_is_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    fs::create_dir(&run).unwrap();
    fs::write(run.join("notes.txt"), "mine").unwrap();
    let (done, output) = train(&dataset, &run, &[]);
    assert!(!done && output.contains("--overwrite"), "{output}");
    assert_eq!(fs::read_to_string(run.join("notes.txt")).unwrap(), "mine");
}

#[test]
fn a_run_that_replaces_another_leaves_none_of_its_checkpoints() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    fs::create_dir_all(run.join("checkpoints/update-000999/lm")).unwrap();
    let (done, output) = train(&dataset, &run, &[("--profiles", "none"), ("--overwrite", "true")]);
    assert!(done, "{output}");
    assert!(!run.join("checkpoints/update-000999").exists());
}

#[test]
fn prompts_beyond_the_language_models_positions_are_refused_with_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let (run, lm) = (folder.path().join("run"), folder.path().join("short-lm"));
    fs::create_dir(&lm).unwrap();
    for name in ["model.safetensors", "tokenizer.json", "tokenizer_config.json"] {
        fs::copy(fixture("models/tiny-lm").join(name), lm.join(name)).unwrap();
    }
    let config = fs::read_to_string(fixture("models/tiny-lm/config.json")).unwrap();
    let positions = "\"max_position_embeddings\": ";
    assert!(config.contains(&format!("{positions}4096")));
    let config = config.replace(&format!("{positions}4096"), &format!("{positions}600"));
    fs::write(lm.join("config.json"), config).unwrap();
    let (lm, embedder) = (text(&lm), fixture("models/tiny-embedder"));
    let arguments = [
        "train",
        "--dataset",
        text(&dataset),
        "--output",
        text(&run),
        "--lm",
        lm,
        "--embedder",
    ];
    let (done, output) = langptune(&[&arguments[..], &[text(&embedder)]].concat());
    assert!(
        !done && output.contains("600 positions") && output.contains("--max-prompt-tokens"),
        "{output}"
    );
    assert!(!run.exists());
}
