//! What is given away: the program with the viewer inside.

use std::path::absolute;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::run;
use crate::site;
use crate::toolchain::native;

/// Builds the viewer, then `langptune` with it inside, and prints the program.
///
/// # Errors
/// When a build fails.
#[expect(clippy::print_stdout, reason = "the program is this command's result")]
pub fn print_built(layout: &Layout) -> Result<()> {
    site::build(layout)?;
    // The build script that reads it runs in another folder.
    let site = absolute(&layout.site).with_context(|| format!("{} has no absolute path", layout.site.display()))?;
    eprintln!("building langptune: some twenty minutes on two cores the first time");
    run(native::cargo(layout)
        .args(["build", "--locked", "--profile", "bundle", "--package", "trainer"])
        .env("LANGPTUNE_SITE", site))?;
    let program = format!("langptune{}", std::env::consts::EXE_SUFFIX);
    println!("{}", layout.native.join("bundle").join(program).display());
    Ok(())
}
