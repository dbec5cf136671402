//! Tools around the machine's own Rust toolchain.

use std::process::Command;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::{answer, command, find_on_path, run};

/// Cargo of the toolchain that runs us, building in the native folder.
pub fn cargo(layout: &Layout) -> Command {
    let mut cargo = command(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(&layout.root).env("CARGO_TARGET_DIR", &layout.native);
    // What Cargo told this program about itself is not for what it builds.
    let ours = [
        "CARGO_MANIFEST_",
        "CARGO_PKG_",
        "CARGO_BIN_",
        "CARGO_CRATE_",
        "CARGO_PRIMARY_",
    ];
    for (name, _) in std::env::vars_os() {
        if ours.iter().any(|prefix| name.to_string_lossy().starts_with(prefix)) {
            cargo.env_remove(name);
        }
    }
    if layout.ci {
        // A fresh clone has nothing to be incremental on, and the folders are kept.
        cargo.env("CARGO_INCREMENTAL", "0");
    }
    cargo
}

/// Makes sure that rustfmt and clippy are there.
pub fn set_up_components(layout: &Layout) -> Result<()> {
    for (subcommand, component) in [("fmt", "rustfmt"), ("clippy", "clippy")] {
        if answer(cargo(layout).args([subcommand, "--version"])).is_some() {
            continue;
        }
        eprintln!("cargo {subcommand} is missing: adding the component {component}");
        run(command("rustup").args(["component", "add", component]))
            .with_context(|| format!("install {component} for your toolchain, then run this again"))?;
    }
    Ok(())
}

/// Whether `cargo nextest` can be used; installs it when missing. Tests run without it too, only slower.
pub fn set_up_nextest(layout: &Layout) -> bool {
    if answer(cargo(layout).args(["nextest", "--version"])).is_some() {
        return true;
    }
    let nextest = layout.tools.join("bin/cargo-nextest");
    if !nextest.is_file() {
        eprintln!("cargo-nextest is missing: building it into {}", layout.tools.display());
        if let Err(error) = install(layout, "cargo-nextest", None) {
            eprintln!("{error:#}; the tests run with `cargo test` instead");
        }
    }
    nextest.is_file()
}

/// `cargo nextest`, wherever it lies.
pub fn nextest(layout: &Layout) -> Command {
    let mut nextest = cargo(layout);
    if find_on_path(&["cargo-nextest"]).is_none() {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(layout.tools.join("bin")).chain(std::env::split_paths(&path));
        if let Ok(joined) = std::env::join_paths(folders) {
            nextest.env("PATH", joined);
        }
    }
    nextest.arg("nextest");
    nextest
}

/// Builds a tool from crates.io into our folder for tools, with the dependencies that it was released with if they can be had.
pub fn install(layout: &Layout, package: &str, version: Option<&str>) -> Result<()> {
    let install = |locked: &[&str]| {
        let mut install = cargo(layout);
        install
            .args(["install", "--quiet", package])
            .args(locked)
            .arg("--root")
            .arg(&layout.tools);
        install.env("CARGO_TARGET_DIR", layout.tools.join("build"));
        // It runs for seconds: a quick build is worth more than a quick program.
        install.env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1");
        if let Some(version) = version {
            install.args(["--version", version]);
        }
        run(&mut install)
    };
    install(&["--locked"]).or_else(|error| {
        eprintln!("{error:#}; trying newer dependencies, since one of its own may have been withdrawn");
        install(&[])
    })
}
