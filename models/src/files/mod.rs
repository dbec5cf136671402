//! safetensors files in and out.

mod read;
mod write;

pub use read::{CheckpointReader, Dtype};
pub use write::{NamedTensor, write_atomically, write_safetensors};
