//! Training in several processes: the same as in one where batch, whitening and negatives are the same; each rank for itself
//! by default; and an end for all when one ends.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod tiny_run;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use models::{AdamConfig, CheckpointReader, Device, Encoder, EncoderOptions, contrastive_loss};
use serde_json::Value;
use tiny_run::{arguments, fixture, lines, prepared, text};
use trainer::data::Dataset;
use trainer::train::deal::Deal;
use trainer::train::open_encoder;
use trainer::train::order::EpochOrder;

/// One iteration of both phases, with a step after every second embedder batch.
const SCHEDULE: [(&str, &str); 8] = [
    ("--num_iterations", "1"),
    ("--num_emb_updates", "4"),
    ("--num_lm_updates", "2"),
    ("--print_sample_output_freq", "4"),
    ("--lora_rank", "4"),
    ("--lora_alpha", "8"),
    ("--kl_coef", "0.2"),
    ("--rollout_batch", "5"),
];

/// `train` in `world` processes, which share `users` of an update and `pairs` of an embedder batch.
fn launch(world: usize, users: usize, pairs: usize, [dataset, run]: [&Path; 2], more: &[(&str, &str)]) -> Command {
    let (users, pairs) = ((users / world).to_string(), (pairs / world).to_string());
    let trace = run.with_extension("trace");
    let own = [
        ("--gradient_accumulation_steps", users.as_str()),
        ("--emb_per_device_train_batch_size", &pairs),
        ("--trace", text(&trace)),
    ];
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    if world > 1 {
        command.args(["launch", "--nproc", &world.to_string(), "--"]);
    }
    command
        .args(words(dataset, run, &[&SCHEDULE[..], &own, more].concat()))
        .env("RAYON_NUM_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// [`arguments`] without the flags whose last value is empty.
fn words(dataset: &Path, run: &Path, settings: &[(&str, &str)]) -> Vec<String> {
    let mut words = arguments(dataset, run, settings);
    while let Some(empty) = words.iter().position(String::is_empty) {
        words.drain(empty - 1..=empty);
    }
    words
}

fn done(mut command: Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}

/// All tensors of a checkpoint's model.
fn weights(run: &Path, checkpoint: &str, model: &str) -> BTreeMap<String, Vec<f64>> {
    let folder = run.join("checkpoints").join(checkpoint).join(model);
    let adapter = folder.join("adapter_model.safetensors");
    let file = if adapter.is_file() {
        adapter
    } else {
        folder.join("model.safetensors")
    };
    tensors(&file)
}

/// All tensors of a file.
fn tensors(file: &Path) -> BTreeMap<String, Vec<f64>> {
    let reader = CheckpointReader::open_file(file).unwrap();
    let read = |name: &str| {
        let shape = reader.shape(name).unwrap();
        let values = reader.read(name, &shape).unwrap().0;
        (name.to_owned(), values.into_iter().map(f64::from).collect())
    };
    let names: Vec<String> = reader.names().map(str::to_owned).collect();
    names.iter().map(|name| read(name)).collect()
}

/// The largest difference of two models, relative to the largest change that training made.
fn apart(
    start: &BTreeMap<String, Vec<f64>>,
    one: &BTreeMap<String, Vec<f64>>,
    other: &BTreeMap<String, Vec<f64>>,
) -> f64 {
    let (mut change, mut difference) = (0f64, 0f64);
    for (name, start) in start {
        for ((start, one), other) in start.iter().zip(&one[name]).zip(&other[name]) {
            change = change.max((one - start).abs());
            difference = difference.max((one - other).abs());
        }
    }
    assert!(change > 1e-4, "nothing was trained");
    difference / change
}

fn metrics(run: &Path) -> BTreeMap<(u64, String), f64> {
    let mut found = BTreeMap::new();
    for line in lines(&run.join("metrics.jsonl")) {
        let step = line["step"].as_u64().unwrap();
        for (name, value) in line.as_object().unwrap() {
            let timed = ["step", "wall_time"].contains(&name.as_str()) || name.starts_with("distributed/");
            if let (false, Some(value)) = (timed, value.as_f64()) {
                found.insert((step, name.clone()), value);
            }
        }
    }
    found
}

const GLOBAL: [(&str, &str); 2] = [("--global_whitening", "true"), ("--global_negatives", "true")];

/// How many processes, and whether they share the optimizer's state out.
const WAYS: [(usize, &str); 5] = [(1, "true"), (2, "true"), (3, "true"), (2, "false"), (3, "false")];

fn assert_same_training(ways: &[(usize, &str)], dataset: &Path, folder: &Path, more: &[(&str, &str)]) {
    let runs: Vec<_> = ways
        .iter()
        .map(|(world, sharded)| folder.join(format!("run-{world}-{sharded}")))
        .collect();
    for (&(world, sharded), run) in ways.iter().zip(&runs) {
        let own = [("--shard_optimizer", sharded)];
        let said = done(launch(world, 6, 6, [dataset, run], &[&GLOBAL[..], &own, more].concat()));
        if world > 1 {
            assert_kept(&said, if sharded == "true" { world } else { 1 });
        }
        assert_pace(run, world);
    }
    let alone = &runs[0];
    for run in &runs[1..] {
        let (expected, found) = (metrics(alone), metrics(run));
        assert!(expected.keys().eq(found.keys()));
        for ((step, name), value) in expected {
            let other = found[&(step, name.clone())];
            // Values near 0 are sums that cancel, of terms near 1.
            assert!(
                (value - other).abs() <= 1e-6 * value.abs().max(1.0),
                "{step} {name}: {value} {other}"
            );
        }
        for (model, from, to) in [
            ("embedder", "update-000000", "update-000004"),
            ("lm", "update-000000", "update-000006"),
        ] {
            let start = weights(alone, from, model);
            let apart = apart(&start, &weights(alone, to, model), &weights(run, to, model));
            assert!(apart < 1e-6, "{}: {model} is {apart:e} apart", run.display());
            // What is saved of the optimizers is whole, whoever kept it.
            let [one, other] = [alone, run].map(|run| optimizer(run, to, model));
            assert!(one.keys().eq(other.keys()) && !one.is_empty());
            for (name, values) in &one {
                let most = values.iter().fold(1e-30, |most: f64, value| most.max(value.abs()));
                let pairs = values.iter().zip(&other[name]);
                let worst = pairs.map(|(one, other)| (one - other).abs()).fold(0.0, f64::max);
                assert!(worst <= 1e-5 * most, "{}: {name}: {worst:e} of {most:e}", run.display());
            }
        }
        // The same users in the same order, with the same profiles and rewards.
        let traces = [alone, run].map(|run| lines(&run.with_extension("trace")));
        for (one, other) in traces[0].iter().zip(&traces[1]) {
            assert_eq!(one["users"], other["users"]);
            assert_eq!(one["responses"][5][1]["tokens"], other["responses"][5][1]["tokens"]);
        }
    }
}

/// Rank 0 must have said that it keeps moments of no more than its share, of which there are so many.
fn assert_kept(said: &str, shares: usize) {
    let line = said.lines().find(|line| line.contains("the optimizer's moments of"));
    let numbers: Vec<usize> = line.unwrap().split(' ').filter_map(|word| word.parse().ok()).collect();
    let [kept, all] = numbers[..] else { panic!("{line:?}") };
    // A parameter that does not divide evenly costs at most one value.
    assert!(
        all > 1000 && kept >= all / shares && kept <= all / shares + 200,
        "{line:?}"
    );
}

/// Every update of several processes must say what they lose to each other and how fast they are; one process alone loses nothing.
fn assert_pace(run: &Path, world: usize) {
    let lines = lines(&run.join("metrics.jsonl"));
    let of = |name: &str| -> Vec<f64> { lines.iter().filter_map(|line| line[name].as_f64()).collect() };
    let updates = if world > 1 { 6 } else { 0 };
    for name in ["idle_share", "idle_share_max", "communication_share"] {
        let shares = of(&format!("distributed/{name}"));
        assert_eq!(shares.len(), updates, "{name}");
        assert!(
            shares.iter().all(|share| (0.0..=1.0).contains(share)),
            "{name}: {shares:?}"
        );
    }
    for name in ["tokens_per_second", "tokens_per_second_rank", "peak_memory_bytes"] {
        let values = of(&format!("distributed/{name}"));
        assert!(
            values.len() == updates && values.iter().all(|&value| value > 0.0),
            "{name}: {values:?}"
        );
    }
    let events = fs::read_dir(run.join("events")).unwrap();
    let described = events
        .map(|entry| fs::read(entry.unwrap().path()).unwrap())
        .any(|bytes| {
            let text = String::from_utf8_lossy(&bytes);
            text.contains(&format!("rank {}: host", world - 1)) && text.contains("collectives over TCP")
        });
    assert_eq!(described, world > 1);
}

/// What a checkpoint holds of a model's optimizer.
fn optimizer(run: &Path, checkpoint: &str, model: &str) -> BTreeMap<String, Vec<f64>> {
    let state = run.join("checkpoints").join(checkpoint).join("state");
    tensors(&state.join(format!("{model}-optimizer.safetensors")))
}

#[test]
fn one_two_and_three_processes_train_the_same_adapter_and_embedder() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    assert_same_training(&WAYS, &dataset, folder.path(), &[]);
}

/// Settings for what has no adapters.
fn without_adapters(trainable: &'static str) -> [(&'static str, &'static str); 5] {
    [
        ("--trainable", trainable),
        ("--lora_rank", ""),
        ("--lora_alpha", ""),
        ("--num_lm_updates", "2"),
        ("--noptepochs", "2"),
    ]
}

#[test]
fn one_two_and_three_processes_train_the_same_last_layers() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let settings = [&without_adapters("last-n")[..], &[("--num_layers_unfrozen", "1")]].concat();
    assert_same_training(&WAYS, &dataset, folder.path(), &settings);
}

#[test]
fn one_two_and_three_processes_train_the_same_whole_model() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    assert_same_training(&WAYS, &dataset, folder.path(), &without_adapters("full"));
}

fn numbers(value: &Value) -> Vec<f64> {
    // Printed as f32: the shortest decimals, not the f64 of the same value.
    let numbers = value.as_array().unwrap().iter();
    numbers
        .map(|number| f64::from(number.as_f64().unwrap() as f32))
        .collect()
}

/// The reward of a traced response before whitening.
fn raw_total(response: &Value) -> f64 {
    let sum = |field: &str| numbers(&response[field]).iter().sum::<f64>();
    response["reward"].as_f64().unwrap() - 0.2 * (sum("logprobs") - sum("reference_logprobs"))
}

#[test]
fn by_default_each_process_whitens_over_its_own_rewards_and_contrasts_with_its_own_batch() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    // One step of the embedder, from one batch; saved before and after, as batch 1 and step 1 belong to one phase.
    let settings = [
        ("--num_emb_updates", "1"),
        ("--num_lm_updates", "1"),
        ("--emb_gradient_accumulation_steps", "1"),
        ("--print_sample_output_freq", "1"),
        ("--noptepochs", "1"),
    ];
    done(launch(2, 8, 8, [&dataset, &run], &settings));

    let train = Dataset::open(&dataset).unwrap().train;
    let prompts: BTreeMap<&str, usize> = train
        .iter()
        .map(|user| (user.id.as_str(), user.prompt_tokens.len()))
        .collect();
    for update in lines(&run.with_extension("trace")) {
        let users = update["responses"].as_array().unwrap();
        assert_eq!(users.len(), 8);
        let users: Vec<&Value> = users.iter().collect();
        // Users are dealt out by the length of their prompts.
        let lengths: Vec<usize> = update["users"]
            .as_array()
            .unwrap()
            .iter()
            .map(|id| prompts[id.as_str().unwrap()])
            .collect();
        let deal = Deal::by_length(&lengths, 2);
        for rank in 0..2 {
            let own = deal.own(&users, rank);
            assert_eq!(own.len(), 4);
            let responses: Vec<&Value> = own.iter().flat_map(|pair| pair.as_array().unwrap()).collect();
            let raw: Vec<f64> = responses.iter().map(|response| raw_total(response)).collect();
            let mean = raw.iter().sum::<f64>() / 8.0;
            let variance = raw.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 8.0;
            for (response, raw) in responses.iter().zip(&raw) {
                let total = response["total_reward"].as_f64().unwrap();
                assert!((total - (raw - mean) / (variance + 1e-8).sqrt()).abs() < 1e-6);
            }
        }
    }
    let batches = [0, 1].map(|rank| EpochOrder::new(train_users(&dataset), 4, 555_134, 1, [rank, 2]).next_batch());
    let settings = AdamConfig { lr: 1e-3, ..ADAM };
    let apart = from_the_first_step_of(&batches, settings, &dataset, &run);
    assert!(apart < 1e-6, "{apart:e}");
}

#[test]
fn global_negatives_make_the_step_of_one_large_batch() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    // With ε far above the gradients a step is the gradient itself; the usual ε would make steps of rounding errors.
    let settings = [
        ("--num_emb_updates", "1"),
        ("--num_lm_updates", "0"),
        ("--emb_gradient_accumulation_steps", "1"),
        ("--print_sample_output_freq", "1"),
        ("--global_negatives", "true"),
        ("--eps", "1"),
        ("--emb_lr", "1"),
    ];
    done(launch(2, 8, 8, [&dataset, &run], &settings));
    let batch = EpochOrder::new(train_users(&dataset), 8, 555_134, 1, [0, 1]).next_batch();
    let settings = AdamConfig {
        lr: 1.0,
        eps: 1.0,
        ..ADAM
    };
    let apart = from_the_first_step_of(&[batch], settings, &dataset, &run);
    assert!(apart < 2e-5, "{apart:e}");
}

const ADAM: AdamConfig = AdamConfig {
    lr: 1e-3,
    betas: (0.9, 0.999),
    eps: 1e-6,
    weight_decay: 0.01,
    decoupled: true,
};

fn train_users(dataset: &Path) -> usize {
    Dataset::open(dataset).unwrap().train.len()
}

/// How far the run's embedder is, after its first step, from one that is trained here, in one process and one graph a batch, on
/// the mean of the contrastive losses of `batches`; relative to the step. The logged loss must be that mean.
fn from_the_first_step_of(batches: &[Vec<u32>], adam: AdamConfig, dataset: &Path, run: &Path) -> f64 {
    let data = Dataset::open(dataset).unwrap();
    let state = run.join("checkpoints/update-000000/state/profiles.json");
    let profiles: Value = serde_json::from_str(&fs::read_to_string(state).unwrap()).unwrap();
    let tokens =
        |user: u32| -> Vec<u32> { serde_json::from_value(profiles["train"][user as usize]["tokens"].clone()).unwrap() };
    let options = EncoderOptions {
        device: Device::flex(),
        pooling: None,
        train: true,
    };
    let (mut model, _) = open_encoder(&fixture("models/tiny-embedder"), &options).unwrap();
    let mut mean_loss = 0.0;
    for batch in batches {
        let written: Vec<Vec<u32>> = batch.iter().map(|&user| tokens(user)).collect();
        let targets = batch.iter().map(|&user| data.train[user as usize].targets[0]);
        let items = targets.map(|item| data.items[item as usize].tokens.clone());
        let texts: Vec<Vec<u32>> = written.into_iter().chain(items).collect();
        let texts: Vec<&[u32]> = texts.iter().map(Vec::as_slice).collect();
        let tracked = model.embed_tracked(&texts).unwrap();
        let contrastive = contrastive_loss(&tracked.vectors, model.dimension(), 0.1);
        mean_loss += contrastive.loss / batches.len() as f64;
        let shares: Vec<f32> = contrastive
            .slopes
            .iter()
            .map(|slope| slope / batches.len() as f32)
            .collect();
        model.backward(tracked, &shares).unwrap();
    }
    let logged = metrics(run)[&(1, "embedder/loss".to_owned())];
    assert!((logged - mean_loss).abs() < 1e-6, "{logged} {mean_loss}");
    let model = model.trainable();
    model.step(&adam, 1.0).unwrap();
    let stepped = model.trained().iter().enumerate().map(|(index, spec)| {
        let values = model.values(index).unwrap();
        (spec.name.clone(), values.into_iter().map(f64::from).collect())
    });
    let (expected, start): (BTreeMap<_, Vec<f64>>, _) = (stepped.collect(), weights(run, "update-000000", "embedder"));
    let found = weights(run, "update-000001", "embedder");
    let start = start
        .into_iter()
        .filter(|(name, _)| expected.contains_key(name))
        .collect();
    apart(&start, &expected, &found)
}

/// A run that goes on until it is stopped.
fn endless(world: usize, dataset: &Path, run: &Path) -> Child {
    endless_with(world, dataset, run, &[])
}

fn endless_with(world: usize, dataset: &Path, run: &Path, more: &[(&str, &str)]) -> Child {
    let settings = [
        ("--profiles", "none"),
        ("--num_emb_updates", "1000000"),
        ("--print_sample_output_freq", "1000000"),
        ("--run_eval", "false"),
    ];
    let settings = [&settings[..], more].concat();
    let child = launch(world, 8, 12, [dataset, run], &settings).spawn().unwrap();
    let metrics = run.join("metrics.jsonl");
    let until = Instant::now() + Duration::from_secs(120);
    while fs::read_to_string(&metrics).unwrap_or_default().lines().count() < 3 {
        assert!(Instant::now() < until, "the run does not begin");
        std::thread::sleep(Duration::from_millis(20));
    }
    child
}

/// The process numbers of the ranks that `launcher` started, by rank.
fn ranks(launcher: &Child) -> BTreeMap<String, String> {
    let pid = launcher.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let rank = |child: &str| {
        let environment = fs::read_to_string(format!("/proc/{child}/environ")).unwrap();
        let rank = environment
            .split('\0')
            .find_map(|variable| variable.strip_prefix("RANK="));
        (rank.unwrap().to_owned(), child.to_owned())
    };
    children.split_whitespace().map(rank).collect()
}

fn signal(name: &str, pid: &str) {
    assert!(Command::new("kill").args([name, pid]).status().unwrap().success());
}

#[test]
fn killing_one_rank_ends_the_run_with_its_name() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    for gone in ["0", "2"] {
        let run = folder.path().join(format!("run-{gone}"));
        let launcher = endless(3, &dataset, &run);
        let started = Instant::now();
        signal("-KILL", &ranks(&launcher)[gone]);
        let output = launcher.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(started.elapsed() < Duration::from_secs(15), "{said}");
        assert_eq!(output.status.code(), Some(1));
        assert!(
            said.contains(&format!("rank {gone} failed: its process has ended without a word")),
            "{said}"
        );
        assert!(
            said.contains(&format!("rank {gone} was the first to end: signal: 9")),
            "{said}"
        );
    }
}

#[test]
fn a_signal_to_any_one_rank_ends_all_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    let launcher = endless(3, &dataset, &run);
    signal("-TERM", &ranks(&launcher)["1"]);
    let output = launcher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("interrupted, with checkpoint") && !said.contains("failed:"),
        "{said}"
    );
    assert!(fs::read_dir(run.join("checkpoints")).unwrap().count() >= 2, "{said}");
}

#[test]
#[ignore = "long: half a minute, until the launcher ends what does not end by itself"]
fn the_watchdog_ends_a_run_whose_rank_hangs() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let launcher = endless_with(3, &dataset, &folder.path().join("run"), &[("--watchdog_secs", "4")]);
    let started = Instant::now();
    signal("-STOP", &ranks(&launcher)["1"]);
    let output = launcher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    // Sooner than a rank that gives no sign of life is missed, which takes 30 s.
    assert!(started.elapsed() < Duration::from_secs(60), "{:?}", started.elapsed());
    assert_eq!(output.status.code(), Some(1), "{said}");
    // It was stopped before a collective or in the midst of one.
    let named = ["rank 1 failed: it has not come to", "rank 1 failed: it has been in"];
    assert!(named.iter().any(|named| said.contains(named)), "{said}");
    assert!(said.contains("(watchdog)"), "{said}");
}

/// Rank `rank` of two, by the variables of Open MPI's mpirun.
fn by_mpirun(rank: usize, port: u16, [dataset, run]: [&Path; 2], more: &[(&str, &str)]) -> Child {
    let settings = [&[("--profiles", "none"), ("--num_emb_updates", "2")][..], more].concat();
    let mut command = launch(1, 8, 8, [dataset, run], &settings);
    command
        .env("OMPI_COMM_WORLD_RANK", rank.to_string())
        .env("OMPI_COMM_WORLD_SIZE", "2")
        .env("OMPI_COMM_WORLD_LOCAL_RANK", rank.to_string())
        .env("OMPI_COMM_WORLD_LOCAL_SIZE", "2")
        .env("MASTER_PORT", port.to_string())
        .env("LANGPTUNE_SECRET", "the secret of this test")
        .spawn()
        .unwrap()
}

#[test]
fn processes_that_mpirun_started_train_together_and_refuse_what_differs() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let differs = "its settings differ from rank 0's";
    let cases = [
        (("--seed", "555134"), None),
        (("--seed", "7"), Some(differs)),
        (("--shard_optimizer", "false"), Some(differs)),
    ];
    for (case, (more, refusal)) in cases.into_iter().enumerate() {
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let run = folder.path().join(format!("run-{case}"));
        let both = [
            by_mpirun(0, port, [&dataset, &run], &[]),
            by_mpirun(1, port, [&dataset, &run], &[more]),
        ];
        for child in both {
            let output = child.wait_with_output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.success(), refusal.is_none(), "{said}");
            assert!(said.contains(refusal.unwrap_or_default()), "{said}");
        }
        assert_eq!(run.join("checkpoints/update-000002").is_dir(), refusal.is_none());
    }
    // The same settings, on other people.
    let other = folder.path().join("other");
    copy_folder(&dataset, &other);
    let manifest = other.join("manifest.json");
    let mut changed: Value = serde_json::from_str(&fs::read_to_string(&manifest).unwrap()).unwrap();
    changed["seed"] = 12345.into();
    fs::write(&manifest, changed.to_string()).unwrap();
    let run = folder.path().join("other-run");
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let both = [
        by_mpirun(0, port, [&dataset, &run], &[]),
        by_mpirun(1, port, [&other, &run], &[]),
    ];
    for child in both {
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            !output.status.success() && said.contains("its dataset differs from rank 0's"),
            "{said}"
        );
    }
}

#[test]
fn ranks_end_with_their_launcher() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let mut launcher = endless(2, &dataset, &folder.path().join("run"));
    let ranks = ranks(&launcher);
    assert_eq!(ranks.len(), 2);
    launcher.kill().unwrap();
    launcher.wait().unwrap();
    let until = Instant::now() + Duration::from_secs(15);
    for pid in ranks.values() {
        while Path::new(&format!("/proc/{pid}/exe")).canonicalize().is_ok() {
            assert!(Instant::now() < until, "rank {pid} lives on");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
fn a_run_of_two_processes_that_is_stopped_by_a_signal_is_gone_on_with() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let settings = [
        ("--profiles", "none"),
        ("--num_emb_updates", "7"),
        ("--emb_gradient_accumulation_steps", "4"),
        ("--print_sample_output_freq", "100"),
    ];
    let [whole, stopped] = ["whole", "stopped"].map(|name| folder.path().join(name));
    done(launch(2, 8, 8, [&dataset, &whole], &settings));
    // Within a step: what each rank has summed so far must not be lost.
    let said = done(launch(
        2,
        8,
        8,
        [&dataset, &stopped],
        &[&settings[..], &[("--stop_after", "3")]].concat(),
    ));
    assert!(said.contains("stopped as asked"), "{said}");
    let mut resume = Command::new(env!("CARGO_BIN_EXE_langptune"));
    resume
        .args([
            "launch",
            "--nproc",
            "2",
            "--",
            "train",
            "--resume",
            "--output",
            text(&stopped),
        ])
        .env("RAYON_NUM_THREADS", "1")
        .stderr(Stdio::piped());
    done(resume);
    let at = |run: &Path, name: &str| weights(run, name, "embedder");
    let start = at(&whole, "update-000000");
    let apart = apart(&start, &at(&whole, "update-000007"), &at(&stopped, "update-000007"));
    assert!(apart < 1e-6, "{apart:e}");

    let run = folder.path().join("signalled");
    let launcher = endless(2, &dataset, &run);
    signal("-TERM", &launcher.id().to_string());
    let output = launcher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && said.contains("interrupted, with checkpoint"),
        "{said}"
    );
    assert!(fs::read_dir(run.join("checkpoints")).unwrap().count() >= 2, "{said}");
}

#[test]
fn bf16_masters_are_rounded_alike_whoever_keeps_the_optimizer() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let settings = [
        ("--num_iterations", "1"),
        ("--num_emb_updates", "2"),
        ("--num_lm_updates", "1"),
        ("--print_sample_output_freq", "100"),
        ("--master_weights", "bf16"),
    ];
    let runs = ["true", "false"].map(|sharded| {
        let run = folder.path().join(sharded);
        let own = [("--shard_optimizer", sharded)];
        done(launch(2, 8, 8, [&dataset, &run], &[&settings[..], &own].concat()));
        run
    });
    for model in ["lm", "embedder"] {
        let [shared, whole] = runs.each_ref().map(|run| weights(run, "update-000003", model));
        assert_eq!(shared, whole);
        let is_bf16 = |value: &f64| (*value as f32).to_bits() & 0xffff == 0;
        assert!(shared.values().flatten().all(is_bf16));
    }
}

#[test]
fn a_run_goes_on_with_another_number_of_processes_that_share_the_optimizer_anew() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let first = folder.path().join("first");
    // Both models have been moved, and a step of the embedder is half summed, when two processes stop.
    let settings = [
        ("--num_iterations", "2"),
        ("--num_emb_updates", "3"),
        ("--num_lm_updates", "1"),
        ("--print_sample_output_freq", "100"),
        ("--stop_after", "5"),
    ];
    done(launch(2, 8, 8, [&dataset, &first], &settings));
    let ways = [(1, "true"), (3, "true"), (3, "false"), (4, "true")];
    let runs = ways.map(|(world, sharded)| {
        let run = folder.path().join(format!("run-{world}-{sharded}"));
        copy_folder(&first, &run);
        let (output, trace) = (text(&run).to_owned(), run.with_extension("trace"));
        fs::copy(first.with_extension("trace"), &trace).unwrap();
        // The folder has moved.
        let config = run.join("config.toml");
        let moved = fs::read_to_string(&config).unwrap().replace(text(&first), &output);
        fs::write(&config, moved).unwrap();
        let mut resume = Command::new(env!("CARGO_BIN_EXE_langptune"));
        if world > 1 {
            resume.args(["launch", "--nproc", &world.to_string(), "--"]);
        }
        let own = ["train", "--resume", "--shard_optimizer", sharded, "--output", &output];
        resume.args(own).env("RAYON_NUM_THREADS", "1").stderr(Stdio::piped());
        let said = done(resume);
        assert!(said.contains("going on after update 5"), "{said}");
        if world > 1 {
            assert_kept(&said, if sharded == "true" { world } else { 1 });
        }
        run
    });
    for model in ["lm", "embedder"] {
        let start = weights(&first, "update-000000", model);
        let at_end = |run: &Path| weights(run, "update-000008", model);
        // Shared out anew or kept whole, the numbers are the same.
        assert_eq!(at_end(&runs[1]), at_end(&runs[2]));
        // Others train on other batches, but from the same moments: none has lost its way.
        for run in &runs {
            assert!(
                apart(&start, &at_end(&runs[0]), &at_end(run)) < 1.0,
                "{}",
                run.display()
            );
            let state = optimizer(run, "update-000008", model);
            let steps: Vec<f64> = state
                .iter()
                .filter(|(name, _)| name.ends_with(".steps"))
                .map(|(_, at)| at[0])
                .collect();
            assert!(steps.iter().all(|&steps| steps == steps_of(model)), "{steps:?}");
        }
    }
}

/// Optimizer steps of the schedule above: two a phase of three batches, and four epochs an update.
fn steps_of(model: &str) -> f64 {
    match model {
        "lm" => 8.0,
        _ => 4.0,
    }
}

fn copy_folder(from: &Path, into: &Path) {
    fs::create_dir_all(into).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let to = into.join(path.file_name().unwrap());
        if path.is_dir() {
            copy_folder(&path, &to);
        } else {
            fs::copy(&path, &to).unwrap();
        }
    }
}

#[test]
fn launchers_of_two_hosts_make_one_run() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let settings = [
        ("--profiles", "none"),
        ("--num_emb_updates", "3"),
        ("--shard_optimizer", "true"),
    ];
    let [one, two] = ["one-host", "two-hosts"].map(|name| folder.path().join(name));
    done(launch(4, 8, 8, [&dataset, &one], &settings));
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    let hosts = [0, 1].map(|host: u8| {
        // The words after the two dashes are those of four processes.
        let words = launch(4, 8, 8, [&dataset, &two], &settings);
        let words = words.get_args().skip_while(|word| *word != "train");
        let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
        command
            .args([
                "launch",
                "--nproc",
                "2",
                "--hosts",
                "2",
                "--host-rank",
                &host.to_string(),
                "--",
            ])
            .args(words)
            .env("RAYON_NUM_THREADS", "1")
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .env("LANGPTUNE_SECRET", "the secret of this test")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        command.spawn().unwrap()
    });
    for host in hosts {
        let output = host.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let at_end = |run: &Path| weights(run, "update-000003", "embedder");
    assert_eq!(at_end(&one), at_end(&two));
}

/// `bench --updates 1`: its JSON, or what it said.
fn timed(ranks: u64, words: &[&str]) -> Result<Value, String> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    if ranks > 1 {
        command.args(["launch", "--nproc", &ranks.to_string(), "--"]);
    }
    let output = command.args(["bench", "--updates", "1"]).args(words).output().unwrap();
    match output.status.success() {
        true => Ok(serde_json::from_slice(&output.stdout).unwrap()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}

#[test]
fn updates_are_timed_alone_and_as_ranks() {
    let stages = ["rollouts", "scores", "language_model", "embedder", "sweep", "catalogue"];
    for (ranks, words, shares) in [(1, &[][..], 1), (2, &[], 2), (2, &["--shard-optimizer", "false"], 1)] {
        let found = timed(ranks, words).unwrap();
        assert_eq!(found["ranks"], ranks);
        assert_eq!(found["sharded"], shares == 2);
        // Alone weak and strong scaling are the same.
        assert_eq!(found["strong"].is_null(), ranks == 1);
        for (scaling, share) in [("weak", 1), ("strong", ranks)] {
            let timed = &found[scaling];
            if timed.is_null() {
                continue;
            }
            let count = |name: &str| timed[name].as_u64().unwrap();
            let (kept, trained) = (count("moments_kept"), count("trained"));
            assert!(kept >= trained / shares && kept <= trained / shares + 100, "{found}");
            assert_eq!(timed["stages"].as_object().unwrap().len(), stages.len());
            let memory = timed["memory_bytes"].as_array().unwrap();
            assert!(memory.len() as u64 == ranks && memory.iter().all(|bytes| bytes.as_f64().unwrap() > 1e6));
            let number = |stage: &str, name: &str| timed["stages"][stage][name].as_f64().unwrap();
            for stage in stages {
                assert!(number(stage, "seconds") > 0.0 && number(stage, "tokens_per_second") > 0.0);
                let lost = number(stage, "idle_share") + number(stage, "communication_share");
                assert!((0.0..=1.0).contains(&lost) && (lost == 0.0) == (ranks == 1), "{found}");
            }
            // Four users with two responses, eight profiles, of twelve tokens each: of every rank, or of all together.
            for stage in ["rollouts", "sweep"] {
                let tokens = number(stage, "seconds") * number(stage, "tokens_per_second");
                assert!((tokens - (96 * ranks / share) as f64).abs() < 1e-6, "{stage}: {tokens}");
            }
        }
    }
}

#[test]
fn stages_and_scaling_are_chosen_and_what_cannot_be_dealt_out_is_refused() {
    let chosen = ["--stages", "embedder,catalogue", "--scaling", "strong"];
    let found = timed(2, &chosen).unwrap();
    assert!(found["weak"].is_null());
    let stages: Vec<&String> = found["strong"]["stages"].as_object().unwrap().keys().collect();
    assert_eq!(stages, ["catalogue", "embedder"]);
    let said = timed(3, &chosen).unwrap_err();
    assert!(said.contains("a number of ranks that divides it, not 3"), "{said}");
    let said = timed(1, &["--shapes", "llama-3-8b"]).unwrap_err();
    assert!(said.contains("--shapes"), "{said}");
}

#[test]
fn what_cannot_be_launched_is_a_mistake_in_the_command_line() {
    let mut other = Command::new(env!("CARGO_BIN_EXE_langptune"));
    let output = other.args(["launch", "--nproc", "2", "--", "doctor"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2));
    assert!(said.contains("only `train` runs in several processes"), "{said}");

    for (options, expected) in [
        (
            &["--max-restarts", "1"][..],
            "--max-restarts goes on with the run that the command names: give it --output",
        ),
        (
            &["--hosts", "2", "--host-rank", "2"],
            "--host-rank is 2, expected 0 to 1",
        ),
        (&["--hosts", "2"], "on several hosts MASTER_ADDR must be set"),
    ] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
        command
            .args(["launch", "--nproc", "2"])
            .args(options)
            .args(["--", "train"]);
        let output = command.env_remove("MASTER_ADDR").output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
    }

    let mut wrong = Command::new(env!("CARGO_BIN_EXE_langptune"));
    let output = wrong
        .args(["launch", "--nproc", "2", "--", "train", "--no-such-flag"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("did not accept the command line"), "{said}");
}
