//! The viewer's files, and the reports that lie beside them: what is served, and what is written for others to serve.

mod reports;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

pub use reports::{ReportPlace, file_path, find_reports, runs};

/// The viewer as this program was built with it: names, with slashes, and contents; nothing where it was built without.
static BUILT_IN: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/site_files.rs"));

/// Why reports cannot be shown or shared.
#[derive(Debug, thiserror::Error)]
pub enum SiteError {
    /// No viewer in this program.
    #[error("this langptune was built without the viewer; `cargo xtask bundle` in its repository builds one with it")]
    NoViewer,
    /// A folder that should be a built viewer is none.
    #[error("{}: expected a built viewer with {expected}, as `cargo xtask viewer` makes it", path.display())]
    NotASite {
        /// The folder.
        path: PathBuf,
        /// The file that is missing.
        expected: &'static str,
    },
    /// Neither a run nor a report.
    #[error(
        "{}: expected a run's folder with report/manifest.json, or a report's with manifest.json; `langptune train` writes it \
         when training begins",
        path.display()
    )]
    NoReport {
        /// What was given.
        path: PathBuf,
    },
    /// A report that this program cannot read.
    #[error("{}: {source}", path.display())]
    Report {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: eval_core::Error,
    },
    /// A file that a report names leads out of the report's folder, or is none.
    #[error("{}: the report names {file:?}, which is no file inside its folder", path.display())]
    NoSuchFile {
        /// The report's folder.
        path: PathBuf,
        /// The file as it is named.
        file: String,
    },
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The built viewer: files by name.
#[derive(Clone, Debug, Default)]
pub struct Site {
    files: BTreeMap<String, Cow<'static, [u8]>>,
}

impl Site {
    /// The page that shows a report.
    pub const PAGE: &'static str = "index.html";

    /// The viewer in this program.
    ///
    /// # Errors
    /// [`SiteError::NoViewer`] where it was built without.
    pub fn built_in() -> Result<Self, SiteError> {
        let files = BUILT_IN
            .iter()
            .map(|(name, bytes)| ((*name).to_owned(), Cow::Borrowed(*bytes)));
        let site = Self { files: files.collect() };
        match site.get(Self::PAGE) {
            Some(_) => Ok(site),
            None => Err(SiteError::NoViewer),
        }
    }

    /// A built viewer in `folder`.
    ///
    /// # Errors
    /// When a file cannot be read, or there is no page among them.
    pub fn read(folder: &Path) -> Result<Self, SiteError> {
        let mut site = Self::default();
        site.collect(folder, "")?;
        match site.get(Self::PAGE) {
            Some(_) => Ok(site),
            None => Err(SiteError::NotASite {
                path: folder.to_owned(),
                expected: Self::PAGE,
            }),
        }
    }

    /// The content of the file with that name.
    pub fn get(&self, name: &str) -> Option<&[u8]> {
        self.files.get(name).map(|bytes| &bytes[..])
    }

    /// All files by ascending name.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..]))
    }

    /// All files, by name.
    pub fn into_files(self) -> BTreeMap<String, Cow<'static, [u8]>> {
        self.files
    }

    fn collect(&mut self, folder: &Path, prefix: &str) -> Result<(), SiteError> {
        let failed = |source| SiteError::Read {
            path: folder.to_owned(),
            source,
        };
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let name = format!("{prefix}{}", path.file_name().unwrap_or_default().to_string_lossy());
            if path.is_dir() {
                self.collect(&path, &format!("{name}/"))?;
                continue;
            }
            let bytes = fs::read(&path).map_err(|source| SiteError::Read { path, source })?;
            self.files.insert(name, Cow::Owned(bytes));
        }
        Ok(())
    }
}
