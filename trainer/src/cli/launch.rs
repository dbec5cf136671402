//! `langptune launch`: several processes of this program that train together, on one host or as one host's share of them.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};

use super::UsageError;
use crate::config::variable_name;
use crate::dist::{LAUNCHED_VARIABLE, RESTARTED_VARIABLE, SECRET_VARIABLE};

const EXAMPLES: &str = "\
Examples:
  langptune launch --nproc 2 -- train --preset gemma --dataset data/movies --output runs/movies
  RAYON_NUM_THREADS=8 langptune launch --nproc 4 -- train --config runs/movies/config.toml --output runs/again
  langptune launch --nproc 8 --max-restarts 3 -- train --preset gemma --dataset data/movies --output runs/movies
  MASTER_ADDR=node1 MASTER_PORT=29500 LANGPTUNE_SECRET=… langptune launch --nproc 8 --hosts 2 --host-rank 0 -- train …

Rank 0 writes the run and shows progress; what the other ranks say is printed with their number in front.
The processors are shared out unless RAYON_NUM_THREADS is set. When one rank fails, all end; with
--max-restarts they begin again from the last checkpoint. On several hosts run it once on each, with the
same MASTER_ADDR, MASTER_PORT (where the first host's rank 0 listens) and LANGPTUNE_SECRET.";

/// Train in several processes, on this host or on several
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct LaunchArgs {
    /// How many processes
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    nproc: u16,
    /// How often the processes are started again from the last checkpoint when one has failed
    #[arg(long, value_name = "N", default_value_t = 0)]
    max_restarts: u32,
    /// How many hosts run this command, each with as many processes
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=1024))]
    hosts: u16,
    /// This host's number among them, from 0
    #[arg(long, value_name = "K", default_value_t = 0)]
    host_rank: u16,
    /// The command that every process runs, after two dashes: train and its flags
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// For the other ranks to end by themselves once one has failed: they know within moments.
const GRACE: Duration = Duration::from_secs(20);
/// Between a process's death as the others see it, by its sockets, and as this one does.
const MOMENT: Duration = Duration::from_secs(2);
/// Between two looks at the processes.
const POLL: Duration = Duration::from_millis(5);
/// Signals of a user who means it: the first asks for a checkpoint, the second for an end, the third gets one.
const SIGNALS_TO_KILL: usize = 3;

/// Starts the processes and waits for them.
pub(super) fn run(arguments: &LaunchArgs) -> anyhow::Result<()> {
    let several = |command: &OsString| command == "train" || command == "bench";
    if !arguments.command.first().is_some_and(several) {
        return Err(UsageError::new(
            "launch: only `train` runs in several processes (and `bench --updates`); write `launch --nproc N -- train …`",
        )
        .into());
    }
    check(arguments)?;
    let signals = Signals::listen().context("cannot listen for signals")?;
    let meeting = Meeting::of(arguments)?;
    let started = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut restarts = 0;
    loop {
        let restarted = (restarts > 0).then_some(started);
        let mut ranks = Ranks::start(arguments, &meeting, restarted, &signals)?;
        let outcome = ranks.wait();
        ranks.kill();
        ranks.finish_output();
        let Some((rank, status)) = outcome else { return Ok(()) };
        if ranks.passed > 0 {
            anyhow::bail!("launch: stopped by a signal; all ranks have ended");
        }
        if status.code() == Some(2) {
            let message = format!("launch: rank {rank} did not accept the command line, see above");
            return Err(UsageError::new(message).into());
        }
        if restarts >= arguments.max_restarts {
            anyhow::bail!("launch: rank {rank} was the first to end: {status}; all ranks have ended");
        }
        restarts += 1;
        eprintln!(
            "launch: rank {rank} was the first to end: {status}; restart {restarts} of {} goes on from the last checkpoint",
            arguments.max_restarts
        );
    }
}

/// Refuses what cannot work, before anything is started.
fn check(arguments: &LaunchArgs) -> Result<(), UsageError> {
    let named = |word: &OsString| {
        word.to_str()
            .is_some_and(|word| word == "--output" || word.starts_with("--output="))
    };
    let output = arguments.command.iter().any(named) || std::env::var_os(variable_name("output")).is_some();
    if arguments.max_restarts > 0 && !output {
        return Err(UsageError::new(
            "launch: --max-restarts goes on with the run that the command names: give it --output",
        ));
    }
    if arguments.host_rank >= arguments.hosts {
        return Err(UsageError::new(format!(
            "launch: --host-rank is {}, expected 0 to {}: hosts are counted from 0",
            arguments.host_rank,
            arguments.hosts - 1
        )));
    }
    Ok(())
}

/// Where the ranks meet, and what they know each other by.
#[derive(Debug)]
struct Meeting {
    /// On several hosts, where rank 0 listens; on one a free port is found at every start.
    master: Option<[String; 2]>,
    secret: String,
}

impl Meeting {
    fn of(arguments: &LaunchArgs) -> anyhow::Result<Self> {
        let given = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
        if arguments.hosts == 1 {
            let secret = given(SECRET_VARIABLE).map_or_else(random_secret, Ok)?;
            return Ok(Self { master: None, secret });
        }
        let need = |name: &str| {
            given(name).ok_or_else(|| {
                UsageError::new(format!(
                    "launch: on several hosts {name} must be set, to the same everywhere"
                ))
            })
        };
        Ok(Self {
            master: Some([need("MASTER_ADDR")?, need("MASTER_PORT")?]),
            secret: need(SECRET_VARIABLE)?,
        })
    }

    /// Address and port for a start.
    fn place(&self) -> std::io::Result<[String; 2]> {
        if let Some(master) = &self.master {
            return Ok(master.clone());
        }
        // The port is free now; should another program take it first, rank 0 says so.
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(["127.0.0.1".to_owned(), port.to_string()])
    }
}

/// SIGINT and SIGTERM, as they come in.
#[derive(Debug)]
struct Signals([(i32, Arc<AtomicBool>); 2]);

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let signals = Self([SIGINT, SIGTERM].map(|signal| (signal, Arc::default())));
        for (signal, received) in &signals.0 {
            signal_hook::flag::register(*signal, received.clone())?;
        }
        Ok(signals)
    }

    /// Those that came since the last look.
    fn received(&self) -> impl Iterator<Item = i32> {
        let new = self
            .0
            .iter()
            .filter(|(_, received)| received.swap(false, Ordering::SeqCst));
        new.map(|&(signal, _)| signal)
    }
}

/// The processes of this host.
#[derive(Debug)]
struct Ranks<'a> {
    /// The number of the first.
    first: usize,
    children: Vec<(Child, Option<ExitStatus>)>,
    printers: Vec<JoinHandle<()>>,
    signals: &'a Signals,
    /// Signals that were passed on.
    passed: usize,
}

impl<'a> Ranks<'a> {
    fn start(
        arguments: &LaunchArgs,
        meeting: &Meeting,
        restarted: Option<u64>,
        signals: &'a Signals,
    ) -> anyhow::Result<Self> {
        let here = usize::from(arguments.nproc);
        let program = std::env::current_exe().context("cannot find this program's file")?;
        let [address, port] = meeting.place()?;
        let mut ranks = Self {
            first: here * usize::from(arguments.host_rank),
            children: Vec::with_capacity(here),
            printers: Vec::new(),
            signals,
            passed: 0,
        };
        for local in 0..here {
            let rank = ranks.first + local;
            let mut command = Command::new(&program);
            command
                .args(&arguments.command)
                .env("RANK", rank.to_string())
                .env("LOCAL_RANK", local.to_string())
                .env("LOCAL_WORLD_SIZE", here.to_string())
                .env("WORLD_SIZE", (here * usize::from(arguments.hosts)).to_string())
                .env("MASTER_ADDR", &address)
                .env("MASTER_PORT", &port)
                .env(SECRET_VARIABLE, &meeting.secret)
                .env(LAUNCHED_VARIABLE, "1")
                // Held open by this process: its end tells the ranks that the launcher is gone.
                .stdin(Stdio::piped());
            match restarted {
                Some(started) => command.env(RESTARTED_VARIABLE, started.to_string()),
                None => command.env_remove(RESTARTED_VARIABLE),
            };
            if std::env::var_os("RAYON_NUM_THREADS").is_none() {
                command.env("RAYON_NUM_THREADS", threads_each(here).to_string());
            }
            if rank > 0 {
                command.stdout(Stdio::piped()).stderr(Stdio::piped());
            }
            // A group of its own: Ctrl-C on the terminal reaches the launcher, which passes it on once.
            #[cfg(unix)]
            std::os::unix::process::CommandExt::process_group(&mut command, 0);
            match command.spawn() {
                Ok(child) => ranks.take(rank, child),
                Err(error) => {
                    ranks.kill();
                    return Err(error).context(format!("cannot start rank {rank}"));
                }
            }
        }
        Ok(ranks)
    }

    fn take(&mut self, rank: usize, mut child: Child) {
        let outputs: [Option<Box<dyn Read + Send>>; 2] = [
            child.stdout.take().map(|output| Box::new(output) as _),
            child.stderr.take().map(|output| Box::new(output) as _),
        ];
        for output in outputs.into_iter().flatten() {
            self.printers
                .push(std::thread::spawn(move || print_lines(rank, output)));
        }
        self.children.push((child, None));
    }

    /// Waits until all have ended, or, once one has failed, until [`GRACE`] is over. Returns the first that failed.
    fn wait(&mut self) -> Option<(usize, ExitStatus)> {
        let mut failed: Option<(usize, ExitStatus, Instant)> = None;
        loop {
            for (rank, status) in self.newly_ended() {
                let first = match &failed {
                    None => true,
                    // What a signal has ended can be seen to have ended after those that followed it.
                    Some((_, earlier, at)) => {
                        earlier.code().is_some() && status.code().is_none() && at.elapsed() < MOMENT
                    }
                };
                if !status.success() && first {
                    failed = Some((self.first + rank, status, Instant::now()));
                }
            }
            self.pass_signals();
            let over = failed.is_some_and(|(_, _, at)| at.elapsed() > GRACE) || self.passed >= SIGNALS_TO_KILL;
            if over || self.children.iter().all(|(_, status)| status.is_some()) {
                return failed.map(|(rank, status, _)| (rank, status));
            }
            std::thread::sleep(POLL);
        }
    }

    /// Those that ended since the last look; one that a signal killed comes first, as the others follow it.
    fn newly_ended(&mut self) -> Vec<(usize, ExitStatus)> {
        let mut ended = Vec::new();
        for (rank, (child, known)) in self.children.iter_mut().enumerate() {
            if known.is_none()
                && let Ok(Some(status)) = child.try_wait()
            {
                *known = Some(status);
                ended.push((rank, status));
            }
        }
        ended.sort_by_key(|(_, status)| status.code().is_some());
        ended
    }

    fn pass_signals(&mut self) {
        let received: Vec<i32> = self.signals.received().collect();
        for signal in received {
            self.passed += 1;
            self.running().for_each(|child| send_signal(child, signal));
        }
    }

    fn running(&mut self) -> impl Iterator<Item = &mut Child> {
        let running = self.children.iter_mut().filter(|(_, status)| status.is_none());
        running.map(|(child, _)| child)
    }

    /// Ends what still runs.
    fn kill(&mut self) {
        for child in self.running() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    fn finish_output(&mut self) {
        for printer in self.printers.drain(..) {
            let _ = printer.join();
        }
    }
}

/// Passes a signal on to a process.
#[cfg(unix)]
fn send_signal(child: &mut Child, signal: i32) {
    if let Ok(pid) = i32::try_from(child.id()) {
        // SAFETY: `kill` takes two numbers and touches no memory of ours. The child has not been waited for, so its number
        // is still its own.
        unsafe { libc::kill(pid, signal) };
    }
}

#[cfg(not(unix))]
fn send_signal(child: &mut Child, _: i32) {
    let _ = child.kill();
}

/// Prints each line on stderr with the rank in front.
fn print_lines(rank: usize, output: Box<dyn Read + Send>) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
        eprintln!("[rank {rank}] {}", String::from_utf8_lossy(&line).trim_end());
        line.clear();
    }
}

/// Threads of each of `here` processes on this host's processors.
fn threads_each(here: usize) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    (processors / here).max(1)
}

/// 32 random bytes in hexadecimal.
fn random_secret() -> anyhow::Result<String> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system gives no random numbers: {error}"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
