//! LangPTune's trainer: raw reviews to a dataset, alternating training of a profile writer and an embedder, and evaluation.

pub mod baselines;
pub mod bundle;
pub mod checkpoint;
pub mod cli;
pub mod config;
pub mod data;
pub mod demo;
pub mod dist;
pub mod doctor;
mod error;
pub mod evaluation;
pub mod hub;
pub mod interrupt;
pub mod log;
mod npy;
pub mod progress;
pub mod report;
pub mod reward;
pub mod rollout;
pub mod serve;
pub mod site;
pub mod train;

pub use error::TrainError;
