//! System packages of Debian.

use std::fs;

use anyhow::{Result, bail};

use crate::process::{answer, command, find_on_path, run};

/// Makes sure that the packages are installed, and says so when it has to install any.
///
/// # Errors
/// On another system than Debian and its relatives, or without the right to install, the error says what to run.
pub fn install(packages: &[&str], purpose: &str) -> Result<()> {
    let missing: Vec<_> = packages.iter().copied().filter(|package| !installed(package)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names = missing.join(" ");
    if find_on_path(&["apt-get"]).is_none() {
        bail!("{purpose}: expected the packages of Debian called {names}; install your system's, then run this again");
    }
    let Some(mut prefix) = right_to_install() else {
        bail!(
            "{purpose}: packages are missing and only root may install them. Run\n\n    sudo apt-get update && sudo apt-get install -y {names}\n\nthen run this again"
        );
    };
    eprintln!("{purpose}: installing the system packages {names}");
    prefix.extend(["apt-get", "-o", "DPkg::Lock::Timeout=300"]);
    run(command(prefix[0]).args(&prefix[1..]).args(["-q", "update"]))?;
    let install = ["-q", "install", "-y", "--no-install-recommends"];
    run(command(prefix[0])
        .args(&prefix[1..])
        .args(install)
        .args(&missing)
        .env("DEBIAN_FRONTEND", "noninteractive"))
}

/// Whether this is Debian 12, whose packages are known to serve.
pub fn is_bookworm() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "VERSION_CODENAME=bookworm")
}

/// The words to put before `apt-get`: none for root, `sudo` where it asks no password, `None` otherwise.
fn right_to_install() -> Option<Vec<&'static str>> {
    if answer(command("id").arg("-u")).as_deref() == Some("0") {
        return Some(Vec::new());
    }
    answer(command("sudo").args(["-n", "true"])).map(|_| vec!["sudo", "-n"])
}

fn installed(package: &str) -> bool {
    let status = answer(command("dpkg-query").args(["-W", "-f", "${db:Status-Status}", package]));
    status.as_deref() == Some("installed")
}
