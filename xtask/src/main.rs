//! Development tasks: `cargo xtask test` is the project's test command.

mod checks;
mod layout;
mod process;
mod site;
mod toolchain;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use checks::Check;
use layout::Layout;

/// Development tasks of langptune.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Run every check, setting up the tools that are missing.
    #[command(after_help = "Example:\n  cargo xtask test --only clippy --only tests")]
    Test(TestArgs),
    /// Set up the tools that the checks need, and nothing else.
    #[command(after_help = "Example:\n  cargo xtask setup")]
    Setup,
    /// Build the viewer into a folder that any static host can serve; prints the folder.
    #[command(after_help = "Example:\n  python3 -m http.server --directory \"$(cargo xtask viewer)\"")]
    Viewer,
}

#[derive(Debug, Args)]
struct TestArgs {
    /// Also run the tests marked `#[ignore]`: long trials.
    #[arg(long)]
    long: bool,
    /// Run only this check (may be repeated).
    #[arg(long, value_name = "CHECK")]
    only: Vec<Check>,
}

fn main() -> ExitCode {
    match run(Cli::parse().task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<()> {
    let layout = Layout::find()?;
    match task {
        Task::Test(arguments) => checks::run(&layout, &arguments.only, arguments.long),
        Task::Setup => checks::set_up(&layout),
        Task::Viewer => site::print_built(&layout),
    }
}
