//! Processes that are joined over TCP, and what the others see when one of them dies or stops.
//!
//! The ranks are this test program again, told by a variable to run [`a_rank`] only.

#![allow(clippy::unwrap_used)]

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use trainer::dist::{Identity, Secret, Tcp, TcpOptions, place};

/// Set for a rank: what it does after it has joined.
const TASK: &str = "LANGPTUNE_TEST_TASK";

fn identity() -> Identity {
    Identity {
        version: "test".to_owned(),
        config: [0; 32],
        dataset: [0; 32],
    }
}

/// No test of its own: the body of a rank.
#[test]
fn a_rank() {
    let Ok(task) = std::env::var(TASK) else { return };
    let variable = |name: &str| std::env::var(name).ok();
    let place = place(&variable).unwrap().unwrap();
    let options = TcpOptions {
        heartbeat: Duration::from_millis(100),
        silence: Duration::from_secs(4),
        grace: Duration::from_millis(500),
        on_unnoticed: |error| {
            eprintln!("unnoticed: {error}");
            std::process::exit(3);
        },
        ..TcpOptions::new(Secret::new(b"the secret of the tests").unwrap())
    };
    use trainer::dist::Communicator;
    let mut tcp = Tcp::join(&place, &identity(), &options).unwrap();
    let mut sums = vec![1.0f32; 100_000];
    loop {
        if task == "compute" && tcp.rank() != 0 {
            std::thread::sleep(Duration::from_secs(600));
        }
        sums.fill(1.0);
        if let Err(error) = tcp.all_reduce_sum(&mut sums) {
            eprintln!("error: {error}");
            drop(tcp);
            std::process::exit(1);
        }
        assert!(sums.iter().all(|&sum| sum == tcp.world() as f32));
    }
}

fn ranks(world: usize, task: &str) -> Vec<Child> {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let start = |rank: usize| {
        Command::new(std::env::current_exe().unwrap())
            .args(["a_rank", "--exact", "--nocapture"])
            .env(TASK, task)
            .env("RANK", rank.to_string())
            .env("WORLD_SIZE", world.to_string())
            .env("MASTER_ADDR", "127.0.0.1")
            .env("MASTER_PORT", port.to_string())
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap()
    };
    (0..world).map(start).collect()
}

/// Waits for all but `gone`; each must fail in time and name it with `reason`.
fn all_others_name(children: Vec<Child>, gone: usize, reason: &str, limit: Duration) {
    let started = Instant::now();
    for (rank, child) in children.into_iter().enumerate() {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        if rank != gone {
            assert!(!output.status.success());
            assert!(
                text.contains(&format!("rank {gone} failed: {reason}")),
                "rank {rank} says: {text}"
            );
        }
    }
    assert!(started.elapsed() < limit, "{:?}", started.elapsed());
}

#[test]
fn killing_any_rank_ends_all_others_with_its_name() {
    for gone in 0..3 {
        let mut children = ranks(3, "sums");
        // At no particular point of a collective.
        std::thread::sleep(Duration::from_millis(400 + 37 * gone as u64));
        children[gone].kill().unwrap();
        let reason = "its process has ended without a word (killed?)";
        all_others_name(children, gone, reason, Duration::from_secs(10));
    }
}

#[test]
fn ranks_that_are_busy_computing_end_too() {
    let mut children = ranks(3, "compute");
    std::thread::sleep(Duration::from_millis(500));
    children[2].kill().unwrap();
    all_others_name(
        children,
        2,
        "its process has ended without a word (killed?)",
        Duration::from_secs(10),
    );
}

#[cfg(unix)]
#[test]
fn a_rank_that_stops_is_missed() {
    let mut children = ranks(3, "sums");
    std::thread::sleep(Duration::from_millis(500));
    let stopped = children[1].id().to_string();
    assert!(
        Command::new("kill")
            .args(["-STOP", &stopped])
            .status()
            .unwrap()
            .success()
    );
    let stopped = children.remove(1);
    let survivors = children.into_iter();
    for child in survivors {
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(text.contains("rank 1 failed: no sign of life for"), "{text}");
    }
    let mut stopped = stopped;
    stopped.kill().unwrap();
    stopped.wait().unwrap();
}
