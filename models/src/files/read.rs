//! Reading single or sharded safetensors, memory-mapped, every parameter checked.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype as FileDtype, TensorView};

use crate::ModelError;

/// The element types that parameters are stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit floats.
    F32,
    /// IEEE half precision.
    F16,
    /// bfloat16.
    Bf16,
}

impl Dtype {
    /// Bytes of a scalar.
    pub(crate) fn width(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
        }
    }

    /// The name in a model's `config.json`.
    pub(crate) fn torch_name(self) -> &'static str {
        match self {
            Self::F32 => "float32",
            Self::F16 => "float16",
            Self::Bf16 => "bfloat16",
        }
    }
}

/// The parameters of a model folder: `model.safetensors`, or the shards that `model.safetensors.index.json` names.
#[derive(Debug)]
pub struct CheckpointReader {
    folder: PathBuf,
    files: Vec<(PathBuf, Mmap)>,
    /// Name to file; sorted, so that messages and iteration are repeatable.
    places: BTreeMap<String, usize>,
}

impl CheckpointReader {
    /// Opens a model folder.
    ///
    /// # Errors
    /// When there is no safetensors file, one is broken, or an index names a file outside the folder.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let single = folder.join("model.safetensors");
        let index = folder.join("model.safetensors.index.json");
        let paths = if single.is_file() {
            vec![single]
        } else if index.is_file() {
            shard_paths(folder, &index)?
        } else {
            let message = "expected model.safetensors or model.safetensors.index.json in this folder, found neither";
            return Err(ModelError::config(folder, message));
        };
        Self::from_files(folder, paths)
    }

    /// Opens one file.
    pub fn open_file(path: &Path) -> Result<Self, ModelError> {
        Self::from_files(path, vec![path.to_owned()])
    }

    fn from_files(folder: &Path, paths: Vec<PathBuf>) -> Result<Self, ModelError> {
        let mut reader = Self {
            folder: folder.to_owned(),
            files: Vec::new(),
            places: BTreeMap::new(),
        };
        for path in paths {
            let file = File::open(&path).map_err(|source| ModelError::io(&path, source))?;
            // SAFETY: the map is read-only; a file that another process cuts while we read faults, as with any reader
            // that maps checkpoints, and checkpoints are replaced by renaming.
            let map = unsafe { Mmap::map(&file) }.map_err(|source| ModelError::io(&path, source))?;
            let tensors = parse(&path, &map)?;
            for name in tensors.names() {
                if reader.places.insert(name.to_owned(), reader.files.len()).is_some() {
                    return Err(ModelError::config(&path, format!("parameter `{name}` is in two files")));
                }
            }
            reader.files.push((path, map));
        }
        Ok(reader)
    }

    /// The folder or file that was opened.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// All names, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Whether there is a parameter of that name.
    pub fn contains(&self, name: &str) -> bool {
        self.places.contains_key(name)
    }

    /// The shape of a parameter, if it is there.
    pub fn shape(&self, name: &str) -> Option<Vec<usize>> {
        let (path, map) = &self.files[*self.places.get(name)?];
        let tensors = parse(path, map).ok()?;
        Some(tensors.tensor(name).ok()?.shape().to_vec())
    }

    /// Reads a parameter as `f32` (exact for all three types) and says what it was stored in.
    ///
    /// # Errors
    /// When it is missing, or its shape or type is not as expected.
    pub fn read(&self, name: &str, shape: &[usize]) -> Result<(Vec<f32>, Dtype), ModelError> {
        let place = self.places.get(name).ok_or_else(|| ModelError::MissingParameters {
            path: self.folder.clone(),
            names: vec![name.to_owned()],
            expected: 1,
        })?;
        let (path, map) = &self.files[*place];
        let tensors = parse(path, map)?;
        let view = tensors.tensor(name).map_err(|error| ModelError::Safetensors {
            path: path.clone(),
            message: error.to_string(),
        })?;
        if view.shape() != shape {
            return Err(ModelError::Shape {
                path: path.clone(),
                name: name.to_owned(),
                expected: shape.to_vec(),
                found: view.shape().to_vec(),
            });
        }
        decode(&view).ok_or_else(|| ModelError::Dtype {
            path: path.clone(),
            name: name.to_owned(),
            found: format!("{:?}", view.dtype()),
        })
    }
}

/// The shard files that an index names. The index is untrusted: only plain file names are followed.
fn shard_paths(folder: &Path, index: &Path) -> Result<Vec<PathBuf>, ModelError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let text = std::fs::read_to_string(index).map_err(|source| ModelError::io(index, source))?;
    let parsed: Index = serde_json::from_str(&text).map_err(|error| ModelError::config(index, error.to_string()))?;
    let mut names: Vec<_> = parsed.weight_map.into_values().collect();
    names.sort();
    names.dedup();
    names
        .into_iter()
        .map(|name| {
            let plain = Path::new(&name).file_name().is_some_and(|file| file == name.as_str());
            if plain {
                Ok(folder.join(name))
            } else {
                Err(ModelError::config(
                    index,
                    format!("shard `{name}` is not a plain file name"),
                ))
            }
        })
        .collect()
}

fn parse<'a>(path: &Path, map: &'a Mmap) -> Result<SafeTensors<'a>, ModelError> {
    SafeTensors::deserialize(map).map_err(|error| ModelError::Safetensors {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn decode(view: &TensorView<'_>) -> Option<(Vec<f32>, Dtype)> {
    let bytes = view.data();
    let halves = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
    match view.dtype() {
        FileDtype::F32 => {
            let values = bytes
                .chunks_exact(4)
                .map(|four| f32::from_le_bytes([four[0], four[1], four[2], four[3]]));
            Some((values.collect(), Dtype::F32))
        }
        FileDtype::F16 => Some((
            halves().map(|pair| f16::from_le_bytes(pair).to_f32()).collect(),
            Dtype::F16,
        )),
        FileDtype::BF16 => Some((
            halves().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect(),
            Dtype::Bf16,
        )),
        _ => None,
    }
}
