//! Language models and text encoders in burn, read from and written to Hugging Face folders.
//!
//! Training sees two traits, [`LanguageModel`] and [`Encoder`]; [`Decoder`] (Gemma and Llama) and [`Bert`] implement them.

mod decoder;
mod encoder;
mod error;
mod files;
mod folder;
mod host;
mod initial;
mod language_model;
mod ops;
mod optimizer;
mod packed;
mod plan;
mod random;
mod sample;
pub mod text;
mod trainable;
mod weights;

pub use burn::tensor::Device;
pub use decoder::{Decoder, DecoderOptions, LoraConfig, LoraTarget, Merged, TrainedPart};
pub use encoder::{Bert, Encoder, EncoderOptions, Pooling};
pub use error::ModelError;
pub use files::{CheckpointReader, Dtype, NamedTensor, replace_file, write_atomically, write_safetensors};
pub use initial::{write_initial_decoder, write_initial_encoder};
pub use language_model::{LanguageModel, Policy, Scores, TrackedScores, Trunk};
pub use optimizer::{Adam, AdamConfig, Moments};
pub use packed::PackedBatch;
pub use plan::{Activation, DecoderPlan, EncoderPlan, Rope, RopeScaling};
pub use random::philox;
pub use sample::{Draws, Prompt, Response};
pub use trainable::{GradientSum, Trainable, gradient_state, restore_gradients, restore_parameters};
pub use weights::{ParameterId, ParameterSpec, Weights, matrix, tensor_to_vec};
