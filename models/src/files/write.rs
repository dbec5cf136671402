//! Writing safetensors: the same bytes for the same parameters, under a temporary name until whole.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use half::{bf16, f16};
use serde_json::{Map, Value, json};

use super::Dtype;
use crate::ModelError;
use crate::weights::ParameterSpec;

/// Bytes of parameters in a file of a sharded model: transformers' own limit.
const SHARD_BYTES: u64 = 5_000_000_000;

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

impl NamedTensor {
    pub(crate) fn spec(&self) -> ParameterSpec {
        ParameterSpec {
            name: self.name.clone(),
            shape: self.shape.clone(),
        }
    }
}

/// Writes `tensors`, sorted by name, in `dtype`. Rounds to nearest even where `dtype` is narrower than `f32`.
///
/// # Errors
/// When the file cannot be written; then nothing stays behind under `path`.
pub fn write_safetensors(path: &Path, mut tensors: Vec<NamedTensor>, dtype: Dtype) -> Result<(), ModelError> {
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    let specs: Vec<ParameterSpec> = tensors.iter().map(NamedTensor::spec).collect();
    let mut data = tensors.into_iter().map(|tensor| tensor.data);
    write_file(path, &specs, dtype, |_| Ok(data.next().unwrap_or_default()))
}

/// Writes a model's parameters into `folder`: `model.safetensors`, or shards of 5 GB with their index where it is
/// larger. `values` is asked for one parameter at a time, by its place in `specs`, so that a model need not be in memory
/// twice.
///
/// # Errors
/// When a file cannot be written, or those of `values`.
pub(crate) fn write_parameters(
    folder: &Path,
    specs: &[ParameterSpec],
    dtype: Dtype,
    values: impl FnMut(usize) -> Result<Vec<f32>, ModelError>,
) -> Result<(), ModelError> {
    write_shards(folder, specs, dtype, SHARD_BYTES, values)
}

fn write_shards(
    folder: &Path,
    specs: &[ParameterSpec],
    dtype: Dtype,
    limit: u64,
    mut values: impl FnMut(usize) -> Result<Vec<f32>, ModelError>,
) -> Result<(), ModelError> {
    let mut order: Vec<usize> = (0..specs.len()).collect();
    order.sort_by_key(|&place| &specs[place].name);
    let bytes = |place: usize| (scalars(&specs[place]) * dtype.width()) as u64;
    let mut shards: Vec<Vec<usize>> = vec![Vec::new()];
    let (mut filled, mut total) = (0, 0);
    for place in order {
        let size = bytes(place);
        total += size;
        if filled > 0 && filled + size > limit {
            shards.push(Vec::new());
            filled = 0;
        }
        filled += size;
        if let Some(shard) = shards.last_mut() {
            shard.push(place);
        }
    }
    let count = shards.len();
    let mut places = BTreeMap::new();
    for (number, shard) in shards.iter().enumerate() {
        let file = match count {
            1 => "model.safetensors".to_owned(),
            _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        let written: Vec<&ParameterSpec> = shard.iter().map(|&place| &specs[place]).collect();
        write_file(&folder.join(&file), &written, dtype, |index| values(shard[index]))?;
        places.extend(written.into_iter().map(|spec| (spec.name.as_str(), file.clone())));
    }
    if count == 1 {
        return Ok(());
    }
    let index = json!({"metadata": {"total_size": total}, "weight_map": places});
    crate::folder::write_json(&folder.join("model.safetensors.index.json"), &index)
}

/// Writes the parameters of `specs` in their order.
fn write_file(
    path: &Path,
    specs: &[impl Borrow<ParameterSpec>],
    dtype: Dtype,
    mut values: impl FnMut(usize) -> Result<Vec<f32>, ModelError>,
) -> Result<(), ModelError> {
    let header = header(specs, dtype);
    let mut failed = None;
    let written = write_atomically(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        for place in 0..specs.len() {
            match values(place) {
                Ok(values) => write_values(out, &values, dtype)?,
                Err(error) => {
                    failed = Some(error);
                    return Err(io::Error::other("the values could not be had"));
                }
            }
        }
        Ok(())
    });
    // What went wrong first, not what the writing made of it.
    failed.map_or(written, Err)
}

/// The JSON header, padded to eight bytes as readers that map files expect.
fn header(specs: &[impl Borrow<ParameterSpec>], dtype: Dtype) -> Vec<u8> {
    let label = match dtype {
        Dtype::F32 => "F32",
        Dtype::F16 => "F16",
        Dtype::Bf16 => "BF16",
    };
    let mut entries = Map::new();
    entries.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for spec in specs {
        let spec = spec.borrow();
        let end = offset + scalars(spec) * dtype.width();
        let entry = json!({"dtype": label, "shape": spec.shape, "data_offsets": [offset, end]});
        entries.insert(spec.name.clone(), entry);
        offset = end;
    }
    let mut bytes = Value::Object(entries).to_string().into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    bytes
}

fn scalars(spec: &ParameterSpec) -> usize {
    spec.shape.iter().product()
}

fn write_values(out: &mut dyn Write, values: &[f32], dtype: Dtype) -> io::Result<()> {
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

/// Writes a file as [`replace_file`] does, with the path in the error.
///
/// # Errors
/// When any step fails; the temporary file is removed.
pub fn write_atomically(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<(), ModelError> {
    replace_file(path, write).map_err(|source| ModelError::io(path, source))
}

/// Writes a file beside its place, flushes it to the disk and renames it: readers see the old file or the whole new one. The
/// temporary name is always the same, so that the next attempt replaces what a killed one left.
///
/// # Errors
/// When any step fails; the temporary file is removed.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
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
    result.inspect_err(|_| {
        // The first error is the one to report; a leftover that cannot be removed changes nothing about it.
        let _ = fs::remove_file(&temporary);
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::CheckpointReader;

    fn specs() -> Vec<ParameterSpec> {
        let spec = |name: &str, shape: &[usize]| ParameterSpec {
            name: name.to_owned(),
            shape: shape.to_vec(),
        };
        vec![spec("b", &[2, 3]), spec("a", &[4]), spec("c", &[5])]
    }

    #[test]
    fn a_model_over_the_limit_is_written_in_shards_that_read_as_one() {
        let folder = tempfile::tempdir().unwrap();
        let specs = specs();
        // In bf16: a 8 bytes and b 12 fill the first file, c 10 has a second.
        write_shards(folder.path(), &specs, Dtype::Bf16, 20, |place| {
            Ok(vec![place as f32 + 0.5; scalars(&specs[place])])
        })
        .unwrap();
        assert!(folder.path().join("model-00002-of-00002.safetensors").is_file());
        let reader = CheckpointReader::open(folder.path()).unwrap();
        assert_eq!(reader.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        for (place, spec) in specs.iter().enumerate() {
            let (values, dtype) = reader.read(&spec.name, &spec.shape).unwrap();
            assert_eq!(dtype, Dtype::Bf16);
            assert_eq!(values, vec![place as f32 + 0.5; scalars(spec)]);
        }
        let index = fs::read_to_string(folder.path().join("model.safetensors.index.json")).unwrap();
        let index: Value = serde_json::from_str(&index).unwrap();
        assert_eq!(index["metadata"]["total_size"], 30);
        assert_eq!(index["weight_map"]["c"], "model-00002-of-00002.safetensors");
    }

    #[test]
    fn values_that_cannot_be_had_are_the_error_and_leave_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let failed = write_parameters(folder.path(), &specs(), Dtype::F32, |place| match place {
            1 => Ok(vec![0.0; 4]),
            _ => Err(ModelError::Input("lost".to_owned())),
        });
        assert!(failed.unwrap_err().to_string().contains("lost"));
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
