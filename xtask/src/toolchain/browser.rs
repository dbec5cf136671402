//! What the browser tests need: Node.js with npm, their packages, and a Chromium.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::debian;
use crate::layout::Layout;
use crate::process::{answer, command, find_on_path, run};

/// The oldest Node.js that the tests are written for.
const NODE_MAJOR: u32 = 18;

/// Names under which Chromium and its relatives are installed.
const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Finds or installs everything; returns Chromium's path.
pub fn set_up(layout: &Layout) -> Result<PathBuf> {
    set_up_node()?;
    let tests = layout.root.join("tests/browser");
    if !is_installed(&tests) {
        eprintln!(
            "Packages of the browser tests: installing what {} names",
            tests.join("package-lock.json").display()
        );
        run(command("npm")
            .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
            .current_dir(&tests))?;
    }
    set_up_chromium()
}

fn set_up_node() -> Result<()> {
    if find_on_path(&["node"]).is_none() || find_on_path(&["npm"]).is_none() {
        debian::install(&["nodejs", "npm"], "The browser tests run on Node.js")?;
    }
    let version = answer(command("node").arg("--version")).context("`node --version` failed: Node.js is needed")?;
    let major = version
        .trim_start_matches('v')
        .split('.')
        .next()
        .and_then(|major| major.parse::<u32>().ok());
    if major.is_none_or(|major| major < NODE_MAJOR) {
        bail!("expected Node.js {NODE_MAJOR} or newer, found {version}: install a newer one, then run this again");
    }
    Ok(())
}

/// Whether npm has installed what the lock file names: it keeps a copy of the lock file inside, and that copy is newer.
fn is_installed(tests: &std::path::Path) -> bool {
    let changed = |name: &str| {
        tests
            .join(name)
            .metadata()
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    match (changed("node_modules/.package-lock.json"), changed("package-lock.json")) {
        (Some(installed), Some(wanted)) => installed >= wanted,
        _ => false,
    }
}

/// `LANGPTUNE_CHROMIUM`, else the first Chromium on `PATH`, else Debian's.
fn set_up_chromium() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("LANGPTUNE_CHROMIUM").filter(|value| !value.is_empty()) {
        return Ok(path.into());
    }
    if let Some(path) = find_on_path(&CHROMIUM) {
        return Ok(path);
    }
    debian::install(&["chromium"], "The browser tests need a Chromium")
        .context("or set LANGPTUNE_CHROMIUM to the path of one that you have")?;
    find_on_path(&CHROMIUM).context("no Chromium on PATH after installing it")
}
