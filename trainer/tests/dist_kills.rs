//! Ranks that are killed at moments nobody chose: the run ends everywhere, says who was first, and goes on to the weights of the
//! undisturbed run, by itself or when it is resumed.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)]

mod tiny_run;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use models::philox;
use tiny_run::{arguments, prepared};

const WORLD: usize = 3;

/// Two iterations of both phases; checkpoints within phases and within an accumulated step.
const SCHEDULE: [(&str, &str); 10] = [
    ("--num_iterations", "2"),
    ("--num_emb_updates", "3"),
    ("--num_lm_updates", "2"),
    ("--print_sample_output_freq", "4"),
    ("--save_every", "1"),
    ("--keep_last", "2"),
    ("--emb_gradient_accumulation_steps", "2"),
    ("--lora_rank", "4"),
    ("--lora_alpha", "8"),
    ("--kl_coef", "0.2"),
];

/// The last of the schedule's updates.
const LAST: &str = "update-000010";

fn launch(options: &[&str], dataset: &Path, run: &Path, more: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    command
        .args(["launch", "--nproc", &WORLD.to_string()])
        .args(options)
        .arg("--")
        .args(arguments(dataset, run, &[&SCHEDULE[..], more].concat()))
        .env("RAYON_NUM_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Files of the last checkpoint that hold tensors.
fn weights(run: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let folder = run.join("checkpoints").join(LAST);
    let mut found = BTreeMap::new();
    for part in ["lm", "embedder", "state"] {
        for entry in fs::read_dir(folder.join(part)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                found.insert(path.strip_prefix(&folder).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    assert!(found.len() >= 4, "{found:?}");
    found
}

/// The processes that `launcher` has started, by rank, as far as they have come.
fn ranks(launcher: &Child) -> BTreeMap<usize, String> {
    let pid = launcher.id();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let rank = |child: &str| {
        let environment = fs::read_to_string(format!("/proc/{child}/environ")).ok()?;
        let rank = environment
            .split('\0')
            .find_map(|variable| variable.strip_prefix("RANK="))?;
        Some((rank.parse().ok()?, child.to_owned()))
    };
    children.split_whitespace().filter_map(rank).collect()
}

/// Whether the process still runs this program: a number alone may be another's by now.
fn lives(pid: &str) -> bool {
    let program = fs::read_link(format!("/proc/{pid}/exe"));
    program.is_ok_and(|program| program == Path::new(env!("CARGO_BIN_EXE_langptune")))
}

/// Waits for the launcher, whose ranks must be gone by then; whether it succeeded, and what it said.
fn ended(launcher: Child, ranks: &BTreeMap<usize, String>) -> (bool, String) {
    let killed = Instant::now();
    let output = launcher.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    if !output.status.success() {
        assert!(
            killed.elapsed() < Duration::from_secs(60),
            "{:?}: {said}",
            killed.elapsed()
        );
    }
    for (rank, pid) in ranks {
        assert!(!lives(pid), "rank {rank} lives on: {said}");
    }
    (output.status.success(), said)
}

/// One kill, at a random moment of a run that takes `whole`. True if there was something to kill.
fn trial(
    number: u32,
    [gone, word]: [u32; 2],
    whole: Duration,
    [dataset, run]: [&Path; 2],
    expected: &BTreeMap<PathBuf, Vec<u8>>,
) -> bool {
    let gone = gone as usize % WORLD;
    let moment = whole.mul_f64(0.9 * f64::from(word) / f64::from(u32::MAX));
    let by_itself = number % 2 == 1;
    let options: &[&str] = if by_itself { &["--max-restarts", "1"] } else { &[] };
    let launcher = launch(options, dataset, run, &[]).spawn().unwrap();
    std::thread::sleep(moment);
    let ranks = ranks(&launcher);
    let killed = ranks.get(&gone).is_some_and(|pid| {
        let kill = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
        kill.unwrap().success()
    });
    let (done, said) = ended(launcher, &ranks);
    let first = said.contains(&format!("rank {gone} was the first to end: signal: 9"));
    eprintln!("trial {number}: rank {gone} after {moment:.1?}, killed {killed}, ended well {done}");
    if by_itself {
        assert!(done, "{said}");
        assert_eq!(
            first,
            said.contains("restart 1 of 1 goes on from the last checkpoint"),
            "{said}"
        );
    } else if !done {
        assert!(first, "{said}");
        let (done, said) = ended(
            launch(&[], dataset, run, &[("--resume", "true")]).spawn().unwrap(),
            &BTreeMap::new(),
        );
        assert!(done, "{said}");
    }
    let found = weights(run);
    assert!(found.keys().eq(expected.keys()));
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "trial {number}: {} differs", name.display());
    }
    fs::remove_dir_all(run).unwrap();
    // A rank that had come to its end already was not the first to fail.
    killed && first
}

fn kill_trials(trials: u32) {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let undisturbed = folder.path().join("undisturbed");
    let start = Instant::now();
    let (done, said) = ended(
        launch(&[], &dataset, &undisturbed, &[]).spawn().unwrap(),
        &BTreeMap::new(),
    );
    assert!(done, "{said}");
    let whole = start.elapsed();
    let expected = weights(&undisturbed);
    let mut hit = 0;
    let mut number = 0;
    // A moment after the end hits nobody, and does not count.
    while hit < trials {
        assert!(number < 4 * trials + 8, "only {hit} of {number} kills hit a rank");
        let words = philox([number, 0, 0, 0], [2024, 11]);
        let run = folder.path().join(format!("trial-{number}"));
        hit += u32::from(trial(number, [words[0], words[1]], whole, [&dataset, &run], &expected));
        number += 1;
    }
}

#[test]
fn a_rank_killed_at_a_random_moment_ends_all_and_the_run_goes_on_to_the_same_weights() {
    kill_trials(2);
}

#[test]
#[ignore = "long: 24 kills, twice the time of as many runs"]
fn ranks_killed_at_many_random_moments_end_all_and_the_runs_go_on_to_the_same_weights() {
    kill_trials(24);
}
