//! safetensors files in and out.

mod read;
mod write;

pub use read::{CheckpointReader, Dtype};
pub(crate) use write::write_parameters;
pub use write::{NamedTensor, replace_file, write_atomically, write_safetensors};
