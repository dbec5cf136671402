//! The checks behind `cargo xtask test`, in the order in which they run: the quickest to fail first.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::layout::Layout;
use crate::process::run as run_command;
use crate::site;
use crate::toolchain::{browser, cuda, native, nvrtc, wasm};

/// One check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Check {
    /// Formatting, by rustfmt.
    Format,
    /// Lints of all targets, by clippy; a warning fails.
    Clippy,
    /// Lints of the features `cuda` and `wgpu`, which type-checks them.
    Cuda,
    /// Unit and integration tests.
    Tests,
    /// The examples in the documentation.
    Doctests,
    /// eval-core and the viewer, built for wasm32.
    Wasm,
    /// The viewer in headless Chromium.
    Browser,
}

impl Check {
    fn headline(self) -> &'static str {
        match self {
            Self::Format => "formatting",
            Self::Clippy => "lints",
            Self::Cuda => "lints and type check of the features `cuda` and `wgpu`",
            Self::Tests => "unit and integration tests",
            Self::Doctests => "examples in the documentation",
            Self::Wasm => "build for wasm32",
            Self::Browser => "browser tests",
        }
    }

    fn run(self, layout: &Layout, long: bool) -> Result<()> {
        match self {
            Self::Format => {
                native::set_up_components(layout)?;
                run_command(native::cargo(layout).args(["fmt", "--all", "--check"]))
            }
            Self::Clippy => {
                native::set_up_components(layout)?;
                run_command(
                    native::cargo(layout)
                        .args(CLIPPY)
                        .args(["--workspace", "--", "-D", "warnings"]),
                )
            }
            Self::Cuda => {
                cuda::set_up(layout)?;
                let packages = [
                    "-p",
                    "models",
                    "-p",
                    "trainer",
                    "--features",
                    "cuda,wgpu",
                    "--",
                    "-D",
                    "warnings",
                ];
                run_command(native::cargo(layout).args(CLIPPY).args(packages))
            }
            Self::Tests => run_tests(layout, long),
            // With the same packages as the tests: fewer would change the features of dependencies, which are built anew then.
            Self::Doctests => run_command(native::cargo(layout).args(["test", "--locked", "--workspace", "--doc"])),
            Self::Wasm => site::build_modules(layout),
            Self::Browser => site::run_browser_tests(layout),
        }
    }
}

const CLIPPY: [&str; 3] = ["clippy", "--locked", "--all-targets"];

fn run_tests(layout: &Layout, long: bool) -> Result<()> {
    let compiler = nvrtc::set_up(layout).map(|library| (nvrtc::VARIABLE, library));
    if !native::set_up_nextest(layout) {
        let mut test = native::cargo(layout);
        test.envs(compiler);
        test.args(["test", "--locked", "--workspace", "--no-fail-fast", "--all-targets"]);
        if long {
            test.args(["--", "--include-ignored"]);
        }
        return run_command(&mut test);
    }
    let mut nextest = native::nextest(layout);
    nextest.args(["run", "--locked", "--workspace"]);
    nextest.envs(compiler);
    if layout.ci {
        nextest.args(["--profile", "ci"]);
    }
    if long {
        nextest.args(["--run-ignored", "all"]);
    }
    run_command(&mut nextest)
}

/// Runs the checks named in `only`, or all of them, up to the first that fails; then says how long each took.
///
/// # Errors
/// The first check that fails.
pub fn run(layout: &Layout, only: &[Check], long: bool) -> Result<()> {
    layout.forget_overgrown()?;
    let chosen: Vec<_> = Check::value_variants()
        .iter()
        .copied()
        .filter(|check| only.is_empty() || only.contains(check))
        .collect();
    let start = Instant::now();
    let mut times = Vec::new();
    let mut outcome = Ok(());
    for (place, check) in chosen.iter().enumerate() {
        eprintln!("\n==> {}/{} {}", place + 1, chosen.len(), check.headline());
        let start = Instant::now();
        outcome = check.run(layout, long).with_context(|| check.headline());
        times.push((check.headline(), start.elapsed()));
        if outcome.is_err() {
            break;
        }
    }
    eprintln!(
        "\n==> {}",
        if outcome.is_ok() {
            "all checks passed"
        } else {
            "a check FAILED"
        }
    );
    for (headline, elapsed) in times {
        eprintln!("{:>9}  {headline}", minutes(elapsed));
    }
    eprintln!("{:>9}  in all", minutes(start.elapsed()));
    outcome
}

/// Sets up every tool without running a check.
pub fn set_up(layout: &Layout) -> Result<()> {
    native::set_up_components(layout)?;
    native::set_up_nextest(layout);
    cuda::set_up(layout)?;
    nvrtc::set_up(layout);
    wasm::Toolchain::set_up()?;
    wasm::set_up_bindgen(layout)?;
    wasm::set_up_optimizer(layout)?;
    browser::set_up(layout)?;
    eprintln!("everything that the checks need is there");
    Ok(())
}

/// `3m 07s`.
fn minutes(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().round() as u64;
    format!("{}m {:02}s", seconds / 60, seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_in_minutes_and_seconds() {
        assert_eq!(minutes(Duration::from_millis(187_400)), "3m 07s");
        assert_eq!(minutes(Duration::from_millis(59_700)), "1m 00s");
    }
}
