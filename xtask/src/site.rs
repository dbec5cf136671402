//! The viewer as a folder of static files, and its tests in a browser.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use crate::layout::Layout;
use crate::process::{command, output, run};
use crate::toolchain::wasm::Toolchain;
use crate::toolchain::{browser, native, wasm};

/// Builds eval-core and the viewer for wasm32.
pub fn build_modules(layout: &Layout) -> Result<()> {
    run(Toolchain::set_up()?
        .build(layout)?
        .args(["-p", "eval-core", "-p", "viewer"]))?;
    let module = wasm::module(layout, "viewer");
    let bytes = module
        .metadata()
        .with_context(|| format!("{} was not built", module.display()))?
        .len();
    eprintln!("{}: {} KiB", module.display(), bytes >> 10);
    Ok(())
}

/// Builds the viewer and prints its folder.
#[expect(clippy::print_stdout, reason = "the folder is this command's result")]
pub fn print_built(layout: &Layout) -> Result<()> {
    build(layout)?;
    println!("{}", layout.site.display());
    Ok(())
}

/// Builds the viewer into the site's folder: the module, its JavaScript glue, and the static files of `assets/viewer`.
pub fn build(layout: &Layout) -> Result<()> {
    build_modules(layout)?;
    let bindgen = wasm::set_up_bindgen(layout)?;
    if layout.site.exists() {
        fs::remove_dir_all(&layout.site).with_context(|| format!("cannot remove {}", layout.site.display()))?;
    }
    copy_files(&layout.root.join("assets/viewer"), &layout.site)?;
    let optimizer = wasm::set_up_optimizer(layout)
        .inspect_err(|error| {
            eprintln!("{error:#}; the viewer works without wasm-opt, but is larger than it needs to be")
        })
        .ok();
    let mut bind = command(bindgen);
    bind.args(["--target", "web", "--no-typescript", "--remove-producers-section"]);
    if optimizer.is_none() {
        bind.arg("--remove-name-section");
    }
    run(bind
        .arg("--out-dir")
        .arg(&layout.site)
        .arg(wasm::module(layout, "viewer")))?;
    let module = layout.site.join("viewer_bg.wasm");
    if let Some(optimizer) = optimizer {
        wasm::optimize(&optimizer, &module)?;
    }
    let bytes = module
        .metadata()
        .with_context(|| format!("{} was not made", module.display()))?
        .len();
    eprintln!("{}: {} KiB", module.display(), bytes >> 10);
    Ok(())
}

/// Opens the built viewer in headless Chromium, from a static host and as `langptune` serves and bundles it; the native digest is
/// what the browser must show too.
pub fn run_browser_tests(layout: &Layout) -> Result<()> {
    let chromium = browser::set_up(layout)?;
    build(layout)?;
    let digest =
        output(native::cargo(layout).args(["run", "--locked", "--quiet", "-p", "eval-core", "--example", "digest"]))?;
    eprintln!("native digest: {digest}");
    // With the same packages as the tests, which have built it by then.
    run(native::cargo(layout).args(["build", "--locked", "--workspace", "--bin", "langptune"]))?;
    let program = format!("langptune{}", std::env::consts::EXE_SUFFIX);
    run(command("node")
        .args(["--test", "--test-reporter=spec"])
        .current_dir(layout.root.join("tests/browser"))
        .env("LANGPTUNE_SITE", &layout.site)
        .env("LANGPTUNE_CHROMIUM", chromium)
        .env("LANGPTUNE_NATIVE_DIGEST", digest)
        .env("LANGPTUNE_PROGRAM", layout.native.join("debug").join(program)))
}

/// Copies the files of a folder without sub-folders.
fn copy_files(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    for entry in fs::read_dir(from).with_context(|| format!("cannot read {}", from.display()))? {
        let path = entry.with_context(|| format!("cannot read {}", from.display()))?.path();
        let Some(name) = path.file_name().filter(|_| path.is_file()) else {
            continue;
        };
        fs::copy(&path, to.join(name)).with_context(|| format!("cannot copy {}", path.display()))?;
    }
    Ok(())
}
