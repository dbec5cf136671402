//! One process a run: a lock that the system takes back when the process ends, however it ends.

use std::fs::{self, File, TryLockError};
use std::path::Path;

use crate::TrainError;

/// Held while a run is written.
#[derive(Debug)]
pub struct RunLock {
    /// Locked as long as it is open.
    _file: File,
}

impl RunLock {
    /// The file's name in a run.
    pub const FILE: &'static str = ".lock";

    /// Locks `run`, which is made where it is missing.
    ///
    /// # Errors
    /// When another process has it, or it cannot be written.
    pub fn acquire(run: &Path) -> Result<Self, TrainError> {
        fs::create_dir_all(run).map_err(|source| TrainError::io(run, source))?;
        let path = run.join(Self::FILE);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|source| TrainError::io(&path, source))?;
        match file.try_lock() {
            Ok(()) => Ok(Self { _file: file }),
            Err(TryLockError::WouldBlock) => Err(TrainError::Mismatch(format!(
                "{}: another langptune is training in this folder; wait for it, or give another --output",
                run.display()
            ))),
            Err(TryLockError::Error(source)) => Err(TrainError::io(path, source)),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_run_has_one_writer_at_a_time() {
        let run = tempfile::tempdir().unwrap();
        let lock = RunLock::acquire(run.path()).unwrap();
        let error = RunLock::acquire(run.path()).unwrap_err().to_string();
        assert!(error.contains("another langptune is training"), "{error}");
        drop(lock);
        RunLock::acquire(run.path()).unwrap();
    }
}
