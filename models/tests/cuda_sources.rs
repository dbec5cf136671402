//! The CUDA sources compile for every architecture that they are written for: with NVRTC alone, without a GPU.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::path::{Path, PathBuf};

use libloading::Library;

const ARCHITECTURES: [&str; 4] = ["sm_80", "sm_89", "sm_90a", "sm_100a"];

type Program = *mut c_void;
type Create = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;

/// NVRTC, and NVIDIA's library beside it that it loads by name, which stays open so that it is found.
struct Compiler {
    library: Library,
    _builtins: Vec<Library>,
}

impl Compiler {
    /// The library that `LANGPTUNE_NVRTC` names, or the system's.
    fn find() -> Option<Self> {
        if let Some(path) = std::env::var_os("LANGPTUNE_NVRTC").filter(|value| !value.is_empty()) {
            return Some(Self::open(Path::new(&path)).unwrap());
        }
        ["libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"]
            .iter()
            .find_map(|name| Self::open(Path::new(name)).ok())
    }

    fn open(path: &Path) -> Result<Self, libloading::Error> {
        let beside = path.parent().and_then(|folder| folder.read_dir().ok());
        let builtins = beside.into_iter().flatten().filter_map(|entry| {
            let path = entry.ok()?.path();
            let name = path.file_name()?.to_str()?;
            // SAFETY: NVIDIA's libraries have no initialisers that could do harm.
            name.starts_with("libnvrtc-builtins.so.")
                .then(|| unsafe { Library::new(&path) }.ok())?
        });
        let builtins = builtins.collect();
        // SAFETY: as above.
        let library = unsafe { Library::new(path) }?;
        Ok(Self {
            library,
            _builtins: builtins,
        })
    }

    /// The log of a compilation that failed.
    fn compile(&self, name: &str, source: &str, architecture: &str) -> Result<(), String> {
        let (source, file) = (CString::new(source).unwrap(), CString::new(name).unwrap());
        let options = [format!("--gpu-architecture={architecture}"), "--std=c++17".into()]
            .map(|text| CString::new(text).unwrap());
        let options = [options[0].as_ptr(), options[1].as_ptr()];
        let mut program: Program = std::ptr::null_mut();
        // SAFETY: the functions have these signatures in every release of NVRTC; all pointers outlive the calls, and the log
        // has the length that NVRTC asked for.
        unsafe {
            let create = self.library.get::<Create>(b"nvrtcCreateProgram").unwrap();
            let compile = self
                .library
                .get::<unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int>(b"nvrtcCompileProgram")
                .unwrap();
            let log_size = self
                .library
                .get::<unsafe extern "C" fn(Program, *mut usize) -> c_int>(b"nvrtcGetProgramLogSize")
                .unwrap();
            let log = self
                .library
                .get::<unsafe extern "C" fn(Program, *mut c_char) -> c_int>(b"nvrtcGetProgramLog")
                .unwrap();
            let destroy = self
                .library
                .get::<unsafe extern "C" fn(*mut Program) -> c_int>(b"nvrtcDestroyProgram")
                .unwrap();
            let none = std::ptr::null();
            assert_eq!(
                create(&mut program, source.as_ptr(), file.as_ptr(), 0, none, none),
                0,
                "cannot create a program"
            );
            let code = compile(program, options.len() as c_int, options.as_ptr());
            let mut size = 0;
            log_size(program, &mut size);
            let mut text = vec![0; size.max(1)];
            log(program, text.as_mut_ptr());
            destroy(&mut program);
            if code == 0 {
                return Ok(());
            }
            Err(format!(
                "{name} for {architecture}: NVRTC answered {code}\n{}",
                CStr::from_ptr(text.as_ptr()).to_string_lossy()
            ))
        }
    }

    /// Releases before 12.8 do not know sm_100a.
    fn knows(&self, architecture: &str) -> bool {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: the function has this signature in every release of NVRTC.
        unsafe {
            let version = self
                .library
                .get::<unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int>(b"nvrtcVersion")
                .unwrap();
            version(&mut major, &mut minor);
        }
        architecture != "sm_100a" || (major, minor) >= (12, 8)
    }
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ops/cuda")
}

/// Compiles a source after the pieces that stand before it.
fn compiles(before: &[&str], name: &str, architectures: &[&str]) {
    let Some(compiler) = Compiler::find() else {
        println!("skipped: no libnvrtc here; `cargo xtask test` downloads one");
        return;
    };
    let read = |name: &str| std::fs::read_to_string(folder().join(name)).unwrap();
    let source: String = before.iter().chain(&[name]).map(|name| read(name)).collect();
    for &architecture in architectures {
        if compiler.knows(architecture) {
            compiler.compile(name, &source, architecture).unwrap();
        } else {
            println!("skipped: this libnvrtc is too old for {architecture}");
        }
    }
}

#[test]
fn attention_compiles() {
    compiles(&["prelude.cuh"], "attention.cu", &ARCHITECTURES);
}

/// wgmma is there on Hopper alone, under the name with an `a`.
#[test]
fn sources_for_hopper_compile() {
    for name in ["attention_hopper.cu", "products_hopper.cu"] {
        compiles(&["prelude.cuh", "wgmma.cuh"], name, &["sm_90a"]);
    }
    for name in ["attention_hopper_causal.cu", "attention_hopper_causal_keys.cu"] {
        compiles(&["prelude.cuh", "wgmma.cuh", "packed_hopper.cuh"], name, &["sm_90a"]);
    }
}

/// Kernels of the engine, for either element.
fn engine_compiles(name: &str) {
    let Some(compiler) = Compiler::find() else {
        println!("skipped: no libnvrtc here; `cargo xtask test` downloads one");
        return;
    };
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/kernels");
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    let (prelude, text) = (read("prelude.cuh"), read(name));
    for element in ["float", "bf16"] {
        let source = format!("{prelude}\ntypedef {element} T;\n{text}");
        for architecture in ARCHITECTURES.into_iter().filter(|name| compiler.knows(name)) {
            compiler.compile(name, &source, architecture).unwrap();
        }
    }
}

#[test]
fn the_engines_kernels_compile() {
    for name in [
        "rows.cu",
        "adam.cu",
        "attention.cu",
        "scores.cu",
        "decode.cu",
        "encoder.cu",
        "ranks.cu",
        "units.cu",
        "contrast.cu",
    ] {
        engine_compiles(name);
    }
}

#[test]
fn attention_of_a_step_compiles() {
    let Some(compiler) = Compiler::find() else {
        println!("skipped: no libnvrtc here; `cargo xtask test` downloads one");
        return;
    };
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/kernels");
    let source = std::fs::read_to_string(folder().join("prelude.cuh")).unwrap()
        + &std::fs::read_to_string(kernels.join("attend_token.cu")).unwrap();
    for architecture in ARCHITECTURES.into_iter().filter(|name| compiler.knows(name)) {
        compiler.compile("attend_token.cu", &source, architecture).unwrap();
    }
}

#[test]
fn every_source_is_compiled_by_a_test() {
    let mut names: Vec<String> = folder()
        .read_dir()
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".cu"))
        .collect();
    names.sort();
    let expected = [
        "attention.cu",
        "attention_hopper.cu",
        "attention_hopper_causal.cu",
        "attention_hopper_causal_keys.cu",
        "products_hopper.cu",
    ];
    assert_eq!(names, expected);
}
