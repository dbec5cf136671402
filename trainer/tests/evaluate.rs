//! `langptune evaluate` and the report of a run, on tiny models and a dataset prepared for them.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use eval_core::Cutoff;
use eval_core::report::{
    Baseline, Checkpoint, Curves, F16File, IndexFile, ItemChunk, Manifest, ResultChunk, TextIndex, UserChunk,
    read_chunk, read_manifest,
};
use eval_core::retrieval::{EmbeddingStore, Query, Retriever};
use serde_json::Value;
use tempfile::TempDir;

fn fixture(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(path);
    path.to_str().unwrap().to_owned()
}

fn langptune(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_langptune"))
        .args(arguments)
        .output()
        .unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn done(arguments: &[&str]) -> String {
    let output = langptune(arguments);
    assert!(output.status.success(), "{arguments:?}\n{}", stderr(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A folder with a dataset, and what is made of it.
struct Place {
    folder: TempDir,
    dataset: PathBuf,
}

impl Place {
    fn prepared() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dataset = folder.path().join("dataset");
        let [lm, embedder] = tiny_models();
        let (reviews, metadata) = (fixture("raw/hard/reviews.jsonl.gz"), fixture("raw/hard/meta.jsonl.gz"));
        let raw = ["--reviews", &reviews, "--metadata", &metadata, "--template", "chat"];
        let models = ["--lm", &lm, "--embedder", &embedder, "--output", text(&dataset)];
        done(&[&["prepare"], &raw[..], &models].concat());
        Self { folder, dataset }
    }

    fn join(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A run of four updates with large rates, so that tuned models rank otherwise than those as loaded.
    fn trained(&self) -> PathBuf {
        let run = self.join("run");
        let [lm, embedder] = tiny_models();
        let places = ["--dataset", text(&self.dataset), "--output", text(&run)];
        let models = ["--lm_model", &lm, "--emb_model", &embedder];
        let settings = "--num_iterations 1 --num_emb_updates 2 --num_lm_updates 2 --lora_rank 4 --lora_alpha 8 --lr 0.02 \
            --emb_lr 0.01 --per_device_train_batch_size 1 --gradient_accumulation_steps 2 --noptepochs 1 \
            --whiten_rewards false --emb_per_device_train_batch_size 8 --response_length 12 --print_sample_output_freq 1";
        let settings: Vec<&str> = settings.split_whitespace().collect();
        done(&[&["train"], &places[..], &models, &settings].concat());
        run
    }
}

/// `evaluate` on the base models.
fn base_arguments<'a>(dataset: &'a Path, models: &'a [String; 2]) -> Vec<&'a str> {
    let [lm, embedder] = models;
    vec![
        "evaluate",
        "--dataset",
        text(dataset),
        "--lm",
        lm,
        "--embedder",
        embedder,
        "--response-length",
        "12",
    ]
}

fn tiny_models() -> [String; 2] {
    [fixture("models/tiny-lm"), fixture("models/tiny-embedder")]
}

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap()
}

fn row<'a>(evaluation: &'a Value, name: &str) -> &'a Value {
    let rows = evaluation["rows"].as_array().unwrap();
    rows.iter()
        .find(|row| row["name"] == name)
        .unwrap_or_else(|| panic!("no row {name}"))
}

fn names(evaluation: &Value) -> Vec<&str> {
    evaluation["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect()
}

#[test]
fn written_runs_are_worth_to_metrics_what_the_tables_say() {
    let place = Place::prepared();
    let (output, models) = (place.join("evaluation"), tiny_models());
    let mut arguments = base_arguments(&place.dataset, &models);
    arguments.extend(["--cutoffs", "3,10", "--json", "--output", text(&output)]);
    let evaluation = json(&done(&arguments));
    assert_eq!(
        evaluation,
        json(&fs::read_to_string(output.join("evaluation.json")).unwrap())
    );
    assert_eq!(
        names(&evaluation),
        [
            "generated/base/base",
            "reference/base",
            "raw-history/base",
            "random",
            "popular",
            "item-knn",
            "bm25",
            "ease"
        ]
    );
    let qrels = output.join("qrels.trec");
    for name in names(&evaluation) {
        let run = output.join(format!("runs/{}.trec", name.replace('/', "-")));
        let arguments = [
            "metrics",
            "--run",
            text(&run),
            "--qrels",
            text(&qrels),
            "--cutoffs",
            "3,10",
            "--json",
        ];
        let metrics = json(&done(&arguments));
        for (metric, summary) in row(&evaluation, name)["metrics"].as_object().unwrap() {
            assert_eq!(summary["mean"], metrics[metric]["mean"], "{name} {metric}");
        }
    }
}

#[test]
fn users_and_ties_are_counted() {
    let (place, models) = (Place::prepared(), tiny_models());
    let mut arguments = base_arguments(&place.dataset, &models);
    arguments.extend(["--baselines", "popular", "--json"]);
    let evaluation = json(&done(&arguments));
    let manifest = json(&fs::read_to_string(place.dataset.join("manifest.json")).unwrap());
    assert_eq!(evaluation["users"], manifest["stats"]["val_users"]);
    assert_eq!(evaluation["sealed"], false);
    assert_eq!(names(&evaluation), ["generated/base/base", "popular"]);
    let ties = &row(&evaluation, "popular")["ties"];
    assert_eq!(ties["targets"], evaluation["users"]);
    // Few counts, many items: the expected rank is not the fixed one.
    assert!(ties["tied_share"].as_f64().unwrap() > 0.0);
    assert_ne!(ties["mean_rank"], ties["mean_expected_rank"]);
}

#[test]
fn a_model_tuned_into_itself_writes_the_same_profiles_and_differs_in_nothing() {
    let place = Place::prepared();
    let (output, models) = (place.join("evaluation"), tiny_models());
    let mut arguments = base_arguments(&place.dataset, &models);
    let [lm, embedder] = &models;
    arguments.extend([
        "--lm-tuned",
        lm,
        "--embedder-tuned",
        embedder,
        "--samples",
        "2",
        "--baselines",
        "reference",
    ]);
    arguments.extend(["--json", "--output", text(&output)]);
    let evaluation = json(&done(&arguments));
    let written = |version: &str| fs::read_to_string(output.join(format!("profiles-{version}.jsonl"))).unwrap();
    assert_eq!(
        written("base").replace(r#""lm":"base""#, r#""lm":"tuned""#),
        written("tuned")
    );
    let tuned = row(&evaluation, "generated/tuned/tuned");
    assert_eq!(tuned["metrics"], row(&evaluation, "generated/base/base")["metrics"]);
    assert_eq!(tuned["profiles_per_user"], 2);
    let zero_shot: Vec<&Value> = tuned["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|comparison| comparison["with"] == "generated/base/base")
        .collect();
    assert_eq!(zero_shot.len(), 12);
    assert!(zero_shot.iter().all(|comparison| comparison["test"]["p_value"] == 1.0));
    // Two profiles a user make no TREC run, one does.
    assert!(!output.join("runs/generated-tuned-tuned.trec").exists());
    assert!(output.join("runs/reference-base.trec").is_file());
}

#[test]
fn a_users_first_profile_does_not_depend_on_how_many_are_written() {
    let (place, models) = (Place::prepared(), tiny_models());
    let first_profiles = |samples: &str, batch: &str| -> Vec<Value> {
        let output = place.join(samples);
        let mut arguments = base_arguments(&place.dataset, &models);
        arguments.extend(["--samples", samples, "--rollout-batch", batch, "--baselines", "random"]);
        arguments.extend(["--output", text(&output)]);
        done(&arguments);
        let lines = fs::read_to_string(output.join("profiles-base.jsonl")).unwrap();
        lines.lines().map(json).filter(|line| line["sample"] == 0).collect()
    };
    assert_eq!(first_profiles("1", "5"), first_profiles("3", "32"));
}

#[test]
fn a_runs_checkpoints_are_evaluated_with_the_runs_settings() {
    let place = Place::prepared();
    let run = place.trained();
    tuned_models_are_paired_two_by_two(&run);
    the_best_checkpoint_is_the_reports_best(&run);
    let missing = langptune(&["evaluate", "--run", text(&run), "--checkpoint", "update-000009"]);
    let expected = "no checkpoint update-000009; there are: update-000000, update-000001, update-000002";
    assert!(
        !missing.status.success() && stderr(&missing).contains(expected),
        "{}",
        stderr(&missing)
    );
}

fn tuned_models_are_paired_two_by_two(run: &Path) {
    let evaluation = json(&done(&["evaluate", "--run", text(run), "--json"]));
    assert_eq!(
        names(&evaluation)[..4],
        [
            "generated/base/base",
            "generated/tuned/base",
            "generated/base/tuned",
            "generated/tuned/tuned"
        ]
    );
    assert_eq!(
        names(&evaluation)[4..8],
        [
            "reference/base",
            "reference/tuned",
            "raw-history/base",
            "raw-history/tuned"
        ]
    );
    assert_eq!(evaluation["sampling"]["response_length"], 12);
    assert!(
        evaluation["lm"]["tuned"]
            .as_str()
            .unwrap()
            .ends_with("update-000004/lm")
    );
    assert!(row(&evaluation, "generated/base/base")["metrics"]["ndcg@20"]["mean"].is_number());
    let with: Vec<&Value> = row(&evaluation, "generated/tuned/tuned")["comparisons"]
        .as_array()
        .unwrap()
        .iter()
        .map(|comparison| &comparison["with"])
        .collect();
    assert!(with.iter().any(|with| **with == "generated/base/tuned"), "{with:?}");
    assert_ne!(
        row(&evaluation, "reference/tuned")["ties"]["mean_rank"],
        row(&evaluation, "reference/base")["ties"]["mean_rank"]
    );

    let tables = done(&[
        "evaluate",
        "--run",
        text(run),
        "--checkpoint",
        "update-000000",
        "--baselines",
        "reference",
    ]);
    let lines: Vec<&str> = tables.lines().collect();
    assert!(lines[0].starts_with("val split, "), "{tables}");
    for expected in ["at 20", "at 10", "at 5", "ndcg@20", "language model tuned", "ties"] {
        assert!(
            lines.iter().any(|line| line.starts_with(expected)),
            "{expected}\n{tables}"
        );
    }
}

fn the_best_checkpoint_is_the_reports_best(run: &Path) {
    let evaluation = json(&done(&[
        "evaluate",
        "--run",
        text(run),
        "--checkpoint",
        "best",
        "--baselines",
        "random",
        "--json",
    ]));
    let manifest = report_manifest(run);
    let ndcg = |checkpoint: &Checkpoint| checkpoint.generated.get("ndcg@20".parse().unwrap()).unwrap().mean;
    let most = manifest.checkpoints.iter().map(ndcg).fold(f64::MIN, f64::max);
    let best = manifest
        .checkpoints
        .iter()
        .find(|checkpoint| ndcg(checkpoint) == most)
        .unwrap();
    let tuned = evaluation["embedder"]["tuned"].as_str().unwrap();
    assert!(tuned.ends_with(&format!("{}/embedder", best.name)), "{tuned}");
}

#[test]
fn evaluating_the_sealed_split_says_so() {
    let Place { dataset, .. } = &Place::prepared();
    let output = langptune(&[
        "evaluate",
        "--dataset",
        text(dataset),
        "--split",
        "test",
        "--baselines",
        "popular",
        "--json",
    ]);
    assert!(
        output.status.success() && stderr(&output).contains("sealed"),
        "{}",
        stderr(&output)
    );
    let evaluation = json(&String::from_utf8(output.stdout).unwrap());
    assert_eq!(
        (&evaluation["sealed"], &evaluation["split"]),
        (&true.into(), &"test".into())
    );
}

#[test]
fn a_baseline_without_its_embedder_is_left_out_and_named() {
    let Place { dataset, .. } = &Place::prepared();
    let tables = done(&[
        "evaluate",
        "--dataset",
        text(dataset),
        "--baselines",
        "reference,random",
    ]);
    assert!(tables.contains("reference left out: there is no embedder"), "{tables}");
    assert!(tables.lines().any(|line| line.starts_with("random ")), "{tables}");
}

#[test]
fn mistakes_say_what_was_found_and_what_to_do() {
    let place = Place::prepared();
    let dataset = &place.dataset;
    let failed = |arguments: &[&str], code: i32| -> String {
        let output = langptune(&[&["evaluate"], arguments].concat());
        assert_eq!(output.status.code(), Some(code), "{}", stderr(&output));
        stderr(&output)
    };
    let above = failed(
        &[
            "--dataset",
            text(dataset),
            "--cutoffs",
            "5,100000",
            "--baselines",
            "popular",
        ],
        1,
    );
    assert!(above.contains("cutoffs: 100000 is above the catalogue's"), "{above}");
    let zero = failed(&["--dataset", text(dataset), "--cutoffs", "0"], 2);
    assert!(zero.contains("cutoff of at least 1"), "{zero}");
    let nothing = failed(&[], 2);
    assert!(nothing.contains("--dataset"), "{nothing}");

    let taken = place.join("taken");
    fs::create_dir(&taken).unwrap();
    fs::write(taken.join("notes.txt"), "mine").unwrap();
    let arguments = [
        "--dataset",
        text(dataset),
        "--baselines",
        "popular",
        "--output",
        text(&taken),
    ];
    assert!(failed(&arguments, 1).contains("is not empty"));
    assert!(failed(&[&arguments[..], &["--overwrite"]].concat(), 1).contains("no evaluation.json"));
    assert_eq!(fs::read_dir(&taken).unwrap().count(), 1);
}

fn report_manifest(run: &Path) -> Manifest {
    read_manifest(fs::File::open(run.join("report/manifest.json")).unwrap()).unwrap()
}

fn chunk<T: serde::de::DeserializeOwned>(run: &Path, file: &str) -> T {
    read_chunk(fs::File::open(run.join("report").join(file)).unwrap()).unwrap()
}

fn vectors(run: &Path, file: &F16File) -> EmbeddingStore {
    let reader = fs::File::open(run.join("report").join(&file.file)).unwrap();
    EmbeddingStore::read_f16(reader, file.rows, file.dims).unwrap()
}

/// Every checkpoint's results, user by user, as recorded.
fn results(run: &Path, manifest: &Manifest, checkpoint: &Checkpoint) -> Vec<eval_core::report::UserResult> {
    let files = checkpoint.results.as_ref().unwrap().files.iter().enumerate();
    files
        .flat_map(|(number, file)| {
            let chunk: ResultChunk = chunk(run, file);
            chunk.check(manifest, checkpoint, number).unwrap();
            chunk.results
        })
        .collect()
}

#[test]
fn a_run_leaves_a_report_behind() {
    let place = Place::prepared();
    let run = place.trained();
    its_baselines_are_those_of_evaluate(&run, &place.dataset);
    its_vectors_rank_as_recorded(&run);
    its_indexes_find_what_its_texts_hold(&run);
    it_keeps_the_vectors_of_the_best_and_the_last_checkpoint_alone(&run);
    its_metrics_are_those_of_the_log(&run);
    its_curves_are_those_of_the_log(&run);
    it_describes_the_models_and_hides_where_they_lay(&run);
}

fn its_baselines_are_those_of_evaluate(run: &Path, dataset: &Path) {
    const NAMES: [&str; 5] = ["random", "popular", "item-knn", "bm25", "ease"];
    let manifest = report_manifest(run);
    let (seed, baselines) = (&manifest.config["run.seed"], NAMES.join(","));
    let arguments = ["evaluate", "--dataset", text(dataset), "--baselines", &baselines];
    let settings = ["--seed", seed, "--cutoffs", "20,10,5", "--json"];
    let evaluation = json(&done(&[&arguments[..], &settings].concat()));
    let names: Vec<&str> = manifest
        .baselines
        .iter()
        .map(|baseline| baseline.name.as_str())
        .collect();
    assert_eq!(names, NAMES);
    for baseline in &manifest.baselines {
        let row = row(&evaluation, &baseline.name);
        let recorded = serde_json::to_value(baseline).unwrap();
        assert_eq!(recorded["metrics"]["metrics"], row["metrics"], "{}", baseline.name);
        assert_eq!(recorded["ties"], row["ties"], "{}", baseline.name);
        let results = baseline.results.as_ref().unwrap();
        let ranks = results.files.iter().enumerate().flat_map(|(number, file)| {
            let chunk: ResultChunk = chunk(run, file);
            chunk.check_baseline(&manifest, baseline, number).unwrap();
            chunk
                .results
                .into_iter()
                .map(|result| result.generated[0].targets[0].rank)
        });
        let ranks: Vec<f64> = ranks.map(f64::from).collect();
        let mean = ranks.iter().sum::<f64>() / ranks.len() as f64;
        assert!((mean - baseline.ties.mean_rank).abs() < 1e-9, "{}", baseline.name);
        for checkpoint in &manifest.checkpoints {
            its_tests_compare_means(checkpoint, baseline);
        }
    }
}

/// Whatever else a paired test says, its difference is that of the two means.
fn its_tests_compare_means(checkpoint: &Checkpoint, baseline: &Baseline) {
    let tests: Vec<_> = checkpoint
        .comparisons
        .iter()
        .filter(|test| test.with == baseline.name)
        .collect();
    assert_eq!(tests.len(), 12);
    for comparison in tests {
        let mean = |summary: &eval_core::metrics::Summary| summary.get(comparison.metric).unwrap().mean;
        let difference = mean(&checkpoint.generated) - mean(&baseline.metrics);
        assert!((comparison.test.mean_difference - difference).abs() < 1e-12);
    }
}

fn its_vectors_rank_as_recorded(run: &Path) {
    let manifest = report_manifest(run);
    let mut users = Vec::new();
    for (number, file) in manifest.users.files.iter().enumerate() {
        let chunk: UserChunk = chunk(run, file);
        chunk.check(&manifest, number).unwrap();
        users.extend(chunk.users);
    }
    for (number, file) in manifest.items.files.iter().enumerate() {
        let chunk: ItemChunk = chunk(run, file);
        chunk.check(&manifest, number).unwrap();
    }
    let histories: Vec<Vec<u32>> = users
        .iter()
        .map(|user| user.history.iter().map(|interaction| interaction.item).collect())
        .collect();
    let queries: Vec<Query<'_>> = users
        .iter()
        .zip(&histories)
        .map(|(user, masked)| Query {
            masked,
            targets: &user.targets,
        })
        .collect();
    let mut with_vectors = 0;
    for checkpoint in &manifest.checkpoints {
        let results = results(run, &manifest, checkpoint);
        let Some(embeddings) = &checkpoint.embeddings else {
            continue;
        };
        with_vectors += 1;
        let retriever = Retriever::new(vectors(run, &embeddings.items), manifest.similarity).unwrap();
        let search = |file| {
            retriever
                .search(&vectors(run, file), &queries, Some(Cutoff::new(20).unwrap()))
                .unwrap()
        };
        let (generated, reference) = (
            search(&embeddings.profiles),
            search(embeddings.references.as_ref().unwrap()),
        );
        for ((recorded, generated), reference) in results.iter().zip(&generated).zip(&reference) {
            let expected = recorded.generated[0].profile.clone();
            assert_eq!(
                recorded.generated[0],
                eval_core::report::Found::new(expected, generated)
            );
            assert_eq!(recorded.reference, Some(eval_core::report::Found::new(None, reference)));
        }
    }
    assert!((1..=2).contains(&with_vectors));
}

/// Every word of every history and every profile, against a search of all texts.
fn its_indexes_find_what_its_texts_hold(run: &Path) {
    let manifest = report_manifest(run);
    let items = manifest
        .items
        .files
        .iter()
        .flat_map(|file| chunk::<ItemChunk>(run, file).items);
    let titles: Vec<String> = items.map(|item| item.title).collect();
    let users = manifest
        .users
        .files
        .iter()
        .flat_map(|file| chunk::<UserChunk>(run, file).users);
    let histories: Vec<Vec<String>> = users
        .map(|user| {
            let texts = user
                .history
                .into_iter()
                .flat_map(|interaction| [titles[interaction.item as usize].clone(), interaction.review.unwrap()]);
            texts.collect()
        })
        .collect();
    assert_found(run, manifest.history_index.as_ref().unwrap(), &histories);
    for checkpoint in &manifest.checkpoints {
        let profiles: Vec<Vec<String>> = results(run, &manifest, checkpoint)
            .into_iter()
            .map(|result| result.generated.into_iter().filter_map(|found| found.profile).collect())
            .collect();
        assert_found(run, checkpoint.profile_index.as_ref().unwrap(), &profiles);
    }
}

/// Looks up every word of the users' `texts` in `index`.
fn assert_found(run: &Path, index: &TextIndex, texts: &[Vec<String>]) {
    let words: Vec<BTreeSet<String>> = texts
        .iter()
        .map(|texts| texts.iter().flat_map(|text| eval_core::report::words(text)).collect())
        .collect();
    let files: Vec<IndexFile> = index
        .files
        .iter()
        .map(|listed| IndexFile::parse(&fs::read(run.join("report").join(&listed.file)).unwrap(), texts.len()).unwrap())
        .collect();
    files
        .iter()
        .enumerate()
        .for_each(|(place, file)| file.check(index, place).unwrap());
    let all: BTreeSet<&String> = words.iter().flatten().collect();
    assert!(!all.is_empty());
    for word in all {
        let having = (0..).zip(&words).filter(|(_, words)| words.contains(word));
        let having: Vec<u32> = having.map(|(user, _)| user).collect();
        let place = index.files_for_word(word).next().unwrap();
        assert_eq!(files[place].lookup(word), having, "{word}");
    }
}

fn it_keeps_the_vectors_of_the_best_and_the_last_checkpoint_alone(run: &Path) {
    let manifest = report_manifest(run);
    let names: Vec<&str> = manifest
        .checkpoints
        .iter()
        .map(|checkpoint| checkpoint.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "update-000000",
            "update-000001",
            "update-000002",
            "update-000003",
            "update-000004"
        ]
    );
    let phases: Vec<&str> = manifest
        .checkpoints
        .iter()
        .map(|checkpoint| checkpoint.phase.as_str())
        .collect();
    assert_eq!(phases, ["embedder", "embedder", "lm", "lm", "end"]);
    assert!(manifest.checkpoints[4].embeddings.is_some());
    let kept = manifest
        .checkpoints
        .iter()
        .filter(|checkpoint| checkpoint.embeddings.is_some())
        .count();
    let mut files = Vec::new();
    for name in names {
        let folder = run.join("report/checkpoints").join(name);
        let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        files.extend(entries.filter(|path| path.extension().is_some_and(|extension| extension == "f16")));
    }
    assert_eq!(files.len(), 3 * kept);
}

fn its_curves_are_those_of_the_log(run: &Path) {
    let manifest = report_manifest(run);
    let curves: Curves = chunk(run, manifest.curves.as_ref().unwrap());
    curves.check().unwrap();
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let logged: Vec<Value> = log.lines().map(json).collect();
    let mut names: Vec<&String> = logged
        .iter()
        .flat_map(|line| line.as_object().unwrap().keys())
        .filter(|name| !["step", "wall_time"].contains(&name.as_str()))
        .filter(|name| !name.starts_with("objective/gen_") && !name.starts_with("objective/ref_"))
        .collect();
    names.sort();
    names.dedup();
    let found: Vec<&String> = curves.curves.iter().map(|curve| &curve.name).collect();
    assert_eq!(found, names);
    for curve in &curves.curves {
        let points = logged
            .iter()
            .filter_map(|line| Some((line["step"].as_u64().unwrap(), line.get(&curve.name)?.as_f64()?)));
        let (steps, values): (Vec<u64>, Vec<f64>) = points.unzip();
        assert_eq!((&curve.steps, &curve.values), (&steps, &values), "{}", curve.name);
    }
}

fn its_metrics_are_those_of_the_log(run: &Path) {
    let log = fs::read_to_string(run.join("metrics.jsonl")).unwrap();
    let logged: Vec<Value> = log
        .lines()
        .map(json)
        .filter(|line| line.get("objective/gen_ndcg@20").is_some())
        .collect();
    let manifest = report_manifest(run);
    assert_eq!(logged.len(), manifest.checkpoints.len());
    for (checkpoint, logged) in manifest.checkpoints.iter().zip(&logged) {
        assert_eq!(logged["step"], checkpoint.update);
        let mean =
            |summary: &eval_core::metrics::Summary, metric: &str| summary.get(metric.parse().unwrap()).unwrap().mean;
        let close = |a: f64, name: &str| (a - logged[name].as_f64().unwrap()).abs() < 1e-6;
        assert!(close(mean(&checkpoint.generated, "ndcg@20"), "objective/gen_ndcg@20"));
        assert!(close(
            mean(checkpoint.reference.as_ref().unwrap(), "mrr@5"),
            "objective/ref_mrr@5"
        ));
    }
    let with: Vec<&str> = manifest.checkpoints[4]
        .comparisons
        .iter()
        .map(|comparison| comparison.with.as_str())
        .collect();
    assert!(
        with.contains(&"reference") && with.contains(&"update-000000"),
        "{with:?}"
    );
}

fn it_describes_the_models_and_hides_where_they_lay(run: &Path) {
    let manifest = report_manifest(run);
    assert!(
        !fs::read_to_string(run.join("report/manifest.json"))
            .unwrap()
            .contains(text(run))
    );
    assert_eq!(manifest.language_model.name, "tiny-lm");
    assert_eq!(manifest.language_model.architecture, "LlamaForCausalLM");
    assert!(manifest.language_model.trained_parameters < manifest.language_model.parameters);
    assert_eq!(manifest.embedder.trained_parameters, manifest.embedder.parameters);
}
