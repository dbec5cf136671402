//! The command line. One file a command; the structs here only parse.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Recommendation through profiles that people can read: prepare data, train, evaluate.
#[derive(Debug, Parser)]
#[command(name = "langptune", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// What `langptune` can do.
#[derive(Debug, Subcommand)]
enum Command {}

/// Parses the command line, runs the command, prints its error. Exit codes: 0 done, 1 failed, 2 usage.
pub fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<()> {
    match command {}
}
