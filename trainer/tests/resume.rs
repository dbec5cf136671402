//! Runs that are interrupted, in all ways, and gone on with: the same models, logs and report as the undisturbed run.
#![cfg(unix)]
#![allow(clippy::unwrap_used)]

mod tiny_run;

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use models::{CheckpointReader, philox};
use tiny_run::{arguments, assert_same, contents, langptune, prepared, text};

/// A schedule with everything in it: two iterations, checkpoints within phases and within an accumulated step.
const SCHEDULE: [(&str, &str); 10] = [
    ("--num_iterations", "2"),
    ("--num_emb_updates", "3"),
    ("--num_lm_updates", "2"),
    ("--print_sample_output_freq", "4"),
    ("--save_every", "1"),
    ("--lora_rank", "4"),
    ("--lora_alpha", "8"),
    ("--kl_coef", "0.2"),
    ("--keep_last", "2"),
    ("--keep_best", "1"),
];

fn train(dataset: &Path, run: &Path, more: &[(&str, &str)]) -> Command {
    let trace = run.with_extension("trace");
    let own = [("--trace", text(&trace))];
    let mut command = Command::new(env!("CARGO_BIN_EXE_langptune"));
    command
        .args(arguments(dataset, run, &[&SCHEDULE[..], &own, more].concat()))
        .env("RAYON_NUM_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    command
}

/// Runs to the end; what it said.
fn whole(mut command: Command) -> (bool, String) {
    let output = command.output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn resume_to_the_end(run: &Path) {
    let (done, output) = langptune(&["train", "--resume", "--output", text(run)]);
    assert!(done, "{output}");
}

#[test]
fn a_run_stopped_anywhere_goes_on_to_the_same_end() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let first = folder.path().join("undisturbed");
    let (done, output) = whole(train(&dataset, &first, &[]));
    assert!(done, "{output}");
    let undisturbed = contents(&first);
    let checkpoints: Vec<_> = undisturbed
        .iter()
        .filter(|(name, _)| name.ends_with("state.json"))
        .collect();
    assert!(
        (2..=3).contains(&checkpoints.len()),
        "the newest two and the best: {checkpoints:?}"
    );
    // Within an accumulated step, at the end of a phase, within the second, and in the second iteration.
    for stop in ["1", "3", "4", "6"] {
        let run = folder.path().join(format!("stopped-{stop}"));
        let (done, output) = whole(train(&dataset, &run, &[("--stop_after", stop)]));
        assert!(
            done && output.contains("go on with langptune train --resume"),
            "{output}"
        );
        resume_to_the_end(&run);
        assert_same(&run, &undisturbed, &format!("stopped after {stop}"));
    }
    // A finished run has nothing left to do, and says so.
    let (done, output) = langptune(&["train", "--resume", "--output", text(&first)]);
    assert!(done && output.contains("has come to its end"), "{output}");
    assert_same(&first, &undisturbed, "resumed after its end");
    // Another setting would be another run.
    let (done, output) = langptune(&["train", "--resume", "--output", text(&first), "--kl_coef", "0.3"]);
    assert!(!done && output.contains("another --kl-coef"), "{output}");
}

/// All values of a model's file.
fn values(path: &Path) -> Vec<f32> {
    let file = CheckpointReader::open_file(path).unwrap();
    let names: Vec<String> = file.names().map(str::to_owned).collect();
    let read = |name: &String| file.read(name, &file.shape(name).unwrap()).unwrap().0;
    names.iter().flat_map(read).collect()
}

#[test]
fn a_run_whose_parameters_are_bf16_numbers_goes_on_with_the_same_ones() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let [first, stopped, wide] = ["undisturbed", "stopped", "wide"].map(|name| folder.path().join(name));
    let short = [("--num_iterations", "1"), ("--master_weights", "bf16")];
    let (done, output) = whole(train(&dataset, &first, &short));
    assert!(done, "{output}");
    let undisturbed = contents(&first);
    let (done, output) = whole(train(
        &dataset,
        &stopped,
        &[&short[..], &[("--stop_after", "4")]].concat(),
    ));
    assert!(done, "{output}");
    resume_to_the_end(&stopped);
    assert_same(&stopped, &undisturbed, "stopped after 4");

    let (done, output) = whole(train(&dataset, &wide, &short[..1]));
    assert!(done, "{output}");
    for file in ["lm/adapter_model.safetensors", "embedder/model.safetensors"] {
        let of = |run: &Path| values(&run.join("checkpoints/update-000005").join(file));
        let is_bf16 = |value: &f32| value.to_bits() & 0xffff == 0;
        assert!(of(&first).iter().all(is_bf16), "{file}");
        assert!(!of(&wide).iter().all(is_bf16), "{file}");
    }
    let resumed = ["train", "--resume", "--output", text(&wide), "--master_weights", "bf16"];
    let (done, output) = langptune(&resumed);
    assert!(!done && output.contains("another --master-weights"), "{output}");
}

/// Starts a run, kills it after `delay` without a warning, and goes on with it until it ends.
fn killed(dataset: &Path, run: &Path, delays: impl IntoIterator<Item = Duration>) {
    let mut resumed: &[(&str, &str)] = &[];
    for delay in delays {
        let mut child = train(dataset, run, resumed).stderr(Stdio::null()).spawn().unwrap();
        std::thread::sleep(delay);
        child.kill().unwrap();
        child.wait().unwrap();
        resumed = &[("--resume", "true")];
    }
    let (done, output) = whole(train(dataset, run, resumed));
    assert!(done, "{output}");
}

/// `trials` runs killed at moments spread over the whole run, as many at a time as `workers`.
fn kill_trials(trials: u32, workers: u32) {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let first = folder.path().join("undisturbed");
    let start = Instant::now();
    let (done, output) = whole(train(&dataset, &first, &[]));
    assert!(done, "{output}");
    let whole_run = start.elapsed();
    let undisturbed = contents(&first);
    let try_one = |trial: u32| {
        let run = folder.path().join(format!("trial-{trial}"));
        // One or two kills.
        let words = philox([trial, 0, 0, 0], [2024, 11]);
        let moment = |word: u32| whole_run.mul_f64(f64::from(word) / f64::from(u32::MAX));
        let delays = [moment(words[0]), moment(words[1])];
        killed(&dataset, &run, delays.into_iter().take(1 + trial as usize % 2));
        assert_same(&run, &undisturbed, &format!("trial {trial}, killed after {delays:?}"));
        fs::remove_dir_all(&run).unwrap();
    };
    std::thread::scope(|scope| {
        let share = |worker: u32| (worker..trials).step_by(workers as usize);
        for worker in 0..workers {
            let trials = share(worker);
            scope.spawn(|| trials.for_each(&try_one));
        }
    });
}

#[test]
fn a_killed_run_goes_on_to_the_same_end() {
    kill_trials(5, 2);
}

#[test]
#[ignore = "a hundred runs: minutes"]
fn a_hundred_killed_runs_go_on_to_the_same_end() {
    let processors = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    kill_trials(100, (processors as u32 / 2).max(2));
}

/// Waits until `path` is there.
fn wait_for(path: &Path, child: &mut Child) {
    let start = Instant::now();
    while !path.exists() {
        assert!(child.try_wait().unwrap().is_none(), "ended before {}", path.display());
        assert!(start.elapsed() < Duration::from_secs(120), "no {}", path.display());
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_signal_ends_a_run_with_a_checkpoint_and_a_locked_run_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let [first, run] = ["undisturbed", "run"].map(|name| folder.path().join(name));
    let longer = [("--num_iterations", "3")];
    let (done, output) = whole(train(&dataset, &first, &longer));
    assert!(done, "{output}");

    let mut child = train(&dataset, &run, &longer).spawn().unwrap();
    wait_for(&run.join("checkpoints/update-000001"), &mut child);
    let (done, output) = langptune(&["train", "--resume", "--output", text(&run)]);
    assert!(!done && output.contains("another langptune is training"), "{output}");
    signal(&child, "-TERM");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("interrupted, with checkpoint") && said.contains("--resume"),
        "{said}"
    );

    resume_to_the_end(&run);
    assert_same(&run, &contents(&first), "terminated");
}

#[test]
fn a_second_signal_ends_a_run_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    // Profiles this long take far longer to write than the time between two signals, and are not interrupted by the first.
    let long = [("--response_length", "3000"), ("--num_iterations", "50")];
    let mut child = train(&dataset, &run, &long).spawn().unwrap();
    wait_for(&run.join("report/manifest.json"), &mut child);
    // Signals that arrive together may count as one: they come until the run has ended.
    while child.try_wait().unwrap().is_none() {
        signal(&child, "-INT");
        std::thread::sleep(Duration::from_millis(20));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    assert!(said.contains("once more to end at once"), "{said}");
}

fn signal(child: &Child, which: &str) {
    let sent = Command::new("kill").args([which, &child.id().to_string()]).status();
    assert!(sent.unwrap().success());
}

#[test]
fn a_finished_run_goes_on_where_it_is_given_more_iterations() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    for settings in [
        &[("--num_iterations", "1")][..],
        &[("--num_iterations", "2"), ("--resume", "true")],
    ] {
        let (done, output) = whole(train(&dataset, &run, settings));
        assert!(done, "{output}");
    }
    assert!(run.join("checkpoints/update-000010").is_dir());
}

/// A limit on the size of files stands for a full disk: writing beyond it is an error.
#[test]
fn a_full_disk_is_a_clear_error_and_the_last_checkpoint_stays_usable() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let [first, run] = ["undisturbed", "run"].map(|name| folder.path().join(name));
    let (done, output) = whole(train(&dataset, &first, &[]));
    assert!(done, "{output}");
    let (done, output) = whole(train(&dataset, &run, &[("--stop_after", "2")]));
    assert!(done, "{output}");

    let command = train(&dataset, &run, &[("--resume", "true")]);
    let words: Vec<String> = command
        .get_args()
        .map(|word| format!("'{}'", word.to_str().unwrap()))
        .collect();
    let script = format!(
        "trap '' XFSZ; ulimit -f 64; exec '{}' {}",
        env!("CARGO_BIN_EXE_langptune"),
        words.join(" ")
    );
    let (done, output) = whole({
        let mut limited = Command::new("bash");
        limited.args(["-c", &script]).env("RAYON_NUM_THREADS", "1");
        limited
    });
    assert!(!done && output.contains("File too large"), "{output}");
    assert!(output.contains(text(&run)), "the error names the file: {output}");

    resume_to_the_end(&run);
    assert_same(&run, &contents(&first), "after a full disk");
}

#[test]
fn a_run_whose_folder_is_lost_ends_with_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let dataset = prepared(folder.path());
    let run = folder.path().join("run");
    let mut child = train(&dataset, &run, &[("--num_iterations", "50")]).spawn().unwrap();
    wait_for(&run.join("checkpoints/update-000001"), &mut child);
    // Something in the way of the folder, so that it cannot be made anew.
    fs::rename(&run, folder.path().join("moved")).unwrap();
    fs::write(&run, "").unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(text(&run)), "{said}");
}
