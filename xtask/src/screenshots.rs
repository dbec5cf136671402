//! Pictures of the viewer's pages, and those among them that the documentation shows.

use std::fs;
use std::path::{Path, absolute};

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::{command, run};
use crate::site;
use crate::toolchain::browser;

/// The pages that the documentation shows, as they are in a wide window by day.
const IN_DOCS: [&str; 7] = ["overview", "users", "user", "items", "map", "compare", "check"];

/// Builds the viewer and takes pictures of every page into `out`, with `report` on it or else the tests' own; with `docs` some of
/// them become the documentation's.
///
/// # Errors
/// When the build fails, or a page does not show.
pub fn take(layout: &Layout, out: &Path, report: Option<&Path>, docs: bool) -> Result<()> {
    let chromium = browser::set_up(layout)?;
    site::build(layout)?;
    let out = absolute(out)?;
    let mut node = command("node");
    node.arg("screenshots.mjs")
        .arg(&out)
        .current_dir(layout.root.join("tests/browser"))
        .env("LANGPTUNE_SITE", absolute(&layout.site)?)
        .env("LANGPTUNE_CHROMIUM", chromium)
        // Pictures show no digest that needs to be right.
        .env("LANGPTUNE_NATIVE_DIGEST", "-");
    if let Some(report) = report {
        node.arg(absolute(report)?);
    }
    run(&mut node)?;
    if docs {
        for page in IN_DOCS {
            let (from, to) = (
                out.join(format!("{page}-light-wide-top.png")),
                layout.root.join(format!("docs/images/{page}.png")),
            );
            fs::copy(&from, &to).with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))?;
        }
    }
    Ok(())
}
