//! Reads what the scripts of `tests/reference/` recorded.
#![allow(dead_code, clippy::unwrap_used)]

use std::path::PathBuf;

use models::{CheckpointReader, Decoder, DecoderOptions, Device, PackedBatch, TrainedPart};
use serde_json::Value;

pub fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../tests/fixtures")
        .join(path)
}

pub fn json(path: &str) -> Value {
    serde_json::from_str(&std::fs::read_to_string(fixture(path)).unwrap()).unwrap()
}

pub fn tensors(path: &str) -> CheckpointReader {
    CheckpointReader::open_file(&fixture(path)).unwrap()
}

pub fn tensor(reader: &CheckpointReader, name: &str) -> Vec<f32> {
    let shape = reader.shape(name).unwrap_or_else(|| panic!("{name} is not recorded"));
    reader.read(name, &shape).unwrap().0
}

pub fn tokens(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|token| token.as_u64().unwrap() as u32)
        .collect()
}

pub fn numbers(value: &Value) -> Vec<f64> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|number| number.as_f64().unwrap())
        .collect()
}

pub fn decoder(name: &str, part: TrainedPart) -> Decoder {
    let options = DecoderOptions {
        device: Device::flex(),
        part,
        seed: 1,
    };
    Decoder::load(&fixture(&format!("models/{name}")), &options).unwrap()
}

/// The batch whose inputs are all of `sequence`.
pub fn whole(sequence: &[u32]) -> PackedBatch {
    PackedBatch::new([(sequence, &[][..])])
}

/// The largest difference.
pub fn apart(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found
        .iter()
        .zip(expected)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

/// |found − expected| / |expected| in the 2-norm.
pub fn relative(found: &[f32], expected: &[f32]) -> f64 {
    assert_eq!(found.len(), expected.len());
    let square = |x: f64| x * x;
    let difference: f64 = found
        .iter()
        .zip(expected)
        .map(|(&a, &b)| square(f64::from(a) - f64::from(b)))
        .sum();
    let size: f64 = expected.iter().map(|&b| square(f64::from(b))).sum();
    (difference / size.max(1e-300)).sqrt()
}
