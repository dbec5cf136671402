//! What the processes of one run must have in common, in a form that is compared before they begin.

use std::path::PathBuf;

use sha2::{Digest, Sha256};

use super::Sharing;
use crate::TrainError;
use crate::config::{Device, TrainConfig};
use crate::data::MANIFEST_FILE;
use crate::dist::Identity;

/// The identity of a run: this program's version, the settings, how processes share, and what the dataset says about itself.
///
/// Paths are left out: hosts may see the same files in different places. What lies there is compared by other means: the
/// dataset by its manifest, if it has one, and once it is open by its users and items, the models by rank 0's parameters,
/// which all ranks get.
///
/// # Errors
/// When the dataset's manifest cannot be read.
pub fn identity(config: &TrainConfig, sharing: Sharing) -> Result<Identity, TrainError> {
    let path = config.run.dataset.join(MANIFEST_FILE);
    let manifest = match std::fs::read(&path) {
        Ok(manifest) => manifest,
        // A set of another layout has none; opening it says more than this could.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(TrainError::io(path, error)),
    };
    let mut settings = config.clone();
    // Processes may name each its own GPU.
    if let Device::Cuda(number) | Device::Wgpu(number) = &mut settings.run.device {
        *number = None;
    }
    for path in [&mut settings.run.dataset, &mut settings.run.output] {
        *path = PathBuf::new();
    }
    for path in [
        &mut settings.run.item_dataset,
        &mut settings.run.trace,
        &mut settings.lm.output_dir,
        &mut settings.embedder.output_dir,
    ] {
        // Whether there is one counts: all ranks take part in what is written.
        *path = path.take().map(|_| PathBuf::new());
    }
    for model in [&mut settings.lm.model, &mut settings.embedder.model] {
        model.clear();
    }
    Ok(Identity {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        config: Sha256::digest(format!("{}{sharing:?}", settings.to_toml()?)).into(),
        dataset: Sha256::digest(&manifest).into(),
    })
}
