//! Where things lie: the repository, and one build folder for each toolchain.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Past this size a build folder that CI keeps is started afresh: Cargo never removes what an earlier commit built.
const KEPT_BYTES: u64 = 25 << 30;

/// The folders that tasks read and write.
#[derive(Debug)]
pub struct Layout {
    /// The repository's root.
    pub root: PathBuf,
    /// What the machine's own toolchain builds.
    pub native: PathBuf,
    /// What is built for wasm32.
    pub wasm: PathBuf,
    /// Tools that Cargo installed for us (`bin/` inside).
    pub tools: PathBuf,
    /// The built viewer.
    pub site: PathBuf,
    /// Whether CI runs us, which keeps its builds outside the clone.
    pub ci: bool,
}

impl Layout {
    /// Reads `LANGPTUNE_TARGET` (a folder for all builds), `CI` and `CARGO_TARGET_DIR`.
    pub fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask has no parent folder")?
            .to_owned();
        let ci = std::env::var("CI").is_ok_and(|value| value == "true");
        let folder = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        let kept = match folder("LANGPTUNE_TARGET") {
            Some(kept) => Some(kept),
            None if ci => Some(folder("HOME").context("HOME is not set")?.join(".cache/langptune-ci")),
            None => None,
        };
        let (native, base) = match kept {
            Some(kept) => (kept.join("native"), kept),
            None => {
                let target = folder("CARGO_TARGET_DIR").unwrap_or_else(|| root.join("target"));
                (target.clone(), target)
            }
        };
        Ok(Self {
            root,
            native,
            wasm: base.join("wasm"),
            tools: base.join("tools"),
            site: base.join("site"),
            ci,
        })
    }

    /// In CI, removes build folders that have outgrown their limit.
    pub fn forget_overgrown(&self) -> Result<()> {
        if !self.ci {
            return Ok(());
        }
        for folder in [&self.native, &self.wasm] {
            // xtask runs from the native folder: Cargo has made what it needs again by the next run.
            let bytes = size(folder);
            if bytes > KEPT_BYTES {
                eprintln!(
                    "{} has grown to {} GiB: starting it afresh",
                    folder.display(),
                    bytes >> 30
                );
                fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
            }
        }
        Ok(())
    }

    /// The version of `package` in `Cargo.lock`.
    pub fn locked_version(&self, package: &str) -> Result<String> {
        let path = self.root.join("Cargo.lock");
        let lock = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        locked_version(&lock, package).with_context(|| format!("{} names no package {package}", path.display()))
    }
}

fn locked_version(lock: &str, package: &str) -> Option<String> {
    let name = format!("name = \"{package}\"");
    let mut lines = lock.lines().skip_while(|line| *line != name);
    lines.next()?;
    Some(
        lines
            .next()?
            .strip_prefix("version = \"")?
            .strip_suffix('"')?
            .to_owned(),
    )
}

/// Bytes of the files under `folder`; what cannot be read counts as nothing.
fn size(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let of_entry = |entry: fs::DirEntry| match entry.metadata() {
        Ok(metadata) if metadata.is_dir() => size(&entry.path()),
        Ok(metadata) => metadata.len(),
        Err(_) => 0,
    };
    entries.flatten().map(of_entry).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_version_is_that_of_the_package_with_exactly_that_name() {
        let lock =
            "[[package]]\nname = \"a-b\"\nversion = \"2.0.0\"\n\n[[package]]\nname = \"a\"\nversion = \"1.2.3\"\n";
        assert_eq!(locked_version(lock, "a").as_deref(), Some("1.2.3"));
        assert_eq!(locked_version(lock, "b"), None);
    }

    #[test]
    fn the_repository_holds_this_package() {
        let root = Layout::find().map(|layout| layout.root).unwrap_or_default();
        assert!(root.join("xtask/src/layout.rs").is_file());
    }
}
