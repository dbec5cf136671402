//! Writing safetensors: the same bytes for the same parameters, under a temporary name until whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::Dtype;
use crate::ModelError;

/// A parameter to be written.
#[derive(Debug, Clone)]
pub struct NamedTensor {
    /// Its name in the file.
    pub name: String,
    /// Its shape in the file.
    pub shape: Vec<usize>,
    /// Row-major values.
    pub data: Vec<f32>,
}

/// Writes `tensors`, sorted by name, in `dtype`. Rounds to nearest even where `dtype` is narrower than `f32`.
///
/// # Errors
/// When the file cannot be written; then nothing stays behind under `path`.
pub fn write_safetensors(path: &Path, mut tensors: Vec<NamedTensor>, dtype: Dtype) -> Result<(), ModelError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let header = header(&tensors, dtype);
    write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for tensor in &tensors {
            write_values(out, &tensor.data, dtype)?;
        }
        Ok(())
    })
}

/// The JSON header, padded to eight bytes as readers that map files expect.
fn header(tensors: &[NamedTensor], dtype: Dtype) -> Vec<u8> {
    let (label, width) = match dtype {
        Dtype::F32 => ("F32", 4),
        Dtype::F16 => ("F16", 2),
        Dtype::Bf16 => ("BF16", 2),
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.data.len() * width;
        let entry = json!({"dtype": label, "shape": tensor.shape, "data_offsets": [offset, end]});
        entries.insert(tensor.name.clone(), entry);
        offset = end;
    }
    let mut bytes = Value::Object(entries).to_string().into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    bytes
}

fn write_values(out: &mut dyn Write, values: &[f32], dtype: Dtype) -> std::io::Result<()> {
    const CHUNK: usize = 1 << 16;
    let mut bytes = Vec::with_capacity(4 * CHUNK);
    for chunk in values.chunks(CHUNK) {
        bytes.clear();
        match dtype {
            Dtype::F32 => chunk.iter().for_each(|value| bytes.extend(value.to_le_bytes())),
            Dtype::F16 => chunk
                .iter()
                .for_each(|&value| bytes.extend(f16::from_f32(value).to_le_bytes())),
            Dtype::Bf16 => chunk
                .iter()
                .for_each(|&value| bytes.extend(bf16::from_f32(value).to_le_bytes())),
        }
        out.write_all(&bytes)?;
    }
    Ok(())
}

/// Writes a file beside its place, flushes it to the disk and renames it: readers see the old file or the whole new one.
///
/// # Errors
/// When any step fails; the temporary file is removed.
pub fn write_atomically(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> std::io::Result<()>,
) -> Result<(), ModelError> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.tmp"));
    let result = (|| {
        let mut out = BufWriter::new(File::create(&temporary)?);
        write(&mut out)?;
        out.into_inner()
            .map_err(std::io::IntoInnerError::into_error)?
            .sync_all()?;
        fs::rename(&temporary, path)
    })();
    result.map_err(|source| {
        // The first error is the one to report; a leftover that cannot be removed changes nothing about it.
        let _ = fs::remove_file(&temporary);
        ModelError::io(path, source)
    })
}
