//! An output folder that appears whole or not at all.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::DataError;

/// A folder being written beside its place. Dropped without [`publish`](Self::publish), it disappears.
#[derive(Debug)]
pub(crate) struct UnfinishedFolder {
    written: TempDir,
    place: PathBuf,
}

impl UnfinishedFolder {
    /// Begins the folder that will be at `place`, so that a place that cannot be written to is found before the work.
    ///
    /// With `overwrite` an earlier result there, which has the file `marker`, is replaced; any other folder that is not empty
    /// is left alone.
    pub(crate) fn begin(place: &Path, overwrite: bool, marker: &str) -> Result<Self, DataError> {
        let failed = |source| DataError::Write {
            path: place.to_owned(),
            source,
        };
        if is_taken(place).map_err(failed)? && !(overwrite && place.join(marker).is_file()) {
            return Err(if overwrite {
                failed(io::Error::other(format!(
                    "the folder holds other files and no {marker}"
                )))
            } else {
                DataError::OutputExists { path: place.to_owned() }
            });
        }
        let parent = match place.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).map_err(failed)?;
        let name = place.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let written = beside(parent, &format!(".{name}.unfinished-")).map_err(failed)?;
        Ok(Self {
            written,
            place: place.to_owned(),
        })
    }

    /// Where to write.
    pub(crate) fn path(&self) -> &Path {
        self.written.path()
    }

    /// Puts the folder in its place.
    pub(crate) fn publish(self) -> Result<(), DataError> {
        let failed = |source| DataError::Write {
            path: self.place.clone(),
            source,
        };
        let replaced = if self.place.exists() {
            let parent = self.written.path().parent().unwrap_or(Path::new("."));
            let aside = beside(parent, ".replaced-").map_err(failed)?;
            fs::rename(&self.place, aside.path().join("replaced")).map_err(failed)?;
            Some(aside)
        } else {
            None
        };
        fs::rename(self.written.path(), &self.place).map_err(failed)?;
        // Its content has moved: there is nothing left to remove.
        let _ = self.written.keep();
        drop(replaced);
        Ok(())
    }
}

/// Whether something is at `place` already that is not an empty folder.
fn is_taken(place: &Path) -> io::Result<bool> {
    match fs::read_dir(place) {
        Ok(mut entries) => Ok(entries.next().is_some()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

fn beside(parent: &Path, prefix: &str) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(prefix);
    // Temporary folders are private, datasets are as readable as the user's other folders.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder.tempdir_in(parent)
}
