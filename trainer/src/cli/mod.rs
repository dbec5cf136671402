//! The command line. One file a command; the structs here only parse.

mod argv;
mod bench;
mod bench_small_updates;
mod bench_updates;
mod demo;
mod doctor;
mod embed;
mod evaluate;
mod export;
mod export_dataset;
mod gpu;
mod launch;
mod logprob;
mod memory;
mod metrics;
mod prepare;
mod profile;
mod report;
mod train;
mod train_sources;
mod view;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use prepare::PrepareArgs;
pub use train::{RunControl, TrainArgs};

use crate::config::ConfigError;

/// What the process returns for a command line that cannot be carried out as it is written.
const USAGE: u8 = 2;

/// Recommendation through profiles that people can read: prepare data, train, evaluate.
#[derive(Debug, Parser)]
#[command(name = "langptune", version, about, term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `langptune` can do.
#[derive(Debug, Subcommand)]
enum Command {
    Prepare(Box<PrepareArgs>),
    ExportDataset(export_dataset::ExportDatasetArgs),
    Train(Box<TrainArgs>),
    Evaluate(Box<evaluate::EvaluateArgs>),
    Export(export::ExportArgs),
    Metrics(metrics::MetricsArgs),
    Profile(profile::ProfileArgs),
    Logprob(logprob::LogprobArgs),
    Embed(embed::EmbedArgs),
    Bench(bench::BenchArgs),
    Doctor(doctor::DoctorArgs),
    Launch(launch::LaunchArgs),
    Demo(demo::DemoArgs),
    View(view::ViewArgs),
    Report(report::ReportArgs),
}

impl Command {
    /// Whether models run in this process.
    fn computes(&self) -> bool {
        match self {
            Self::Train(_)
            | Self::Evaluate(_)
            | Self::Profile(_)
            | Self::Logprob(_)
            | Self::Embed(_)
            | Self::Bench(_)
            | Self::Demo(_) => true,
            Self::Prepare(_)
            | Self::ExportDataset(_)
            | Self::Export(_)
            | Self::Metrics(_)
            | Self::Doctor(_)
            | Self::Launch(_)
            | Self::View(_)
            | Self::Report(_) => false,
        }
    }
}

/// A mistake in the command line or the environment, found after clap.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// `message` names the flag and says what to do.
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// Parses the command line, runs the command, prints its error. Exit codes: 0 done, 1 failed, 2 usage.
pub fn main() -> ExitCode {
    let arguments = argv::normalise(std::env::args_os(), &Cli::command());
    match run(Cli::parse_from(arguments).command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", with_causes(&error));
            let usage = error.is::<UsageError>() || error.is::<ConfigError>();
            if usage {
                ExitCode::from(USAGE)
            } else {
                ExitCode::FAILURE
            }
        }
    }
}

/// An error and its causes, but for those that the text before has said already.
fn with_causes(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(command: Command) -> anyhow::Result<()> {
    if command.computes() {
        memory::keep_freed();
    }
    match command {
        Command::Prepare(arguments) => prepare::run(*arguments),
        Command::ExportDataset(arguments) => export_dataset::run(arguments),
        Command::Train(arguments) => train::run(&arguments),
        Command::Evaluate(arguments) => evaluate::run(&arguments),
        Command::Export(arguments) => export::run(&arguments),
        Command::Metrics(arguments) => metrics::run(&arguments),
        Command::Profile(arguments) => profile::run(&arguments),
        Command::Logprob(arguments) => logprob::run(&arguments),
        Command::Embed(arguments) => embed::run(&arguments),
        Command::Bench(arguments) => bench::run(&arguments),
        Command::Doctor(arguments) => doctor::run(&arguments),
        Command::Launch(arguments) => launch::run(&arguments),
        Command::Demo(arguments) => demo::run(&arguments),
        Command::View(arguments) => view::run(&arguments),
        Command::Report(arguments) => report::run(&arguments),
    }
}

/// Prints a result. A reader that went away (`| head`) is no error.
fn print(text: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_that_was_said_already_is_not_said_again() {
        let source = || io::Error::other("no room");
        let said = anyhow::Error::from(crate::TrainError::io("run", source()));
        assert_eq!(with_causes(&said), "run: no room");
        let unsaid = anyhow::Error::from(source()).context("cannot write run");
        assert_eq!(with_causes(&unsaid), "cannot write run: no room");
    }
}
