//! Checkpoints of a run: both models as other tools read them, and beside them what resuming needs.
//!
//! `RUN/checkpoints/update-N/` is the run after `N` updates. A checkpoint is written under a temporary name, flushed to
//! the disk and renamed: whatever has the name is whole.
//!
//! | in the folder | content |
//! |---|---|
//! | `lm/`, `embedder/` | the models: Hugging Face folders, or a PEFT adapter folder |
//! | `state/state.json` | [`State`]: where the run stood |
//! | `state/{lm,embedder}-optimizer.safetensors` | the optimizers' moments |
//! | `state/embedder-gradients.safetensors` | gradients of batches that no optimizer step has seen yet |
//! | `state/profiles.json` | within an embedder phase: the profiles that it trains on |
//! | `state/report.cbor` | the report's manifest as it was; CBOR gets every number back exactly |
//!
//! Draws are counted, not chained (seed, update, user, sample, position), so that no state of a generator is kept.

mod lock;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use models::replace_file;
use serde::{Deserialize, Serialize};

use crate::TrainError;
use crate::log::LogPosition;

pub use lock::RunLock;

/// The folder of checkpoints in a run.
pub const FOLDER: &str = "checkpoints";
/// The folder of what resuming needs, in a checkpoint.
pub const STATE_FOLDER: &str = "state";
const STATE_FILE: &str = "state.json";
/// The version of [`State`] that is written and read.
const VERSION: u32 = 1;

/// The two phases of an iteration.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// Contrastive training of the embedder.
    Embedder,
    /// Reinforcement of the language model.
    Lm,
}

/// Where the schedule stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Position {
    /// Iterations that are over.
    pub iteration: usize,
    /// The phase that is under way.
    pub phase: Phase,
    /// Its updates that are over.
    pub done: usize,
}

/// What resuming needs beside tensors.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// The version of this record.
    pub version: u32,
    /// The global update that comes next, from 1.
    pub next_update: u64,
    /// Where the schedule stands.
    pub position: Position,
    /// Whether the evaluation that is due before the next update has been made.
    pub evaluated: bool,
    /// Whether the run has come to its end.
    pub finished: bool,
    /// Embedder batches since its last optimizer step.
    pub pending: usize,
    /// Batches that the embedder's order has given out.
    pub embedder_batches: u64,
    /// Batches that the language model's order has given out.
    pub lm_batches: u64,
    /// Tokens that go through the language model together, where a GPU's memory decided it.
    #[serde(default)]
    pub micro_batch_tokens: Option<u64>,
    /// How far the logs were written.
    pub logs: LogPosition,
    /// How far the trace was written, in bytes.
    pub trace: Option<u64>,
}

impl Position {
    /// The beginning of a run.
    pub const START: Self = Self {
        iteration: 0,
        phase: Phase::Embedder,
        done: 0,
    };
}

impl State {
    /// The version that is written.
    pub const VERSION: u32 = VERSION;

    /// Writes the record into a checkpoint's state folder.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), TrainError> {
        write_json(&folder.join(STATE_FILE), self)
    }

    /// Reads the record of a checkpoint.
    ///
    /// # Errors
    /// When it is missing, broken, or of another version.
    pub fn read(checkpoint: &Path) -> Result<Self, TrainError> {
        let state: Self = read_json(&checkpoint.join(STATE_FOLDER).join(STATE_FILE))?;
        if state.version == VERSION {
            return Ok(state);
        }
        let message = format!(
            "{}: its state has version {}, this langptune resumes version {VERSION}; resume with the langptune that wrote it",
            checkpoint.display(),
            state.version
        );
        Err(TrainError::Mismatch(message))
    }
}

/// The name of the checkpoint after `updates` updates.
pub fn name(updates: u64) -> String {
    format!("update-{updates:06}")
}

/// The checkpoints of `run` that can be resumed from, by updates, fewest first.
///
/// # Errors
/// When the folder cannot be listed.
pub fn list(run: &Path) -> Result<Vec<(u64, PathBuf)>, TrainError> {
    let folder = run.join(FOLDER);
    let entries = match fs::read_dir(&folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(TrainError::io(folder, error)),
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|source| TrainError::io(&folder, source))?;
        let name = entry.file_name();
        let updates = name
            .to_str()
            .and_then(|name| name.strip_prefix("update-")?.parse().ok());
        let path = entry.path();
        if let Some(updates) = updates
            && path.join(STATE_FOLDER).join(STATE_FILE).is_file()
        {
            found.push((updates, path));
        }
    }
    found.sort();
    Ok(found)
}

/// Writes a checkpoint of `run` by `fill`, which gets its folder, and puts it in place whole and on the disk; returns where.
///
/// # Errors
/// What `fill` says, or when the disk does not take it; then earlier checkpoints are as they were.
pub fn write(
    run: &Path,
    updates: u64,
    fill: impl FnOnce(&Path) -> Result<(), TrainError>,
) -> Result<PathBuf, TrainError> {
    let (folder, name) = (run.join(FOLDER), name(updates));
    let (temporary, old, path) = (
        folder.join(format!(".{name}.tmp")),
        folder.join(format!(".{name}.old")),
        folder.join(&name),
    );
    remove_folder(&temporary)?;
    let written = fs::create_dir_all(temporary.join(STATE_FOLDER))
        .map_err(|source| TrainError::io(&temporary, source))
        .and_then(|()| fill(&temporary))
        .and_then(|()| flush(&temporary));
    if let Err(error) = written {
        // The first error is the one to report; what is left of it is in nobody's way.
        let _ = fs::remove_dir_all(&temporary);
        return Err(error);
    }
    let rename = |from: &Path, to: &Path| fs::rename(from, to).map_err(|source| TrainError::io(to, source));
    remove_folder(&old)?;
    if path.exists() {
        rename(&path, &old)?;
    }
    rename(&temporary, &path)?;
    sync_folder(&folder)?;
    remove_folder(&old)?;
    Ok(path)
}

/// Puts right what an interruption left: a replaced checkpoint whose successor did not come is put back, and the rest of
/// unfinished work is removed.
///
/// # Errors
/// When the folder cannot be read or changed.
pub fn tidy(run: &Path) -> Result<(), TrainError> {
    let folder = run.join(FOLDER);
    if !folder.is_dir() {
        return Ok(());
    }
    let entries = fs::read_dir(&folder).map_err(|source| TrainError::io(&folder, source))?;
    for entry in entries {
        let path = entry.map_err(|source| TrainError::io(&folder, source))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()?.strip_prefix('.')) else {
            continue;
        };
        match name.strip_suffix(".old").map(|name| folder.join(name)) {
            Some(successor) if !successor.exists() => {
                fs::rename(&path, &successor).map_err(|source| TrainError::io(&successor, source))?;
            }
            Some(_) => remove_folder(&path)?,
            None if name.ends_with(".tmp") => remove_folder(&path)?,
            None => {}
        }
    }
    Ok(())
}

/// Removes the checkpoints of `run` except the newest `last` and those whose names are in `best`; all stay where `last` is
/// `None`.
///
/// # Errors
/// When one cannot be removed.
pub fn prune(run: &Path, last: Option<usize>, best: &[String]) -> Result<(), TrainError> {
    let Some(last) = last else { return Ok(()) };
    let checkpoints = list(run)?;
    let older = checkpoints.len().saturating_sub(last.max(1));
    for (updates, path) in &checkpoints[..older] {
        if !best.contains(&name(*updates)) {
            // Under a name that nobody resumes from, so that an interruption leaves no half of one.
            let doomed = path.with_file_name(format!(".{}.tmp", name(*updates)));
            fs::rename(path, &doomed).map_err(|source| TrainError::io(path, source))?;
            remove_folder(&doomed)?;
        }
    }
    Ok(())
}

/// Writes a record as JSON, under a temporary name until whole.
pub(crate) fn write_json(path: &Path, record: &impl Serialize) -> Result<(), TrainError> {
    let bytes = serde_json::to_vec(record).map_err(|error| TrainError::io(path, error.into()))?;
    replace_file(path, |out| out.write_all(&bytes)).map_err(|source| TrainError::io(path, source))
}

/// Reads a record that [`write_json`] wrote.
pub(crate) fn read_json<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, TrainError> {
    let bytes = fs::read(path).map_err(|source| TrainError::io(path, source))?;
    serde_json::from_slice(&bytes).map_err(|error| TrainError::io(path, error.into()))
}

/// Writes a record as CBOR (RFC 8949), under a temporary name until whole.
pub(crate) fn write_cbor(path: &Path, record: &impl Serialize) -> Result<(), TrainError> {
    let mut bytes = Vec::new();
    ciborium::into_writer(record, &mut bytes).map_err(|error| TrainError::io(path, io::Error::other(error)))?;
    replace_file(path, |out| out.write_all(&bytes)).map_err(|source| TrainError::io(path, source))
}

/// Reads a record that [`write_cbor`] wrote.
pub(crate) fn read_cbor<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T, TrainError> {
    let bytes = fs::read(path).map_err(|source| TrainError::io(path, source))?;
    ciborium::from_reader(bytes.as_slice()).map_err(|error| TrainError::io(path, io::Error::other(error)))
}

fn remove_folder(path: &Path) -> Result<(), TrainError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(TrainError::io(path, error)),
        _ => Ok(()),
    }
}

/// Flushes every file and folder below `path` to the disk.
fn flush(path: &Path) -> Result<(), TrainError> {
    let io = |source| TrainError::io(path, source);
    for entry in fs::read_dir(path).map_err(io)? {
        let entry = entry.map_err(io)?.path();
        if entry.is_dir() {
            flush(&entry)?;
        } else {
            File::open(&entry)
                .and_then(|file| file.sync_all())
                .map_err(|source| TrainError::io(&entry, source))?;
        }
    }
    sync_folder(path)
}

fn sync_folder(path: &Path) -> Result<(), TrainError> {
    // A folder can be opened and flushed on Unix alone.
    if cfg!(unix) {
        File::open(path)
            .and_then(|folder| folder.sync_all())
            .map_err(|source| TrainError::io(path, source))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn state(next_update: u64) -> State {
        State {
            version: State::VERSION,
            next_update,
            position: Position::START,
            evaluated: true,
            finished: false,
            pending: 0,
            embedder_batches: 0,
            lm_batches: 0,
            micro_batch_tokens: Some(8192),
            logs: LogPosition::default(),
            trace: None,
        }
    }

    fn save(run: &Path, updates: u64) -> PathBuf {
        write(run, updates, |folder| {
            state(updates + 1).write(&folder.join(STATE_FOLDER))
        })
        .unwrap()
    }

    fn names(run: &Path) -> Vec<u64> {
        list(run).unwrap().into_iter().map(|(updates, _)| updates).collect()
    }

    #[test]
    fn a_checkpoint_reads_back_and_one_without_a_state_is_not_listed() {
        let run = tempfile::tempdir().unwrap();
        let path = save(run.path(), 7);
        fs::create_dir_all(run.path().join(FOLDER).join("update-000009/lm")).unwrap();
        assert_eq!(State::read(&path).unwrap(), state(8));
        assert_eq!(names(run.path()), [7]);
    }

    #[test]
    fn a_checkpoint_that_fails_leaves_the_earlier_one_of_its_name() {
        let run = tempfile::tempdir().unwrap();
        save(run.path(), 7);
        let failed = write(run.path(), 7, |folder| {
            fs::write(folder.join("half"), "x").unwrap();
            Err(TrainError::Mismatch("no space".to_owned()))
        });
        assert_eq!(failed.unwrap_err().to_string(), "no space");
        assert_eq!(names(run.path()), [7]);
        assert_eq!(fs::read_dir(run.path().join(FOLDER)).unwrap().count(), 1);
    }

    #[test]
    fn tidying_puts_back_what_was_being_replaced_and_drops_the_rest() {
        let run = tempfile::tempdir().unwrap();
        let folder = run.path().join(FOLDER);
        for updates in [1, 2] {
            save(run.path(), updates);
        }
        fs::rename(folder.join("update-000002"), folder.join(".update-000002.old")).unwrap();
        fs::create_dir_all(folder.join(".update-000001.old/lm")).unwrap();
        fs::create_dir_all(folder.join(".update-000003.tmp/lm")).unwrap();
        tidy(run.path()).unwrap();
        assert_eq!(names(run.path()), [1, 2]);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
    }

    #[test]
    fn pruning_keeps_the_newest_and_the_best() {
        let run = tempfile::tempdir().unwrap();
        for updates in 1..=5 {
            save(run.path(), updates);
        }
        prune(run.path(), None, &[]).unwrap();
        assert_eq!(names(run.path()), [1, 2, 3, 4, 5]);
        prune(run.path(), Some(2), &[name(1)]).unwrap();
        assert_eq!(names(run.path()), [1, 4, 5]);
        prune(run.path(), Some(0), &[]).unwrap();
        assert_eq!(names(run.path()), [5]);
    }

    #[test]
    fn another_version_is_refused() {
        let run = tempfile::tempdir().unwrap();
        let path = write(run.path(), 1, |folder| {
            State { version: 9, ..state(2) }.write(&folder.join(STATE_FOLDER))
        })
        .unwrap();
        let message = State::read(&path).unwrap_err().to_string();
        assert!(message.contains("version 9"), "{message}");
    }
}
