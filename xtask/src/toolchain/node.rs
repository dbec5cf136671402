//! Node.js, and the packages that a folder's lock file names.

use std::path::Path;

use anyhow::{Context, Result, bail};

use super::debian;
use crate::process::{answer, command, find_on_path, run};

/// The oldest Node.js that our scripts are written for.
const NODE_MAJOR: u32 = 18;

/// Finds or installs Node.js with npm; `why` says what needs it.
pub fn set_up(why: &str) -> Result<()> {
    if find_on_path(&["node"]).is_none() || find_on_path(&["npm"]).is_none() {
        debian::install(&["nodejs", "npm"], why)?;
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

/// Installs what the lock file in `folder` names, unless it is there; `what` is what the packages are.
pub fn install(folder: &Path, what: &str) -> Result<()> {
    if is_installed(folder) {
        return Ok(());
    }
    eprintln!(
        "{what}: installing what {} names",
        folder.join("package-lock.json").display()
    );
    run(command("npm")
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .current_dir(folder))
}

/// Whether npm has installed what the lock file names: it keeps a copy of the lock file inside, and that copy is newer.
fn is_installed(folder: &Path) -> bool {
    let changed = |name: &str| {
        folder
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
