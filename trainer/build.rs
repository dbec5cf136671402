//! Puts the built viewer into the program: `LANGPTUNE_SITE` names its folder. Without it the program is whole but for the viewer.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Names the folder of the built viewer.
const SITE: &str = "LANGPTUNE_SITE";

fn main() -> io::Result<()> {
    println!("cargo::rerun-if-env-changed={SITE}");
    let mut files = Vec::new();
    if let Some(site) = std::env::var_os(SITE).filter(|site| !site.is_empty()) {
        let site = fs::canonicalize(site)?;
        println!("cargo::rerun-if-changed={}", site.display());
        collect(&site, "", &mut files)?;
        files.sort();
    }
    let mut source = String::from("&[\n");
    for (name, path) in &files {
        source.push_str(&format!(
            "    ({name:?}, include_bytes!({:?})),\n",
            path.display().to_string()
        ));
    }
    source.push_str("]\n");
    let output = std::env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("Cargo sets OUT_DIR"))?;
    fs::write(Path::new(&output).join("site_files.rs"), source)
}

/// Adds the files below `folder`, named from there with slashes after `prefix`.
fn collect(folder: &Path, prefix: &str, files: &mut Vec<(String, PathBuf)>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = format!("{prefix}{name}");
        if path.is_dir() {
            collect(&path, &format!("{name}/"), files)?;
        } else {
            files.push((name, path));
        }
    }
    Ok(())
}
