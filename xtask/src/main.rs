//! Development tasks: `cargo xtask test` is the project's test command.

mod bundle;
mod checks;
mod demo;
mod large_report;
mod layout;
mod process;
mod screenshots;
mod site;
mod toolchain;

use std::path::PathBuf;
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
    /// Build langptune and watch it train on a small made-up world: a few minutes once built.
    #[command(after_help = "Examples:\n  cargo xtask demo\n  cargo xtask demo --seed 2 --out demo-2")]
    Demo(DemoArgs),
    /// Run every check, setting up the tools that are missing.
    #[command(after_help = "Example:\n  cargo xtask test --only clippy --only tests")]
    Test(TestArgs),
    /// Set up the tools that the checks need, and nothing else.
    #[command(after_help = "Example:\n  cargo xtask setup")]
    Setup,
    /// Build the viewer into a folder that any static host can serve; prints the folder.
    #[command(after_help = "Example:\n  python3 -m http.server --directory \"$(cargo xtask viewer)\"")]
    Viewer,
    /// Build langptune with the viewer inside, as it is given away; prints the program.
    #[command(after_help = "Example:\n  \"$(cargo xtask bundle)\" view demo/run")]
    Bundle,
    /// Take pictures of the viewer's pages, light and dark, wide and narrow.
    #[command(after_help = "Example:\n  cargo xtask screenshots --out pictures --report demo/run/report --docs")]
    Screenshots(ScreenshotArgs),
    /// Write a made-up report as large as the viewer must bear, to try and to time the viewer on it.
    #[command(after_help = "Example:\n  cargo xtask large-report --out large")]
    LargeReport(LargeReportArgs),
}

#[derive(Debug, Args)]
struct ScreenshotArgs {
    /// Folder for the pictures.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// A run's folder `report`; a small one of the tests without it.
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Put those that the documentation shows into docs/images.
    #[arg(long)]
    docs: bool,
}

#[derive(Debug, Args)]
struct LargeReportArgs {
    /// Folder for the report.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Number of users.
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    users: usize,
    /// Number of items.
    #[arg(long, value_name = "N", default_value_t = 100_000)]
    items: usize,
    /// Number of checkpoints, of which the last two keep their vectors.
    #[arg(long, value_name = "N", default_value_t = 10)]
    checkpoints: usize,
    /// Values of a vector.
    #[arg(long, value_name = "N", default_value_t = 1024)]
    dims: usize,
}

#[derive(Debug, Args)]
struct DemoArgs {
    /// Folder for everything; a demo in it that was interrupted goes on.
    #[arg(long, value_name = "DIR", default_value = "demo")]
    out: PathBuf,
    /// Makes the world, and all draws of training.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
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
        Task::Demo(arguments) => demo::run_demo(&layout, &arguments.out, arguments.seed),
        Task::Test(arguments) => checks::run(&layout, &arguments.only, arguments.long),
        Task::Setup => checks::set_up(&layout),
        Task::Viewer => site::print_built(&layout),
        Task::Bundle => bundle::print_built(&layout),
        Task::Screenshots(ScreenshotArgs { out, report, docs }) => {
            screenshots::take(&layout, &out, report.as_deref(), docs)
        }
        Task::LargeReport(arguments) => {
            let LargeReportArgs {
                out,
                users,
                items,
                checkpoints,
                dims,
            } = arguments;
            large_report::write(&layout, &out, [users, items, checkpoints, dims])
        }
    }
}
