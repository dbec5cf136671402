//! Language models on one NVIDIA GPU, on buffers of our own: products by cuBLASLt, all else by kernels that NVRTC compiles for the
//! card when they are first used.

mod attend;
mod batch;
mod check;
mod check_shared;
mod decoder;
mod gemm;
mod gpu;
mod kernels;
mod language_model;
mod layers;
mod nccl;
mod optimize;
mod sample;
mod timing;

pub use check::{Check, check};
pub use check_shared::check_shared;
pub use decoder::{CudaDecoder, CudaDecoderOptions, CudaPass, CudaTrunk};
pub use gpu::{Element, Gpu};
pub use nccl::{Failed, Nccl, UNIQUE_ID_BYTES, nccl_unique_id, nccl_version};
pub use timing::{Shapes, Timing, limits, time};
