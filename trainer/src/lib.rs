//! LangPTune's trainer: raw reviews to a dataset, alternating training of a profile writer and an embedder, and evaluation.

pub mod cli;
pub mod config;
pub mod data;
pub mod doctor;
pub mod hub;
pub mod log;
pub mod progress;
