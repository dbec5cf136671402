//! Language models and text encoders in burn, read from and written to Hugging Face folders.
//!
//! Training sees two traits, [`LanguageModel`] and [`Encoder`]; [`Decoder`] (Gemma and Llama) and [`Bert`] implement them.

mod contrast;
#[cfg(feature = "engine")]
pub mod cuda;
mod decoder;
mod encoder;
mod error;
mod files;
mod folder;
mod host;
mod initial;
mod kept;
mod language_model;
mod ops;
mod optimizer;
mod packed;
mod plan;
mod random;
#[cfg(any(test, feature = "engine", feature = "wgpu"))]
mod reference;
mod rounding;
mod sample;
pub mod text;
mod trainable;
mod tuned;
mod weights;
#[cfg(feature = "wgpu")]
pub mod wgpu;

pub use burn::tensor::Device;
pub use contrast::{Contrastive, contrastive_loss};
pub use decoder::{Decoder, DecoderOptions, LoraConfig, LoraTarget, Merged, TrainedPart};
pub use encoder::{Bert, Contrasted, Encoder, EncoderOptions, Pooling, TrackedVectors};
pub use error::ModelError;
pub use files::{CheckpointReader, Dtype, NamedTensor, replace_file, write_atomically, write_safetensors};
pub use host::products;
pub use initial::{write_initial_decoder, write_initial_encoder};
pub use kept::Kept;
pub use language_model::{LanguageModel, Policy, Scores, TrackedScores, Trunk};
pub use optimizer::{AdamConfig, Moments};
pub use packed::PackedBatch;
pub use plan::{Activation, DecoderPlan, EncoderPlan, Rope, RopeScaling};
pub use random::philox;
pub use sample::{Draws, Prompt, Response};
pub use trainable::{
    Gradient, Pass, Trainable, gradient_state, moment_tensors, optimizer_state, restore_gradients, restore_optimizer,
    restore_parameters,
};
pub use weights::{ParameterId, ParameterSpec, Weights, tensor_to_vec};
