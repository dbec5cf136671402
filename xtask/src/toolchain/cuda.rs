//! Type-checking the feature `cuda` needs LLVM's headers and libraries, because a dependency links them: no GPU, driver or CUDA toolkit.

use std::fs;
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use super::debian;
use crate::layout::Layout;

/// LLVM of Debian 12, which serves in the place of the one that the dependency would download.
const LLVM_CONFIG: &str = "/usr/lib/llvm-22/bin/llvm-config";
const PACKAGES: [&str; 3] = ["llvm-22-dev", "libzstd-dev", "zlib1g-dev"];

/// Makes sure that the crate `tracel-llvm-bundler` finds an LLVM: its own, or Debian's in the folder where it looks first.
pub fn set_up(layout: &Layout) -> Result<()> {
    let version = layout.locked_version("tracel-llvm-bundler")?;
    let folder = data_home()?.join("tracel").join(format!("tracel-llvm-{version}"));
    if folder.join(".tracel-llvm-installed").is_file() {
        return Ok(());
    }
    if !Path::new(LLVM_CONFIG).is_file() {
        if !debian::is_bookworm() || can_download() {
            eprintln!("LLVM is missing: the build downloads it into {}", folder.display());
            return Ok(());
        }
        debian::install(
            &PACKAGES,
            "LLVM cannot be downloaded, Debian's LLVM 22 serves in its place",
        )?;
    }
    debian::install(&PACKAGES, "LLVM for the type check of the feature `cuda`")?;
    eprintln!(
        "Debian's LLVM 22 serves in place of LLVM {version}: writing {}",
        folder.display()
    );
    write_stand_in(&folder)
}

/// `llvm-config` as the dependency's build script asks for it, then the marker that says that the folder is complete.
fn write_stand_in(folder: &Path) -> Result<()> {
    let program = folder.join("bin/llvm-config");
    fs::create_dir_all(folder.join("bin")).with_context(|| format!("cannot create {}", folder.display()))?;
    fs::write(&program, stand_in()).with_context(|| format!("cannot write {}", program.display()))?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("cannot make {} executable", program.display()))?;
    }
    let marker = folder.join(".tracel-llvm-installed");
    fs::write(&marker, "").with_context(|| format!("cannot write {}", marker.display()))
}

fn stand_in() -> String {
    let components = "nvptx core analysis passes bitreader bitwriter linker target irreader orcjit x86";
    format!(
        "#!/bin/sh\n\
         # Written by langptune's xtask: Debian's LLVM 22 in place of the one that tracel-llvm-bundler would download.\n\
         for argument in \"$@\"; do\n    \
             case \"$argument\" in\n        \
                 --system-libs) echo '-lrt -ldl -lm -lz -lzstd'; exit 0 ;;\n        \
                 --libs | --libnames) exec {LLVM_CONFIG} \"$@\" {components} ;;\n    \
             esac\n\
         done\n\
         exec {LLVM_CONFIG} \"$@\"\n"
    )
}

/// `$XDG_DATA_HOME`, else `~/.local/share`.
fn data_home() -> Result<PathBuf> {
    if let Some(folder) = std::env::var_os("XDG_DATA_HOME").filter(|value| !value.is_empty()) {
        return Ok(folder.into());
    }
    Ok(PathBuf::from(std::env::var_os("HOME").context("HOME is not set")?).join(".local/share"))
}

/// Whether the host of the download answers at all.
fn can_download() -> bool {
    let Ok(mut addresses) = "github.com:443".to_socket_addrs() else {
        return false;
    };
    addresses.any(|address| TcpStream::connect_timeout(&address, Duration::from_secs(5)).is_ok())
}
