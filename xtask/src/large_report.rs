//! A report as large as the viewer must bear.

use std::path::{Path, absolute};

use anyhow::Result;

use crate::layout::Layout;
use crate::process::run;
use crate::toolchain::native;

/// Writes a report into `out` with numbers of `[users, items, checkpoints, dims]`.
///
/// # Errors
/// When the build or the writing fails.
pub fn write(layout: &Layout, out: &Path, sizes: [usize; 4]) -> Result<()> {
    let example = ["--package", "eval-core", "--example", "large_report"];
    run(native::cargo(layout)
        .args(["run", "--locked", "--release"])
        .args(example)
        .arg("--")
        .arg(absolute(out)?)
        .args(sizes.map(|size| size.to_string())))
}
