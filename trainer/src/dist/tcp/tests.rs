#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use super::handshake::{Answer, Hello, Role, Stage};
use super::*;
use crate::dist::Solo;

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn secret() -> Secret {
    Secret::new(b"the secret of the tests").unwrap()
}

fn options() -> TcpOptions {
    TcpOptions {
        rendezvous: Duration::from_secs(20),
        heartbeat: Duration::from_millis(50),
        ..TcpOptions::new(secret())
    }
}

fn identity() -> Identity {
    Identity {
        version: "1.2.3".to_owned(),
        config: [1; 32],
        dataset: [2; 32],
    }
}

fn place(rank: usize, world: usize, master: &str) -> Place {
    Place {
        rank,
        world,
        local_rank: rank,
        master: master.to_owned(),
        launcher: crate::dist::Launcher::Torchrun,
    }
}

fn join(rank: usize, world: usize, master: &str, options: &TcpOptions) -> Result<Tcp, DistError> {
    Tcp::join(&place(rank, world, master), &identity(), options)
}

/// Runs `body` on each of `world` ranks, each on a thread, and returns what they return.
fn on_ranks<T: Send + 'static>(world: usize, options: &TcpOptions, body: fn(Tcp) -> T) -> Vec<T> {
    let master = free_address();
    let threads: Vec<JoinHandle<T>> = (0..world)
        .map(|rank| {
            let (master, options) = (master.clone(), options.clone());
            thread::spawn(move || body(join(rank, world, &master, &options).unwrap()))
        })
        .collect();
    threads.into_iter().map(|thread| thread.join().unwrap()).collect()
}

#[test]
fn every_rank_gets_the_same_sums_taken_in_rank_order() {
    // In f64, 1e16 + 1 − 1e16 is 0 from left to right and 1 in another order.
    let sums = on_ranks(3, &options(), |mut tcp| {
        let own = [1e16, 1.0, -1e16][tcp.rank()];
        let mut values = [own, tcp.rank() as f64];
        tcp.all_reduce_sum_f64(&mut values).unwrap();
        let mut singles = vec![0.1f32 * (tcp.rank() + 1) as f32; 1_000_003];
        tcp.all_reduce_sum(&mut singles).unwrap();
        tcp.finish().unwrap();
        (values, singles)
    });
    let exact = [1, 2, 3]
        .map(|rank| f64::from(0.1f32 * rank as f32))
        .iter()
        .sum::<f64>() as f32;
    for (values, singles) in sums {
        assert_eq!(values, [0.0, 3.0]);
        assert!(singles.iter().all(|value| value.to_bits() == exact.to_bits()));
    }
}

#[test]
fn a_broadcast_gives_the_roots_values_to_all() {
    let values = on_ranks(3, &options(), |mut tcp| {
        let rank = tcp.rank();
        let mut found = Vec::new();
        for root in 0..3 {
            let mut values = [rank as f32, 10.0 + rank as f32];
            tcp.broadcast(&mut values, root).unwrap();
            let mut bytes = vec![rank as u8; rank * 2];
            tcp.broadcast_bytes(&mut bytes, root).unwrap();
            found.push((values, bytes));
        }
        tcp.finish().unwrap();
        found
    });
    for found in values {
        assert_eq!(found[0], ([0.0, 10.0], vec![]));
        assert_eq!(found[1], ([1.0, 11.0], vec![1, 1]));
        assert_eq!(found[2], ([2.0, 12.0], vec![2; 4]));
    }
}

#[test]
fn blobs_of_different_sizes_are_gathered_in_rank_order() {
    let gathered = on_ranks(3, &options(), |mut tcp| {
        let own = vec![tcp.rank() as u8; [300_000, 0, 7][tcp.rank()]];
        let all = tcp.all_gather(&own).unwrap();
        tcp.barrier().unwrap();
        tcp.finish().unwrap();
        all
    });
    for all in gathered {
        assert_eq!(all, [vec![0; 300_000], vec![], vec![2; 7]]);
    }
}

#[test]
fn every_rank_gets_the_sum_of_its_own_part() {
    // Larger than a piece on the wire, and none at all.
    for length in [300_001, 2, 0] {
        let master = free_address();
        let threads: Vec<_> = (0..3)
            .map(|rank| {
                let master = master.clone();
                thread::spawn(move || {
                    let mut tcp = join(rank, 3, &master, &options()).unwrap();
                    // Of rank r at place i: 1e16, 1 and −1e16, whose sum in rank order is 0 in f64, plus i for rank 2.
                    let of = |place: usize| [1e16, 1.0, -1e16 + 2.0 * place as f64][rank];
                    let values: Vec<f64> = (0..3 * length).map(of).collect();
                    let own = tcp.reduce_scatter_f64(&values).unwrap();
                    let mut parts = vec![f32::NAN; 3 * length];
                    parts[rank * length..(rank + 1) * length].fill(rank as f32 + 0.5);
                    tcp.all_gather_parts(&mut parts).unwrap();
                    let spent = tcp.spent();
                    tcp.finish().unwrap();
                    assert!(spent.waiting + spent.moving > Duration::ZERO);
                    (own, parts)
                })
            })
            .collect();
        for (rank, thread) in threads.into_iter().enumerate() {
            let (own, parts) = thread.join().unwrap();
            assert_eq!(own.len(), length);
            for (at, &sum) in own.iter().enumerate() {
                let place = (rank * length + at) as f64;
                assert_eq!(sum, (1e16 + 1.0) + (-1e16 + 2.0 * place));
            }
            let expected = (0..3).flat_map(|owner| std::iter::repeat_n(owner as f32 + 0.5, length));
            assert!(parts.into_iter().eq(expected));
        }
    }
}

#[test]
fn rank_0_alone_gets_what_is_gathered() {
    let gathered = on_ranks(3, &options(), |mut tcp| {
        let own = vec![tcp.rank() as u8; [7, 0, 300_000][tcp.rank()]];
        let all = tcp.gather(&own).unwrap();
        tcp.finish().unwrap();
        all
    });
    assert_eq!(gathered[0], [vec![0; 7], vec![], vec![2; 300_000]]);
    assert!(gathered[1].is_empty() && gathered[2].is_empty());
}

#[test]
fn values_that_make_no_equal_parts_are_refused() {
    let errors = on_ranks(2, &options(), |mut tcp| {
        [
            tcp.reduce_scatter_f64(&[0.0; 3]).unwrap_err().to_string(),
            tcp.all_gather_parts(&mut [0.0; 5]).unwrap_err().to_string(),
        ]
    });
    for [scattered, gathered] in errors {
        assert_eq!(scattered, "reduce-scatter: 3 values do not make 2 equal parts");
        assert_eq!(gathered, "all-gather of parts: 5 values do not make 2 equal parts");
    }
}

#[test]
fn a_late_rank_costs_the_others_waiting() {
    static ABOUT_TO_ENTER: std::sync::Barrier = std::sync::Barrier::new(3);
    let waited = on_ranks(3, &options(), |mut tcp| {
        let before = tcp.spent().waiting;
        ABOUT_TO_ENTER.wait();
        if tcp.rank() == 1 {
            thread::sleep(Duration::from_secs(1));
        }
        tcp.all_reduce_sum(&mut [1.0; 10]).unwrap();
        let waited = tcp.spent().waiting - before;
        tcp.finish().unwrap();
        waited
    });
    let part_of_it = Duration::from_millis(50);
    assert!(waited[0] > part_of_it && waited[2] > part_of_it, "{waited:?}");
}

#[test]
fn a_rank_alone_has_everything_already() {
    let mut values = [1.5];
    Solo.all_reduce_sum(&mut values).unwrap();
    assert_eq!(values, [1.5]);
    assert_eq!(Solo.all_gather(b"own").unwrap(), [b"own".to_vec()]);
    let error = Solo.broadcast(&mut values, 1).unwrap_err().to_string();
    assert!(error.contains("no rank 1 among 1"), "{error}");
}

#[test]
fn a_rank_that_gives_up_is_named_with_its_reason_everywhere() {
    let errors = on_ranks(3, &options(), |mut tcp| {
        if tcp.rank() == 1 {
            tcp.abort("the loss is NaN");
            return tcp.barrier().unwrap_err().to_string();
        }
        tcp.all_reduce_sum(&mut [1.0]).unwrap_err().to_string()
    });
    assert_eq!(errors[0], "all-reduce: rank 1 failed: the loss is NaN");
    assert_eq!(errors[2], errors[0]);
}

#[test]
fn a_rank_that_vanishes_is_named_everywhere() {
    for gone in 0..3 {
        let master = free_address();
        let threads: Vec<_> = (0..3)
            .map(|rank| {
                let master = master.clone();
                thread::spawn(move || {
                    let mut tcp = join(rank, 3, &master, &options()).unwrap();
                    if rank == gone {
                        return String::new();
                    }
                    tcp.barrier().unwrap_err().to_string()
                })
            })
            .collect();
        for (rank, thread) in threads.into_iter().enumerate() {
            let error = thread.join().unwrap();
            assert!(
                rank == gone || error.contains(&format!("rank {gone} failed: it ended without a word")),
                "{error}"
            );
        }
    }
}

#[test]
fn ranks_in_different_collectives_are_told_so() {
    let errors = on_ranks(2, &options(), |mut tcp| match tcp.rank() {
        0 => tcp.all_reduce_sum(&mut [0.0; 3]).unwrap_err().to_string(),
        _ => tcp.barrier().unwrap_err().to_string(),
    });
    let expected = "all-reduce 1 of 12 bytes: rank 1 is in barrier 1 of 0 bytes instead";
    assert!(errors[0].contains(expected), "{}", errors[0]);
    assert!(errors[1].contains(expected), "{}", errors[1]);
}

#[test]
fn different_lengths_are_told() {
    let errors = on_ranks(2, &options(), |mut tcp| {
        let mut values = vec![0.0; 3 + tcp.rank()];
        tcp.all_reduce_sum(&mut values).unwrap_err().to_string()
    });
    assert!(
        errors[0].contains("of 12 bytes: rank 1 is in all-reduce 1 of 16 bytes"),
        "{}",
        errors[0]
    );
}

#[test]
fn a_message_beyond_the_bound_is_refused_on_both_sides() {
    let bounded = TcpOptions {
        largest: 1000,
        ..options()
    };
    let errors = on_ranks(2, &bounded, |mut tcp| {
        let own = vec![0; 600 + tcp.rank() * 600];
        tcp.all_gather(&own).unwrap_err().to_string()
    });
    for error in errors {
        assert!(
            error.contains("rank 1 wants to send 1200 bytes, the limit is 1000"),
            "{error}"
        );
    }
}

#[test]
fn the_watchdog_names_the_rank_that_does_not_come() {
    let watched = TcpOptions {
        watchdog: Duration::from_millis(300),
        ..options()
    };
    let started = Instant::now();
    let errors = on_ranks(3, &watched, |mut tcp| {
        if tcp.rank() == 2 {
            thread::sleep(Duration::from_secs(2));
        }
        tcp.barrier().unwrap_err().to_string()
    });
    assert!(started.elapsed() < Duration::from_secs(15));
    for error in errors {
        assert!(
            error.contains("rank 2 failed: it has not come to barrier 1, where rank"),
            "{error}"
        );
    }
}

#[test]
fn a_failure_that_training_does_not_notice_is_handed_on() {
    static HANDED_ON: std::sync::Mutex<String> = std::sync::Mutex::new(String::new());
    let options = TcpOptions {
        grace: Duration::from_millis(200),
        on_unnoticed: |error| *HANDED_ON.lock().unwrap() = error.to_string(),
        ..options()
    };
    on_ranks(2, &options, |mut tcp| {
        if tcp.rank() == 1 {
            return tcp.abort("stopped");
        }
        let until = Instant::now() + Duration::from_secs(10);
        while HANDED_ON.lock().unwrap().is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(10)); // busy computing
        }
    });
    assert_eq!(*HANDED_ON.lock().unwrap(), "rank 1 failed: stopped");
}

type Change = fn(&mut Identity, &mut TcpOptions);

/// Starts ranks 0 and 1 of a world of two, the latter with other options or another identity; both must fail.
fn misfits(world: usize, change: Change) -> [String; 2] {
    let master = free_address();
    let hub = {
        let master = master.clone();
        thread::spawn(move || join(0, 2, &master, &options()).unwrap_err().to_string())
    };
    let (mut identity, mut options) = (identity(), options());
    change(&mut identity, &mut options);
    let worker = Tcp::join(&place(1, world, &master), &identity, &options).unwrap_err();
    [hub.join().unwrap(), worker.to_string()]
}

#[test]
fn a_rank_of_another_run_is_refused_on_both_sides() {
    let cases: [(usize, Change, &str); 4] = [
        (
            2,
            |identity, _| identity.version = "1.2.4".to_owned(),
            "it is langptune 1.2.4",
        ),
        (2, |identity, _| identity.config[31] = 9, "its settings differ"),
        (2, |identity, _| identity.dataset[0] = 9, "its dataset differs"),
        (3, |_, _| {}, "its WORLD_SIZE is 3, rank 0's is 2"),
    ];
    for (world, change, expected) in cases {
        let [hub, worker] = misfits(world, change);
        assert!(hub.starts_with("rank 1 (127.0.0.1:") && hub.contains(expected), "{hub}");
        assert!(
            worker.starts_with("rank 0 refused rank 1:") && worker.contains(expected),
            "{worker}"
        );
    }
}

#[test]
fn a_wrong_secret_is_refused_and_does_not_disturb_the_others() {
    let master = free_address();
    let hub = {
        let master = master.clone();
        thread::spawn(move || join(0, 2, &master, &options()).map(|mut tcp| tcp.finish()))
    };
    let other = TcpOptions::new(Secret::new(b"another secret of 16").unwrap());
    let error = join(1, 2, &master, &other).unwrap_err().to_string();
    assert_eq!(
        error,
        "rank 0 refused rank 1: the secret differs; give all ranks the same LANGPTUNE_SECRET"
    );
    let mut right = join(1, 2, &master, &options()).unwrap();
    right.finish().unwrap();
    hub.join().unwrap().unwrap().unwrap();
}

#[test]
fn two_processes_with_one_rank_are_told_apart() {
    let master = free_address();
    let threads: Vec<_> = [0, 1, 1]
        .map(|rank| {
            let options = TcpOptions {
                rendezvous: Duration::from_secs(2),
                ..options()
            };
            let master = master.clone();
            thread::spawn(move || join(rank, 3, &master, &options).unwrap_err().to_string())
        })
        .into();
    let errors: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(
        errors[0].contains("did not come: 2") && errors[0].contains("there is a rank 1 already"),
        "{}",
        errors[0]
    );
    let refused = errors[1..]
        .iter()
        .filter(|error| error.contains("there is a rank 1 already"));
    assert_eq!(refused.count(), 1, "{errors:?}");
}

#[test]
fn ranks_that_do_not_come_are_listed() {
    let short = TcpOptions {
        rendezvous: Duration::from_millis(300),
        ..options()
    };
    let error = join(0, 4, &free_address(), &short).unwrap_err().to_string();
    assert!(error.contains("of 4 ranks these did not come: 1, 2, 3"), "{error}");
    let error = join(1, 4, &free_address(), &short).unwrap_err().to_string();
    assert!(error.contains("rank 1 cannot join rank 0 at 127.0.0.1:"), "{error}");
}

#[test]
fn a_rank_that_comes_and_goes_ends_the_waiting_of_the_others() {
    let master = free_address();
    let options = TcpOptions {
        silence: Duration::from_secs(1),
        rendezvous: Duration::from_secs(120),
        ..options()
    };
    let waiting: Vec<_> = [0, 1]
        .map(|rank| {
            let (master, options) = (master.clone(), options.clone());
            thread::spawn(move || join(rank, 4, &master, &options).unwrap_err().to_string())
        })
        .into();
    // Rank 2 introduces itself, and is killed; rank 3 never comes.
    let hello = Hello::new(Role::Control, 2, 4, &identity());
    let until = Instant::now() + Duration::from_secs(60);
    let spoken = loop {
        let tried = TcpStream::connect(&master)
            .and_then(|stream| handshake::introduce(stream, &hello, &secret(), Duration::from_secs(5)));
        match tried {
            Ok(spoken) => break spoken,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        thread::sleep(Duration::from_millis(20));
    };
    assert_eq!(
        spoken.hear(&secret(), Stage::Proof, Duration::from_secs(10)).unwrap(),
        Answer::Welcome
    );
    drop(spoken);
    for thread in waiting {
        let error = thread.join().unwrap();
        assert!(error.contains("rank 2 failed: it came and was gone"), "{error}");
    }
    assert!(Instant::now() < until, "they waited to the end");
}

#[test]
fn an_impostor_in_rank_0s_place_is_found_out() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let master = listener.local_addr().unwrap().to_string();
    let options = TcpOptions {
        rendezvous: Duration::from_millis(300),
        ..options()
    };
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read_exact(&mut [0; 147]);
            let _ = stream.write_all(&[7; 32]);
            let _ = stream.read_exact(&mut [0; 32]);
            let _ = stream.write_all(&[0; 35]); // "welcome", unsigned
        }
    });
    let error = join(1, 2, &master, &options).unwrap_err().to_string();
    assert!(error.contains("not signed with our secret"), "{error}");
}

/// Sends `bytes`, then waits for the other end to close or for `patience` to pass.
fn knock(master: &str, bytes: &[u8], patience: Duration) -> Vec<u8> {
    let Ok(mut stream) = TcpStream::connect(master) else {
        return Vec::new();
    };
    let _ = stream.set_read_timeout(Some(patience));
    let _ = stream.write_all(bytes);
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// Bytes that are garbage throughout, or begin like a hello.
fn garbage(seed: u32) -> Vec<u8> {
    let words = |count: u32| (0..count).flat_map(move |at| models::philox([at, seed, 0, 0], [7, 7]));
    let length = models::philox([0, seed, 1, 0], [7, 7])[0] % 400;
    let mut bytes: Vec<u8> = words(length).flat_map(u32::to_le_bytes).take(length as usize).collect();
    if seed.is_multiple_of(2) && bytes.len() > 11 {
        bytes[..8].copy_from_slice(b"LANGPTUN");
        bytes[8..11].copy_from_slice(&[1, 0, 0]);
    }
    bytes
}

/// A connection that means no good; what it was told must be no welcome.
fn attack(master: &str, kind: u32, seed: u32) {
    let limit = Duration::from_millis(500);
    let random = |count: usize| -> Vec<u8> { garbage(2 * seed + 1).into_iter().cycle().take(count).collect() };
    let hello = |rank: usize| Hello::new([Role::Control, Role::Data][(seed % 2) as usize], rank, 2, &identity());
    match kind {
        // Garbage, or what begins like a hello.
        0..=3 => {
            let answer = knock(master, &garbage(seed), Duration::from_millis(1));
            assert!(answer.len() <= 32 || answer[32] == 2, "{answer:?}");
        }
        // Far more than a hello.
        4 => {
            let bytes = [&b"LANGPTUN"[..], &random(200_000)].concat();
            let answer = knock(master, &bytes, Duration::from_millis(1));
            assert!(answer.len() <= 32 || answer[32] == 2, "{answer:?}");
        }
        // Our protocol with another secret, under the right and under impossible ranks.
        5 => {
            let other = Secret::new(b"a secret that somebody guessed").unwrap();
            let Ok(stream) = TcpStream::connect(master) else { return };
            let Ok(spoken) = handshake::introduce(stream, &hello(seed as usize % 4), &other, limit) else {
                return;
            };
            if let Ok(answer) = spoken.hear(&other, Stage::Proof, limit) {
                assert_eq!(answer, Answer::WrongSecret);
            }
        }
        // What a true rank once said to another challenge.
        6 => {
            let Ok(mut stream) = TcpStream::connect(master) else {
                return;
            };
            let _ = stream.set_read_timeout(Some(limit));
            let recorded = recorded_introduction(&hello(1));
            let _ = stream.write_all(&recorded[..147]);
            let mut challenge = [0; 32];
            let _ = stream.read_exact(&mut challenge);
            let _ = stream.write_all(&recorded[147..]);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            assert!(answer.is_empty() || answer[0] == 2, "{answer:?}");
        }
        // Comes and goes.
        _ => drop(TcpStream::connect(master)),
    }
}

/// Hello and proof of a rank that has the secret, to a challenge of an earlier run.
fn recorded_introduction(hello: &Hello) -> Vec<u8> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let hello = hello.clone();
    let rank = thread::spawn(move || {
        let stream = TcpStream::connect(address).unwrap();
        handshake::introduce(stream, &hello, &secret(), Duration::from_secs(5)).map(drop)
    });
    let (mut stream, _) = listener.accept().unwrap();
    let mut recorded = vec![0; 147];
    stream.read_exact(&mut recorded).unwrap();
    stream.write_all(&[7; 32]).unwrap();
    let mut proof = [0; 32];
    stream.read_exact(&mut proof).unwrap();
    recorded.extend(proof);
    rank.join().unwrap().unwrap();
    recorded
}

fn hostile_connections(tries: u32) {
    let master = free_address();
    let options = TcpOptions {
        handshake: Duration::from_millis(300),
        handshakes: 8,
        rendezvous: Duration::from_secs(900),
        ..options()
    };
    let hub = {
        let (master, options) = (master.clone(), options.clone());
        thread::spawn(move || {
            let mut tcp = join(0, 2, &master, &options).unwrap();
            let all = tcp.all_gather(b"hub").unwrap();
            tcp.finish().unwrap();
            all
        })
    };
    // Half-open: more than may talk at a time, and they stay.
    let silent: Vec<TcpStream> = (0..20).filter_map(|_| TcpStream::connect(&master).ok()).collect();
    for seed in 0..tries {
        attack(&master, seed % 8, seed);
    }
    // One byte at a time: the limit is for the whole introduction.
    let mut slow = TcpStream::connect(&master).unwrap();
    let started = Instant::now();
    while slow.write_all(b"L").is_ok() && started.elapsed() < Duration::from_secs(10) {
        thread::sleep(Duration::from_millis(20));
    }
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "a slow introduction went on"
    );
    let mut worker = join(1, 2, &master, &options).unwrap();
    assert_eq!(
        worker.all_gather(b"worker").unwrap(),
        [b"hub".to_vec(), b"worker".to_vec()]
    );
    worker.finish().unwrap();
    assert_eq!(hub.join().unwrap().len(), 2);
    drop(silent);
}

#[test]
fn hostile_connections_neither_enter_nor_disturb() {
    hostile_connections(320);
}

#[test]
#[ignore = "long: 12,000 connections"]
fn thousands_of_hostile_connections_neither_enter_nor_disturb() {
    hostile_connections(12_000);
}
