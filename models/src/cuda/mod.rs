//! Language models and encoders on one NVIDIA GPU, on buffers of our own: products by cuBLASLt, all else by kernels that NVRTC compiles for the
//! card when they are first used; on Hopper products that end in something too.

mod adam;
mod attend;
mod batch;
mod catalogue;
mod check;
mod decoder;
mod encoder;
mod fused;
mod gemm;
mod gpu;
mod kernels;
mod language_model;
mod launch;
mod layers;
mod nccl;
mod optimize;
mod parameters;
mod sample;
mod staging;
mod timing;

pub use catalogue::{Counts, CudaCatalogue, Wanted};
pub use check::{Check, Part, check, check_shared};
pub use decoder::{CudaDecoder, CudaDecoderOptions, CudaPass, CudaTrunk};
pub use encoder::{CudaEncoder, CudaEncoderOptions};
pub use gpu::{Element, Gpu};
pub use nccl::{Failed, Nccl, UNIQUE_ID_BYTES, nccl_unique_id, nccl_version};
pub use timing::{Shapes, Timing, embedder_plan, limits, time, time_embedder, time_ranking};
