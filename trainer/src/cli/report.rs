//! `langptune report`: reports for others.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};

use super::view::open_site;
use crate::bundle::{Bundle, write_single_file};
use crate::site::find_reports;

const EXAMPLES: &str = "\
Examples:
  langptune report bundle run --out site
  langptune report bundle runs/a runs/b --out site --redact --overwrite
  langptune report bundle run --single-file run.html

A site may lie on any static host under any address. One file is for reports of up to 50 MB, and
opens from a disk.";

/// Share the reports of runs
#[derive(Debug, Args)]
pub(super) struct ReportArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    Bundle(BundleArgs),
}

/// Write the viewer with reports in it, as a folder for any static host or as one HTML file
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("place").required(true).args(["out", "single_file"])))]
struct BundleArgs {
    /// Folders of training runs, or of reports
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Folder to write; it must not exist, or be empty
    #[arg(long, visible_alias = "output", value_name = "DIR")]
    out: Option<PathBuf>,
    /// HTML file to write
    #[arg(long, value_name = "HTML")]
    single_file: Option<PathBuf>,
    /// Leave out reviews, prompts, profiles, histories, users' ids, vectors and text indexes
    #[arg(long)]
    redact: bool,
    /// Replace an earlier bundle
    #[arg(long)]
    overwrite: bool,
    /// Folder of a built viewer to be used in place of the one in this program
    #[arg(long, value_name = "DIR", hide = true)]
    site: Option<PathBuf>,
}

/// Does what is asked for.
pub(super) fn run(arguments: &ReportArgs) -> anyhow::Result<()> {
    match &arguments.action {
        Action::Bundle(arguments) => bundle(arguments),
    }
}

fn bundle(arguments: &BundleArgs) -> anyhow::Result<()> {
    let reports = find_reports(&arguments.runs)?;
    let site = open_site(arguments.site.as_deref())?;
    let bundle = Bundle {
        site: &site,
        reports: &reports,
        redact: arguments.redact,
    };
    let mut written = Vec::new();
    if let Some(folder) = &arguments.out {
        bundle.write_folder(folder, arguments.overwrite)?;
        written.push(folder);
    }
    if let Some(file) = &arguments.single_file {
        if file.exists() && !arguments.overwrite {
            anyhow::bail!("{} exists; pass --overwrite to replace it", file.display());
        }
        write_single_file(&bundle, file)?;
        written.push(file);
    }
    let lines = written.iter().map(|path| format!("{}\n", path.display()));
    super::print(&lines.collect::<String>())
}
