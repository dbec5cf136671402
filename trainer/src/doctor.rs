//! What this machine can do for LangPTune, and what is missing for the rest.

use std::fs;
use std::path::{Path, PathBuf};

use eval_core::selfcheck;
use serde::Serialize;

use crate::hub::Hub;

/// The examination of a machine.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Examination {
    /// This program.
    pub program: Program,
    /// The processor.
    pub cpu: Cpu,
    /// Main memory; none where the system does not tell.
    pub memory: Option<Memory>,
    /// Whether metrics come out as they should.
    pub self_check: SelfCheck,
    /// Where models could compute, as `--device` names it.
    pub devices: Vec<DeviceState>,
    /// Where downloaded models live.
    pub hub: HubState,
    /// What is missing for something, and what to do about it.
    pub advice: Vec<String>,
}

/// This program.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Program {
    /// The package's version.
    pub version: &'static str,
    /// Operating system and architecture, e.g. `linux x86_64`.
    pub platform: String,
    /// Whether it was built with optimisation.
    pub optimised: bool,
    /// Cargo features that are built in.
    pub features: Vec<&'static str>,
}

/// The processor.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cpu {
    /// Threads that this process may use at once.
    pub threads: usize,
    /// Vector instructions that numeric code can use.
    pub simd: Vec<&'static str>,
}

/// Main memory, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Memory {
    /// Installed, or what the container may use.
    pub total_bytes: u64,
    /// Free or reclaimable now.
    pub available_bytes: u64,
}

/// Whether scores, ranks and metrics come out on this machine as on every other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SelfCheck {
    /// The digest of what was computed, in hexadecimal; none if it failed.
    pub digest: Option<String>,
    /// Whether it is the expected one.
    pub passed: bool,
}

/// Whether models can compute somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DeviceState {
    /// As `--device` names it.
    pub device: &'static str,
    /// Whether it can be used now.
    pub usable: bool,
    /// What was found.
    pub detail: String,
}

/// Where downloaded models live.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HubState {
    /// The cache folder.
    pub cache: PathBuf,
    /// Models in it.
    pub models: Vec<String>,
    /// Whether a token for gated models is set (its value is never shown).
    pub token: bool,
    /// Whether `HF_HUB_OFFLINE` forbids downloads.
    pub offline: bool,
}

/// Looks at the machine. Nothing is started, downloaded or changed.
pub fn examine() -> Result<Examination, crate::hub::HubError> {
    let driver = NvidiaDriver::find();
    let hub = hub_state(&Hub::from_env()?);
    let optimised = !cfg!(debug_assertions);
    // `cuda` brings `engine` with it.
    let cuda_built = cfg!(feature = "engine");
    let adapters = adapters();
    let mut devices = devices(cuda_built, driver.as_ref());
    devices.push(wgpu(adapters.as_deref()));
    let self_check = self_check();
    let mut advice = advice(optimised, cuda_built, driver.as_ref(), &hub);
    if adapters.is_some_and(|adapters| adapters.is_empty()) {
        advice.push(
            "No adapter for --device wgpu is here: install the GPU's Vulkan driver and Vulkan's loader (Debian: mesa-vulkan-drivers, libvulkan1)."
                .to_owned(),
        );
    }
    if !self_check.passed {
        advice.push(
            "Metrics come out differently here than elsewhere: do not trust them, and report this machine.".to_owned(),
        );
    }
    Ok(Examination {
        program: Program {
            version: env!("CARGO_PKG_VERSION"),
            platform: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            optimised,
            features: features(),
        },
        cpu: Cpu {
            threads: std::thread::available_parallelism().map_or(1, usize::from),
            simd: simd(),
        },
        memory: memory(),
        self_check,
        devices,
        hub,
        advice,
    })
}

fn features() -> Vec<&'static str> {
    // `cuda` brings `engine` with it.
    let known = [
        ("cuda", cfg!(feature = "cuda")),
        ("engine", cfg!(feature = "engine") && !cfg!(feature = "cuda")),
        ("wgpu", cfg!(feature = "wgpu")),
    ];
    known
        .into_iter()
        .filter_map(|(name, built)| built.then_some(name))
        .collect()
}

fn self_check() -> SelfCheck {
    let digest = selfcheck::digest(0).ok();
    SelfCheck {
        digest: digest.map(|digest| format!("{digest:016x}")),
        passed: digest == Some(selfcheck::DIGEST_OF_SEED_0),
    }
}

#[cfg(target_arch = "x86_64")]
fn simd() -> Vec<&'static str> {
    let known = [
        ("sse4.2", std::is_x86_feature_detected!("sse4.2")),
        ("avx2", std::is_x86_feature_detected!("avx2")),
        ("fma", std::is_x86_feature_detected!("fma")),
        ("f16c", std::is_x86_feature_detected!("f16c")),
        ("avx512f", std::is_x86_feature_detected!("avx512f")),
        ("avx512bf16", std::is_x86_feature_detected!("avx512bf16")),
    ];
    known
        .into_iter()
        .filter_map(|(name, there)| there.then_some(name))
        .collect()
}

#[cfg(target_arch = "aarch64")]
fn simd() -> Vec<&'static str> {
    vec!["neon"]
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
fn simd() -> Vec<&'static str> {
    Vec::new()
}

/// Linux only; a container's limit counts where it is lower.
fn memory() -> Option<Memory> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let limit = fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let used = fs::read_to_string("/sys/fs/cgroup/memory.current").ok();
    let number = |text: Option<String>| text.and_then(|text| text.trim().parse::<u64>().ok());
    memory_from(&text, number(limit), number(used))
}

fn memory_from(meminfo: &str, limit: Option<u64>, used: Option<u64>) -> Option<Memory> {
    let kilobytes = |name: &str| {
        let line = meminfo
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()
    };
    let (mut total, mut available) = (kilobytes("MemTotal")? * 1024, kilobytes("MemAvailable")? * 1024);
    if let Some(limit) = limit {
        total = total.min(limit);
        available = available.min(limit.saturating_sub(used.unwrap_or(0)));
    }
    Some(Memory {
        total_bytes: total,
        available_bytes: available,
    })
}

/// What can be seen of an NVIDIA driver without loading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct NvidiaDriver {
    /// Whether `libcuda.so.1` can be loaded by name.
    library: bool,
    /// The GPUs' models.
    gpus: Vec<String>,
}

impl NvidiaDriver {
    fn find() -> Option<Self> {
        let library = in_loader_cache(Path::new("/etc/ld.so.cache")) || in_library_folders();
        let gpus = gpu_models(Path::new("/proc/driver/nvidia/gpus"));
        (library || !gpus.is_empty()).then_some(Self { library, gpus })
    }
}

/// The loader's cache is binary, with the libraries' names as plain text in it.
fn in_loader_cache(path: &Path) -> bool {
    const NAME: &[u8] = b"libcuda.so.1\0";
    fs::read(path).is_ok_and(|bytes| bytes.windows(NAME.len()).any(|window| window == NAME))
}

fn in_library_folders() -> bool {
    let named = std::env::var_os("LD_LIBRARY_PATH").unwrap_or_default();
    let usual = [
        "/usr/lib/x86_64-linux-gnu",
        "/usr/lib/aarch64-linux-gnu",
        "/usr/lib64",
        "/usr/lib/wsl/lib",
    ];
    let mut folders = std::env::split_paths(&named).chain(usual.map(PathBuf::from));
    folders.any(|folder| folder.join("libcuda.so.1").exists())
}

fn gpu_models(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut models: Vec<String> = entries
        .filter_map(|entry| fs::read_to_string(entry.path().join("information")).ok())
        .filter_map(|text| {
            text.lines()
                .find_map(|line| line.strip_prefix("Model:").map(|model| model.trim().to_owned()))
        })
        .collect();
    models.sort();
    models
}

fn devices(cuda_built: bool, driver: Option<&NvidiaDriver>) -> Vec<DeviceState> {
    let found = match driver {
        Some(driver) if driver.gpus.is_empty() => "driver library found".to_owned(),
        Some(driver) if driver.library => driver.gpus.join(", "),
        Some(driver) => format!("{} without the driver library libcuda.so.1", driver.gpus.join(", ")),
        None => "no NVIDIA driver".to_owned(),
    };
    let detail = if cuda_built {
        found
    } else {
        format!("not in this build; {found}")
    };
    let cuda = cuda_built && driver.is_some_and(|driver| driver.library);
    vec![
        DeviceState {
            device: "cpu",
            usable: true,
            detail: "burn flex".to_owned(),
        },
        DeviceState {
            device: "cuda",
            usable: cuda,
            detail,
        },
    ]
}

/// What `--device wgpu` sees, in the order in which `wgpu:N` counts; none where the build cannot look.
fn adapters() -> Option<Vec<String>> {
    #[cfg(feature = "wgpu")]
    return Some(models::wgpu::adapters().iter().map(ToString::to_string).collect());
    #[cfg(not(feature = "wgpu"))]
    None
}

fn wgpu(adapters: Option<&[String]>) -> DeviceState {
    let detail = match adapters {
        None => "not in this build".to_owned(),
        Some([]) => "no adapter".to_owned(),
        Some(adapters) => {
            let numbered = adapters
                .iter()
                .enumerate()
                .map(|(number, name)| format!("wgpu:{number} {name}"));
            numbered.collect::<Vec<_>>().join(", ")
        }
    };
    DeviceState {
        device: "wgpu",
        usable: adapters.is_some_and(|adapters| !adapters.is_empty()),
        detail,
    }
}

fn hub_state(hub: &Hub) -> HubState {
    let entries = fs::read_dir(&hub.cache).into_iter().flatten().flatten();
    let name = |folder: String| folder.strip_prefix("models--").map(|name| name.replacen("--", "/", 1));
    let mut models: Vec<String> = entries
        .filter_map(|entry| name(entry.file_name().to_string_lossy().into_owned()))
        .collect();
    models.sort();
    HubState {
        cache: hub.cache.clone(),
        models,
        token: hub.token.is_some(),
        offline: hub.offline,
    }
}

fn advice(optimised: bool, cuda_built: bool, driver: Option<&NvidiaDriver>, hub: &HubState) -> Vec<String> {
    let mut advice = Vec::new();
    if !optimised {
        advice.push("This is a debug build, many times slower than `cargo build --release`.".to_owned());
    }
    match driver {
        Some(_) if !cuda_built => {
            advice.push("An NVIDIA GPU is here, but not used: build with `cargo build --release --package trainer --features engine`.".to_owned());
        }
        Some(driver) if !driver.library => {
            advice.push("The GPU's driver library is missing: install NVIDIA's driver, or start the container with GPUs.".to_owned());
        }
        Some(_) => {}
        None => advice.push(
            "Without an NVIDIA GPU, the published settings (gemma-2b-it and larger) are out of reach: train small models here."
                .to_owned(),
        ),
    }
    if !hub.token {
        advice.push(
            "Gated models (gemma-2b-it, Meta-Llama-3-8B-Instruct) need a token to download: accept their licence and set HF_TOKEN, or give a folder."
                .to_owned(),
        );
    }
    if hub.offline {
        advice.push("HF_HUB_OFFLINE is set: models must be folders, or whole in the cache.".to_owned());
    }
    advice
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MEMINFO: &str = "MemTotal:        8000000 kB\nMemFree:          100 kB\nMemAvailable:    4000000 kB\n";

    #[test]
    fn memory_is_what_the_system_says() {
        let memory = memory_from(MEMINFO, None, None).unwrap();
        assert_eq!(
            (memory.total_bytes, memory.available_bytes),
            (8_192_000_000, 4_096_000_000)
        );
        assert_eq!(memory_from("MemTotal: what", None, None), None);
    }

    #[test]
    fn a_containers_lower_limit_counts() {
        let memory = memory_from(MEMINFO, Some(1_000_000), Some(400_000)).unwrap();
        assert_eq!((memory.total_bytes, memory.available_bytes), (1_000_000, 600_000));
    }

    #[test]
    fn the_self_check_passes_here() {
        assert!(self_check().passed);
    }

    #[test]
    fn a_gpu_is_usable_only_with_driver_and_build() {
        let driver = |library| NvidiaDriver {
            library,
            gpus: vec!["H100".to_owned()],
        };
        let usable = |built, driver: Option<NvidiaDriver>| devices(built, driver.as_ref())[1].usable;
        assert!(usable(true, Some(driver(true))));
        assert!(!usable(false, Some(driver(true))));
        assert!(!usable(true, Some(driver(false))));
        assert!(!usable(true, None));
    }

    #[test]
    fn adapters_are_listed_as_the_flag_counts_them() {
        let names = ["Radeon (Vulkan, discrete GPU)", "llvmpipe (Vulkan, software)"].map(str::to_owned);
        let state = wgpu(Some(&names));
        assert_eq!(
            (state.usable, state.detail.as_str()),
            (
                true,
                "wgpu:0 Radeon (Vulkan, discrete GPU), wgpu:1 llvmpipe (Vulkan, software)"
            )
        );
        assert!(!wgpu(Some(&[])).usable && !wgpu(None).usable);
    }

    #[test]
    fn advice_names_what_to_do() {
        let hub = HubState {
            cache: PathBuf::new(),
            models: vec![],
            token: false,
            offline: true,
        };
        let driver = NvidiaDriver {
            library: true,
            gpus: vec!["H100".to_owned()],
        };
        let text = advice(true, false, Some(&driver), &hub).join("\n");
        for expected in ["--features engine", "HF_TOKEN", "HF_HUB_OFFLINE"] {
            assert!(text.contains(expected), "{text}");
        }
        let fine = HubState {
            token: true,
            offline: false,
            ..hub
        };
        assert!(advice(true, true, Some(&driver), &fine).is_empty());
    }

    #[test]
    fn the_library_is_found_in_the_loaders_cache() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("ld.so.cache");
        fs::write(&cache, b"glibc\0libcuda.so.12\0").unwrap();
        assert!(!in_loader_cache(&cache));
        fs::write(&cache, b"glibc\0libc.so.6\0libcuda.so.1\0/usr/lib/libcuda.so.1\0").unwrap();
        assert!(in_loader_cache(&cache));
    }

    #[test]
    fn gpus_are_named_by_their_driver_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("0000:01:00.0")).unwrap();
        fs::write(
            folder.path().join("0000:01:00.0/information"),
            "Model: \t\t NVIDIA H100 80GB HBM3\nIRQ: 1\n",
        )
        .unwrap();
        assert_eq!(gpu_models(folder.path()), ["NVIDIA H100 80GB HBM3"]);
        assert!(gpu_models(&folder.path().join("none")).is_empty());
    }

    #[test]
    fn cached_models_are_listed_by_their_hub_names() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("models--google--gemma-2b-it")).unwrap();
        fs::create_dir(folder.path().join("datasets--a--b")).unwrap();
        let hub = Hub {
            cache: folder.path().to_owned(),
            endpoint: None,
            token: Some("secret".into()),
            offline: false,
        };
        let state = hub_state(&hub);
        assert_eq!(
            (state.models.as_slice(), state.token),
            (["google/gemma-2b-it".to_owned()].as_slice(), true)
        );
        assert!(!serde_json::to_string(&state).unwrap().contains("secret"));
    }
}
