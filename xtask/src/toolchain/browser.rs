//! What the browser tests need: Node.js with npm, their packages, and a Chromium.

use std::path::PathBuf;

use anyhow::{Context, Result};

use super::{debian, node};
use crate::layout::Layout;
use crate::process::find_on_path;

/// Names under which Chromium and its relatives are installed.
const CHROMIUM: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Finds or installs everything; returns Chromium's path.
pub fn set_up(layout: &Layout) -> Result<PathBuf> {
    node::set_up("The browser tests run on Node.js")?;
    node::install(&layout.root.join("tests/browser"), "Packages of the browser tests")?;
    set_up_chromium()
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
