//! A run's checkpoints by name.

use std::convert::Infallible;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use eval_core::report::read_manifest;

use crate::TrainError;
use crate::report::{self, ReportWriter};

/// Which checkpoint of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckpointChoice {
    /// The one after most updates.
    Last,
    /// The one whose generated profiles ranked best on the val users, by the run's report.
    Best,
    /// The one of this name.
    Named(String),
}

impl FromStr for CheckpointChoice {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(match text {
            "last" => Self::Last,
            "best" => Self::Best,
            name => Self::Named(name.to_owned()),
        })
    }
}

/// The folder of a checkpoint of `run`.
///
/// # Errors
/// When it is not there, with those that are; for the best, when the run's report cannot be read or has no metrics.
pub fn checkpoint_folder(run: &Path, choice: &CheckpointChoice) -> Result<PathBuf, TrainError> {
    let folder = run.join("checkpoints");
    if !folder.is_dir() {
        let message = format!(
            "{}: there is no run in this folder, for it has no folder checkpoints",
            run.display()
        );
        return Err(TrainError::Mismatch(message));
    }
    let names = names_in(&folder)?;
    let name = match choice {
        CheckpointChoice::Last => names.last().cloned(),
        CheckpointChoice::Best => Some(best_name(run)?),
        CheckpointChoice::Named(name) => Some(name.clone()),
    };
    match name {
        Some(name) if names.contains(&name) => Ok(folder.join(name)),
        Some(name) => {
            let there = if names.is_empty() {
                "none".to_owned()
            } else {
                names.join(", ")
            };
            let message = format!(
                "{}: there is no checkpoint {name}; there are: {there}",
                folder.display()
            );
            Err(TrainError::Mismatch(message))
        }
        None => Err(TrainError::Mismatch(format!(
            "{}: there is no checkpoint yet",
            folder.display()
        ))),
    }
}

/// Finished checkpoints, by ascending update: numbers in names have leading zeros.
fn names_in(folder: &Path) -> Result<Vec<String>, TrainError> {
    let failed = |source| TrainError::io(folder, source);
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        // One that is being written has a name with a dot in front.
        if entry.path().is_dir() && !name.starts_with('.') {
            names.push(name);
        }
    }
    names.sort_by_key(|name| (name.len(), name.clone()));
    Ok(names)
}

fn best_name(run: &Path) -> Result<String, TrainError> {
    let path = run.join(ReportWriter::FOLDER).join(ReportWriter::MANIFEST);
    let file = File::open(&path).map_err(|source| TrainError::io(&path, source))?;
    let manifest = read_manifest(BufReader::new(file))?;
    let best = report::best(&manifest.checkpoints);
    let best = best.map(|place| manifest.checkpoints[place].name.clone());
    let none = || TrainError::Mismatch(format!("{}: no checkpoint was evaluated", path.display()));
    best.ok_or_else(none)
}
