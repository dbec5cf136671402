//! Which adapters there are, and opening one.

use std::fmt;
use std::pin::pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use burn::tensor::wgpu::{WgpuBackend, wgpu};
use burn::tensor::{Device, DeviceKind};

use crate::ModelError;

/// What an adapter is, the ones to be preferred first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with memory of its own.
    Discrete,
    /// A GPU that shares the processor's memory.
    Integrated,
    /// A GPU of a virtual machine.
    Virtual,
    /// A GPU that does not say.
    Other,
    /// The processor, in the guise of a GPU.
    Software,
}

impl AdapterKind {
    fn of(kind: wgpu::DeviceType) -> Self {
        match kind {
            wgpu::DeviceType::DiscreteGpu => Self::Discrete,
            wgpu::DeviceType::IntegratedGpu => Self::Integrated,
            wgpu::DeviceType::VirtualGpu => Self::Virtual,
            wgpu::DeviceType::Cpu => Self::Software,
            wgpu::DeviceType::Other => Self::Other,
        }
    }

    /// burn's name of the adapter that is the `number`th of this kind.
    fn selector(self, number: usize) -> DeviceKind {
        match self {
            Self::Discrete => DeviceKind::DiscreteGpu(number),
            Self::Integrated => DeviceKind::IntegratedGpu(number),
            Self::Virtual => DeviceKind::VirtualGpu(number),
            // burn has no name for a GPU that does not say what it is, but takes it where there is no better one.
            Self::Other => DeviceKind::DefaultDevice,
            Self::Software => DeviceKind::Cpu,
        }
    }
}

impl fmt::Display for AdapterKind {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Discrete => "discrete GPU",
            Self::Integrated => "integrated GPU",
            Self::Virtual => "virtual GPU",
            Self::Other => "GPU",
            Self::Software => "software",
        })
    }
}

/// An adapter of this machine.
#[derive(Debug, Clone)]
pub struct Adapter {
    /// Its name, as its driver says.
    pub name: String,
    /// What it is.
    pub kind: AdapterKind,
    /// The interface that reaches it, such as Vulkan.
    pub api: &'static str,
    backend: WgpuBackend,
    selector: DeviceKind,
}

impl fmt::Display for Adapter {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{} ({}, {})", self.name, self.api, self.kind)
    }
}

/// The interfaces in the order in which they are tried.
const APIS: [(wgpu::Backend, WgpuBackend, &str); 4] = [
    (wgpu::Backend::Vulkan, WgpuBackend::Vulkan, "Vulkan"),
    (wgpu::Backend::Metal, WgpuBackend::Metal, "Metal"),
    (wgpu::Backend::Dx12, WgpuBackend::Dx12, "DirectX 12"),
    (wgpu::Backend::Gl, WgpuBackend::Gl, "OpenGL"),
];

/// An adapter that this process computes on.
struct Opened {
    number: usize,
    adapter: Adapter,
    device: Device,
    largest_buffer: u64,
}

/// What is open. Locked while adapters are looked for too: Vulkan's loader does not bear that on several threads.
static OPENED: Mutex<Vec<Opened>> = Mutex::new(Vec::new());

fn opened() -> MutexGuard<'static, Vec<Opened>> {
    OPENED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// This machine's adapters, in the order in which `wgpu:N` counts them: those of the first interface that has a GPU, else of the
/// first that has anything, GPUs with memory of their own first.
pub fn adapters() -> Vec<Adapter> {
    let _one_at_a_time = opened();
    find_adapters()
}

/// How many of [`adapters`] are GPUs.
pub fn gpus() -> usize {
    let adapters = adapters();
    let gpus = adapters.iter().filter(|adapter| adapter.kind != AdapterKind::Software);
    gpus.count()
}

fn find_adapters() -> Vec<Adapter> {
    let mut software = Vec::new();
    for api in APIS {
        let found = adapters_of(api);
        if found
            .first()
            .is_some_and(|adapter| adapter.kind != AdapterKind::Software)
        {
            return found;
        }
        if software.is_empty() {
            software = found;
        }
    }
    software
}

fn adapters_of((api, backend, name): (wgpu::Backend, WgpuBackend, &'static str)) -> Vec<Adapter> {
    if !wgpu::Instance::enabled_backend_features().contains(api.into()) {
        return Vec::new();
    }
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: api.into(),
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<Adapter> = Vec::new();
    for adapter in wait_for(instance.enumerate_adapters(api.into())) {
        let info = adapter.get_info();
        let kind = AdapterKind::of(info.device_type);
        let before = found.iter().filter(|adapter| adapter.kind == kind).count();
        // Of adapters that burn has one name for, the first is reached alone.
        if before > 0 && matches!(kind, AdapterKind::Software | AdapterKind::Other) {
            continue;
        }
        found.push(Adapter {
            name: info.name,
            kind,
            api: name,
            backend,
            selector: kind.selector(before),
        });
    }
    found.sort_by_key(|adapter| adapter.kind);
    found
}

/// The result of a future that nothing but this thread drives: natively wgpu's are ready when they are made.
fn wait_for<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        match future.as_mut().poll(&mut context) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::yield_now(),
        }
    }
}

/// Opens the adapter with this number among [`adapters`]; the same device for all in this process that ask for it.
///
/// # Errors
/// When there is no such adapter, or it cannot be opened.
pub fn open(number: usize) -> Result<(Device, Adapter), ModelError> {
    let mut opened = opened();
    if let Some(known) = opened.iter().find(|known| known.number == number) {
        return Ok((known.device.clone(), known.adapter.clone()));
    }
    let adapters = find_adapters();
    let Some(adapter) = adapters.get(number) else {
        return Err(ModelError::Gpu {
            what: format!("device wgpu:{number}"),
            message: missing(&adapters),
        });
    };
    let options = Device::wgpu_options()
        .device_kind(adapter.selector.clone())
        .graphics_api(adapter.backend);
    let (device, setup) = options.init_with_setup().map_err(|error| ModelError::Gpu {
        what: format!("device wgpu:{number}: {adapter} cannot be opened"),
        message: error.to_string(),
    })?;
    let limits = setup.device.limits();
    opened.push(Opened {
        number,
        adapter: adapter.clone(),
        device: device.clone(),
        largest_buffer: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
    });
    Ok((device, adapter.clone()))
}

fn missing(adapters: &[Adapter]) -> String {
    if adapters.is_empty() {
        let needed = match std::env::consts::OS {
            "macos" => "no GPU with Metal was found",
            "windows" => "no GPU with Vulkan or DirectX 12 was found: install its driver",
            _ => {
                "no Vulkan adapter was found: install the GPU's driver and Vulkan's loader (Debian's mesa-vulkan-drivers and \
                 libvulkan1 serve AMD's and Intel's GPUs; NVIDIA's driver brings its own part)"
            }
        };
        return format!("{needed}, or compute with --device cpu");
    }
    let names: Vec<String> = adapters.iter().map(Adapter::to_string).collect();
    format!(
        "this machine has {} adapters, counted from 0: {}",
        names.len(),
        names.join(", ")
    )
}

/// Most bytes of one tensor on `device`; `None` where it was not opened here.
pub(crate) fn largest_buffer(device: &Device) -> Option<u64> {
    let opened = opened();
    let known = opened.iter().find(|known| known.device == *device)?;
    Some(known.largest_buffer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_adapter_is_named_with_what_there_is() {
        assert!(missing(&[]).contains("--device cpu"));
        let adapter = Adapter {
            name: "Radeon".to_owned(),
            kind: AdapterKind::Discrete,
            api: "Vulkan",
            backend: WgpuBackend::Vulkan,
            selector: DeviceKind::DiscreteGpu(0),
        };
        let text = missing(&[adapter]);
        assert!(
            text.contains("Radeon (Vulkan, discrete GPU)") && text.contains("counted from 0"),
            "{text}"
        );
    }
}
