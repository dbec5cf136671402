//! Where a process computes, and how processes and their GPUs are joined.

use crate::TrainError;
use crate::config::{Collectives, Device, Precision};
#[cfg(feature = "engine")]
use crate::dist::Nccl;
use crate::dist::{Communicator, Tcp};

/// How processes share what they keep, and tell each other. It changes no result, but for what rounding to bf16 changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sharing {
    /// Whether each process keeps the optimizer's moments of a part of the parameters alone (ZeRO-2); default true.
    pub shard_optimizer: bool,
    /// What carries gradients; default `auto`.
    pub collectives: Collectives,
    /// What gradients travel in over NCCL; default `f32`.
    pub gradient_precision: Precision,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            shard_optimizer: true,
            collectives: Collectives::Auto,
            gradient_precision: Precision::F32,
        }
    }
}

/// Lets the GPUs of joined processes talk to each other, where that is asked for.
///
/// # Errors
/// When NCCL or a GPU is missing, here or in another process.
pub fn join_devices(tcp: Tcp, device: Device, sharing: Sharing) -> Result<Box<dyn Communicator>, TrainError> {
    let on_gpu = matches!(device, Device::Cuda(_));
    match sharing.collectives {
        Collectives::Tcp => Ok(Box::new(tcp)),
        Collectives::Auto if !on_gpu => Ok(Box::new(tcp)),
        Collectives::Nccl if !on_gpu => refuse(
            tcp,
            &format!("--collectives nccl: NCCL joins GPUs, but --device is {device}; give --device cuda"),
        ),
        Collectives::Auto | Collectives::Nccl => join_gpus(tcp, device, sharing.gradient_precision),
    }
}

/// Tells the others why this process does not come along.
fn refuse(mut tcp: Tcp, message: &str) -> Result<Box<dyn Communicator>, TrainError> {
    tcp.abort(message);
    Err(TrainError::Mismatch(message.to_owned()))
}

#[cfg(feature = "engine")]
fn join_gpus(tcp: Tcp, device: Device, wire: Precision) -> Result<Box<dyn Communicator>, TrainError> {
    use models::cuda::Element;
    let gpu = match gpu(own_device(device, tcp.local_rank())) {
        Ok(gpu) => gpu,
        Err(error) => return refuse(tcp, &error.to_string()),
    };
    let wire = match wire {
        Precision::F32 => Element::F32,
        Precision::Bf16 => Element::Bf16,
    };
    Ok(Box::new(Nccl::join(tcp, &gpu, wire)?))
}

#[cfg(not(feature = "engine"))]
fn join_gpus(tcp: Tcp, device: Device, _: Precision) -> Result<Box<dyn Communicator>, TrainError> {
    refuse(
        tcp,
        &format!(
            "device {device}: this langptune was built without CUDA; build it with --features engine (docs/gpu.md)"
        ),
    )
}

/// The device of that name, if this build and machine have it.
///
/// # Errors
/// When they do not.
pub fn device(device: Device) -> Result<models::Device, TrainError> {
    match device {
        Device::Cpu => Ok(models::Device::flex()),
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => Ok(models::Device::cuda(usize::from(number.unwrap_or(0)))),
        // What the engine does not do yet is done on the processor.
        #[cfg(all(feature = "engine", not(feature = "cuda")))]
        Device::Cuda(_) => Ok(models::Device::flex()),
        #[cfg(not(any(feature = "engine", feature = "cuda")))]
        Device::Cuda(_) => Err(TrainError::Mismatch(
            "device cuda: this langptune was built without CUDA; build it with --features engine (docs/gpu.md)"
                .to_owned(),
        )),
        #[cfg(feature = "wgpu")]
        Device::Wgpu(_) => Ok(adapter(device)?.0),
        #[cfg(not(feature = "wgpu"))]
        Device::Wgpu(_) => Err(TrainError::Mismatch(format!(
            "device {device}: this langptune was built without wgpu; build it with --features wgpu (docs/gpu.md)"
        ))),
    }
}

/// The adapter of a device, opened once for all in this process that ask for it, and named when it is opened.
///
/// # Errors
/// When there is no such adapter.
#[cfg(feature = "wgpu")]
pub fn adapter(device: Device) -> Result<(models::Device, models::wgpu::Adapter), TrainError> {
    use models::wgpu::AdapterKind;
    static NAMED: std::sync::Once = std::sync::Once::new();
    let opened = models::wgpu::open(device.ordinal(0, 0))?;
    NAMED.call_once(|| {
        let adapter = &opened.1;
        eprintln!("computing on {adapter}");
        if adapter.kind == AdapterKind::Software {
            eprintln!("that is the processor in the guise of a GPU: --device cpu is faster");
        }
    });
    Ok(opened)
}

/// The GPU of a device, shared by all in this process that ask for it.
///
/// # Errors
/// When there is no such GPU.
#[cfg(feature = "engine")]
pub fn gpu(device: Device) -> Result<models::cuda::Gpu, TrainError> {
    let ordinal = device.ordinal(0, 0);
    Ok(models::cuda::Gpu::shared(ordinal)?)
}

/// The device of the process with this number on its host: of GPUs that are not told apart, its own.
pub(crate) fn own_device(device: Device, local_rank: usize) -> Device {
    let (visible, of): (usize, fn(Option<u16>) -> Device) = match device {
        Device::Cuda(None) => (visible_gpus(), Device::Cuda),
        Device::Wgpu(None) => (visible_adapters(), Device::Wgpu),
        _ => return device,
    };
    u16::try_from(device.ordinal(local_rank, visible)).map_or(device, |number| of(Some(number)))
}

fn visible_gpus() -> usize {
    #[cfg(feature = "engine")]
    return models::cuda::Gpu::count();
    #[cfg(not(feature = "engine"))]
    0
}

/// GPUs among the adapters: where there are others, the processor in the guise of one is nobody's share.
fn visible_adapters() -> usize {
    #[cfg(feature = "wgpu")]
    return models::wgpu::gpus().max(1);
    #[cfg(not(feature = "wgpu"))]
    0
}

/// What a GPU computes in.
#[cfg(feature = "engine")]
pub(crate) fn element(precision: Precision) -> models::cuda::Element {
    match precision {
        Precision::Bf16 => models::cuda::Element::Bf16,
        Precision::F32 => models::cuda::Element::F32,
    }
}
