//! Building for wasm32-unknown-unknown: with the toolchain's own target where rustup can have it, else with Debian's second
//! Rust toolchain, which carries the standard library's source.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::{debian, native, node};
use crate::layout::Layout;
use crate::process::{answer, command, find_on_path, run};

const TARGET: &str = "wasm32-unknown-unknown";

/// Debian's packages that together build for wasm32.
const PACKAGES: [&str; 5] = ["rustc-web", "cargo-web", "rust-web-src", "rust-web-llvm", "lld-22"];

/// The profile of what runs in a browser, see the root `Cargo.toml`.
pub const PROFILE: &str = "web";

/// What `wasm-opt` is told: what the module may use, and to make it small when packed, which is not the same as small. A function
/// that is called once is put into its caller only when it is tiny, or the module packs worse by 15 %; and functions of like
/// names, which are copies of one for several types, stand beside each other.
const OPTIMIZER: [&str; 15] = [
    "--enable-simd",
    "--enable-bulk-memory",
    "--enable-bulk-memory-opt",
    "--enable-mutable-globals",
    "--enable-sign-ext",
    "--enable-nontrapping-float-to-int",
    "--enable-reference-types",
    "--enable-multivalue",
    "--one-caller-inline-max-function-size=10",
    "--skip-pass=local-cse",
    "--converge",
    "-Oz",
    "--reorder-functions-by-name",
    "--strip-debug",
    "-o",
];

/// Which toolchain builds for wasm32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Toolchain {
    /// The one that runs us: its wasm32 standard library is installed.
    Own,
    /// Debian's in `/usr/bin`, which builds the standard library too.
    Debian,
}

impl Toolchain {
    /// Finds a toolchain that can build for wasm32, or installs one.
    pub fn set_up() -> Result<Self> {
        if own_has_target() {
            return Ok(Self::Own);
        }
        if debian_is_ready() {
            return Ok(Self::Debian);
        }
        if find_on_path(&["rustup"]).is_some() {
            eprintln!("The toolchain lacks the target {TARGET}: adding it");
            if run(command("rustup").args(["target", "add", TARGET])).is_ok() && own_has_target() {
                return Ok(Self::Own);
            }
        }
        if !debian::is_bookworm() {
            bail!(
                "the toolchain has no target {TARGET} and it could not be added: `rustup target add {TARGET}` must work"
            );
        }
        debian::install(
            &PACKAGES,
            &format!("rustup cannot add {TARGET}, Debian's second toolchain can build for it"),
        )?;
        if !debian_is_ready() {
            bail!(
                "/usr/bin/cargo with the standard library's source was expected after installing {}",
                PACKAGES.join(" ")
            );
        }
        Ok(Self::Debian)
    }

    /// `cargo build` for wasm32 in its own folder; packages are still to be named.
    pub fn build(self, layout: &Layout) -> Result<Command> {
        let mut build = match self {
            Self::Own => native::cargo(layout),
            Self::Debian => debian_cargo(layout)?,
        };
        build.env("CARGO_TARGET_DIR", &layout.wasm);
        // Views without their types: a twelfth of the module less, packed.
        build.env("RUSTFLAGS", "--cfg erase_components");
        build.args(["build", "--locked", "--target", TARGET, "--profile", PROFILE]);
        if self == Self::Debian {
            build.arg("-Zbuild-std=std,panic_abort");
        }
        Ok(build)
    }
}

/// The module that building `package` for wasm32 made.
pub fn module(layout: &Layout, package: &str) -> PathBuf {
    layout
        .wasm
        .join(TARGET)
        .join(PROFILE)
        .join(format!("{}.wasm", package.replace('-', "_")))
}

/// `wasm-bindgen` of the version that the lock file names for the library: the two must be equal.
pub fn set_up_bindgen(layout: &Layout) -> Result<PathBuf> {
    let version = layout.locked_version("wasm-bindgen")?;
    let has_version = |path: &Path| {
        answer(command(path).arg("--version")).is_some_and(|line| line == format!("wasm-bindgen {version}"))
    };
    if let Some(path) = find_on_path(&["wasm-bindgen"]).filter(|path| has_version(path)) {
        return Ok(path);
    }
    let path = layout.tools.join("bin/wasm-bindgen");
    if !has_version(&path) {
        eprintln!(
            "wasm-bindgen {version} is missing: building it into {}",
            layout.tools.display()
        );
        native::install(layout, "wasm-bindgen-cli", Some(&version))?;
    }
    Ok(path)
}

/// `wasm-opt` of the version that `xtask/wasm-opt` names, out of npm's `binaryen`.
pub fn set_up_optimizer(layout: &Layout) -> Result<PathBuf> {
    let ours = layout.root.join("xtask/wasm-opt");
    let folder = layout.tools.join("wasm-opt");
    // Among the other tools, because it is large and a fresh clone needs it anew otherwise.
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    for name in ["package.json", "package-lock.json"] {
        let wanted =
            std::fs::read(ours.join(name)).with_context(|| format!("cannot read {name} in {}", ours.display()))?;
        let path = folder.join(name);
        // Written only when it differs: npm's packages must stay newer than the lock file.
        if std::fs::read(&path).ok().as_ref() != Some(&wanted) {
            std::fs::write(&path, wanted).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    node::set_up("wasm-opt runs on Node.js")?;
    node::install(&folder, "wasm-opt")?;
    Ok(folder.join("node_modules/binaryen/bin/wasm-opt"))
}

/// Makes a module, which still has the functions' names, smaller, in place, and takes the names out.
pub fn optimize(optimizer: &Path, module: &Path) -> Result<()> {
    let smaller = module.with_extension("smaller");
    run(command("node").arg(optimizer).arg(module).args(OPTIMIZER).arg(&smaller))?;
    std::fs::rename(&smaller, module).with_context(|| format!("cannot replace {}", module.display()))
}

fn own_has_target() -> bool {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let library = answer(command(rustc).args(["--print", "target-libdir", "--target", TARGET]));
    library.is_some_and(|folder| std::fs::read_dir(folder).is_ok_and(|mut files| files.next().is_some()))
}

/// Whether `/usr/bin` has a toolchain that is new enough, with the standard library's source and a linker for wasm.
fn debian_is_ready() -> bool {
    let source = Path::new("/usr/lib/rustlib/src/rust/library/std/Cargo.toml");
    let version = answer(command("/usr/bin/rustc").arg("--version").env_remove("LD_LIBRARY_PATH"));
    let new_enough = version
        .as_deref()
        .and_then(minor_version)
        .is_some_and(|minor| minor >= oldest_minor_version());
    new_enough && source.is_file() && Path::new("/usr/bin/cargo").is_file() && Path::new("/usr/bin/rust-lld").exists()
}

/// `95` of `rustc 1.95.0 (…)`.
fn minor_version(line: &str) -> Option<u32> {
    line.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()
}

/// The minor version of the workspace's `rust-version`, which Cargo tells every package.
fn oldest_minor_version() -> u32 {
    env!("CARGO_PKG_RUST_VERSION")
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse().ok())
        .unwrap_or(0)
}

fn debian_cargo(layout: &Layout) -> Result<Command> {
    let home = match std::env::var_os("CARGO_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".cargo"),
    };
    let mut cargo = command("/usr/bin/cargo");
    cargo.current_dir(&layout.root);
    // Nothing of the toolchain that runs us may leak into this one.
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy();
        if name.starts_with("CARGO") || name.starts_with("RUST") || name == "LD_LIBRARY_PATH" {
            cargo.env_remove(&*name);
        }
    }
    // Building the standard library is an unstable feature, which a stable compiler allows to its distributors.
    cargo
        .env("RUSTC_BOOTSTRAP", "1")
        .env("PATH", "/usr/bin:/bin")
        .env("CARGO_HOME", home);
    Ok(cargo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_minor_version_is_read_from_what_rustc_says() {
        assert_eq!(
            minor_version("rustc 1.96.0 (ac68faa20 2026-05-25) (built from a source tarball)"),
            Some(96)
        );
        assert_eq!(minor_version("clang version 1.96.0"), None);
    }

    #[test]
    fn the_oldest_compiler_is_the_one_that_the_workspace_names() {
        assert!(oldest_minor_version() >= 95);
    }
}
