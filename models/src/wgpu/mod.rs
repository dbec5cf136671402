//! GPUs of any maker through Vulkan, Metal or DirectX 12: burn-wgpu runs the models' operations there, in f32.

mod adapters;
mod check;

pub(crate) use adapters::largest_buffer;
pub use adapters::{Adapter, AdapterKind, adapters, gpus, open};
pub use check::{Comparison, check};
