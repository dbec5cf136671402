//! NVIDIA's run-time compiler, with which tests compile the CUDA sources: no GPU, driver or CUDA toolkit.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::{command, run};

/// Names the library to the tests.
pub const VARIABLE: &str = "LANGPTUNE_NVRTC";
const PACKAGE: &str = "nvidia-cuda-nvrtc==13.0.88";
const LIBRARY: &str = "nvidia/cu13/lib/libnvrtc.so.13";

/// The library: the one that the variable names, or one from PyPI. Without it the tests that compile say that they skip.
pub fn set_up(layout: &Layout) -> Option<PathBuf> {
    if let Some(named) = std::env::var_os(VARIABLE).filter(|value| !value.is_empty()) {
        return Some(named.into());
    }
    if !cfg!(all(
        target_os = "linux",
        any(target_arch = "x86_64", target_arch = "aarch64")
    )) {
        return None;
    }
    let folder = layout.tools.join("nvrtc");
    let library = folder.join(LIBRARY);
    if library.is_file() {
        return Some(library);
    }
    eprintln!("NVRTC is missing: downloading {PACKAGE} into {}", folder.display());
    match download(&folder) {
        Ok(()) if library.is_file() => Some(library),
        Ok(()) => {
            eprintln!("{PACKAGE} has no {LIBRARY}; the CUDA sources are not compiled");
            None
        }
        Err(error) => {
            eprintln!("{error:#}; the CUDA sources are not compiled");
            None
        }
    }
}

/// Unpacks the package into `folder`, which is there whole or not at all.
fn download(folder: &Path) -> Result<()> {
    let beside = folder.with_extension("part");
    if beside.exists() {
        fs::remove_dir_all(&beside).with_context(|| format!("cannot remove {}", beside.display()))?;
    }
    fs::create_dir_all(&beside).with_context(|| format!("cannot create {}", beside.display()))?;
    let pip = [
        "-m",
        "pip",
        "download",
        "--quiet",
        "--retries=1",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
    ];
    run(command("python3").args(pip).arg(&beside).arg(PACKAGE))?;
    let wheel = fs::read_dir(&beside)
        .with_context(|| format!("cannot read {}", beside.display()))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .context("pip downloaded no wheel")?;
    run(command("python3")
        .args(["-m", "zipfile", "-e"])
        .arg(&wheel)
        .arg(&beside))?;
    fs::remove_file(&wheel).with_context(|| format!("cannot remove {}", wheel.display()))?;
    fs::rename(&beside, folder).with_context(|| format!("cannot write {}", folder.display()))
}
