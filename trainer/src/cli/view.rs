//! `langptune view`: reports in the browser.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::serve::{DEFAULT_PORT, Server};
use crate::site::{ReportPlace, Site, SiteError, find_reports};

const EXAMPLES: &str = "\
Examples:
  langptune view run
  langptune view runs/* --port 8000 --no-open

Reports are served to browsers on this machine alone. From another one, forward the same port:
  ssh -L 7860:127.0.0.1:7860 HOST";

/// Show runs in the browser, those that still train included
///
/// The address is printed; Ctrl-C ends it.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ViewArgs {
    /// Folders of training runs, or of reports
    #[arg(value_name = "RUN", required = true)]
    runs: Vec<PathBuf>,
    /// Port on 127.0.0.1; 0 takes any that is free [default: 7860, or any that is free]
    #[arg(long, value_name = "N")]
    port: Option<u16>,
    /// Do not open a browser
    #[arg(long)]
    no_open: bool,
    /// Folder of a built viewer to be used in place of the one in this program
    #[arg(long, value_name = "DIR", hide = true)]
    site: Option<PathBuf>,
}

/// Serves until it is interrupted.
pub(super) fn run(arguments: &ViewArgs) -> anyhow::Result<()> {
    let reports = find_reports(&arguments.runs)?;
    // Better now than in the browser.
    reports.iter().try_for_each(|report| report.manifest().map(drop))?;
    let site = open_site(arguments.site.as_deref())?;
    show(site, reports, arguments.port, !arguments.no_open)
}

/// The viewer in `folder`, or else the one in this program.
pub(super) fn open_site(folder: Option<&Path>) -> Result<Site, SiteError> {
    folder.map_or_else(Site::built_in, Site::read)
}

/// Serves until it is interrupted, and opens the page in the browser if it should and there is a display.
pub(super) fn show(site: Site, reports: Vec<ReportPlace>, port: Option<u16>, open: bool) -> anyhow::Result<()> {
    for report in &reports {
        eprintln!("{}: {}", report.name, report.folder.display());
    }
    let server = Server::bind(port, site, reports)?;
    if port.is_none() && server.port() != DEFAULT_PORT {
        eprintln!("note: port {DEFAULT_PORT} is taken");
    }
    let url = server.url();
    super::print(&format!("{url}\n"))?;
    eprintln!("Ctrl-C ends it");
    if open
        && has_display()
        && let Err(error) = open::that_detached(&url)
    {
        eprintln!("note: no browser could be opened ({error}): open {url} in one");
    }
    server.run()
}

/// Whether a browser could show something here; over a plain ssh connection it could not.
fn has_display() -> bool {
    let set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    cfg!(not(all(unix, not(target_os = "macos")))) || set("DISPLAY") || set("WAYLAND_DISPLAY")
}
