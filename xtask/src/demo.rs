//! The demo: the program as users build it, then its own command.

use std::path::{Path, absolute};

use anyhow::Result;

use crate::layout::Layout;
use crate::process::{command, run};
use crate::toolchain::native;

/// Builds `langptune` and runs `langptune demo` into `out`, a folder as seen from where we were started.
///
/// # Errors
/// When the build or the demo fails.
pub fn run_demo(layout: &Layout, out: &Path, seed: u64) -> Result<()> {
    eprintln!("building langptune: some ten minutes on two cores the first time");
    let mut build = native::cargo(layout);
    build.args(["build", "--locked", "--release", "--package", "trainer"]);
    // The viewer's toolchain is too much to ask of whoever wants to see a demo, but where it is built it is shown.
    if layout.site.join("index.html").is_file() {
        build.env("LANGPTUNE_SITE", absolute(&layout.site)?);
    } else {
        eprintln!("note: build the viewer first with `cargo xtask viewer`, and the demo ends in the browser");
    }
    run(&mut build)?;
    let program = layout
        .native
        .join("release")
        .join(format!("langptune{}", std::env::consts::EXE_SUFFIX));
    run(command(program)
        .arg("demo")
        .arg("--out")
        .arg(out)
        .args(["--seed", &seed.to_string(), "--resume"]))
}
