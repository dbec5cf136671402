//! `langptune report bundle`: the viewer and reports as files for others, on any static host or in one page.
//!
//! What is written depends on the reports and this program alone: equal reports give equal bytes.

mod page;
mod redact;
mod single_file;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use eval_core::report::{Runs, write_json};
use models::write_atomically;

use crate::data::{DataError, UnfinishedFolder};
use crate::report::ReportWriter;
use crate::site::{ReportPlace, Site, SiteError, file_path, runs};
use redact::Redacted;
pub use single_file::{MAX_SINGLE_FILE_BYTES, write_single_file};

/// Why reports could not be bundled.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The viewer or a report cannot be read.
    #[error(transparent)]
    Site(#[from] SiteError),
    /// The folder cannot be written.
    #[error(transparent)]
    Output(#[from] DataError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] models::ModelError),
    /// A record cannot be read or written.
    #[error("{}: {source}", path.display())]
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: eval_core::Error,
    },
    /// The reports are more than a page should hold.
    #[error(
        "the reports are {} MB: one file is for up to {} MB, which browsers open well; write a folder with --out instead, or \
         leave out texts and vectors with --redact",
        bytes.div_ceil(1_000_000),
        MAX_SINGLE_FILE_BYTES / 1_000_000
    )]
    TooLarge {
        /// Bytes of the reports' files.
        bytes: u64,
    },
    /// The viewer's page is not one that can be made a single file.
    #[error("{file} of the viewer: expected {expected}, so that one page can hold it")]
    Page {
        /// The viewer's file.
        file: String,
        /// What was expected.
        expected: String,
    },
}

/// What is bundled.
#[derive(Clone, Copy, Debug)]
pub struct Bundle<'a> {
    /// The viewer.
    pub site: &'a Site,
    /// The reports.
    pub reports: &'a [ReportPlace],
    /// Whether texts of and about people, their ids and histories, and vectors are left out.
    pub redact: bool,
}

/// A file of a bundle.
#[derive(Debug)]
struct BundleFile<'a> {
    /// Its path, relative to the viewer's page.
    name: String,
    content: Content<'a>,
}

#[derive(Debug)]
enum Content<'a> {
    Bytes(Cow<'a, [u8]>),
    /// As it lies in a report.
    File(PathBuf),
}

impl Content<'_> {
    fn bytes(&self) -> Result<Cow<'_, [u8]>, SiteError> {
        match self {
            Self::Bytes(bytes) => Ok(Cow::Borrowed(bytes)),
            Self::File(path) => read(path).map(Cow::Owned),
        }
    }

    /// Its length in bytes.
    fn length(&self) -> Result<u64, SiteError> {
        match self {
            Self::Bytes(bytes) => Ok(bytes.len() as u64),
            Self::File(path) => match fs::metadata(path) {
                Ok(metadata) => Ok(metadata.len()),
                Err(source) => Err(unreadable(path, source)),
            },
        }
    }
}

impl<'a> Bundle<'a> {
    /// Writes a folder that any static host can serve, under any address. With `overwrite` an earlier bundle there is replaced.
    ///
    /// # Errors
    /// When a report cannot be read, or the folder cannot be written or holds something else.
    pub fn write_folder(&self, output: &Path, overwrite: bool) -> Result<(), BundleError> {
        let folder = UnfinishedFolder::begin(output, overwrite, Runs::FILE)?;
        let viewer = self.site.files().map(|(name, bytes)| BundleFile {
            name: name.to_owned(),
            content: Content::Bytes(Cow::Borrowed(bytes)),
        });
        let reports = self.report_files()?;
        for BundleFile { name, content } in viewer.chain([self.list()?]).chain(reports) {
            let path = folder.path().join(name);
            let parent = path.parent().unwrap_or(folder.path());
            let io = |source| models::ModelError::io(&path, source);
            fs::create_dir_all(parent).map_err(io)?;
            match content {
                Content::Bytes(bytes) => write_atomically(&path, |out| out.write_all(&bytes))?,
                Content::File(from) => {
                    let mut file = fs::File::open(&from).map_err(|source| unreadable(&from, source))?;
                    write_atomically(&path, |out| io::copy(&mut file, out).map(drop))?;
                }
            }
        }
        folder.publish()?;
        Ok(())
    }

    /// `runs.json`.
    fn list(&self) -> Result<BundleFile<'static>, BundleError> {
        Ok(BundleFile {
            name: Runs::FILE.to_owned(),
            content: json(Path::new(Runs::FILE), &runs(self.reports, false))?,
        })
    }

    /// The files of all reports.
    fn report_files(&self) -> Result<Vec<BundleFile<'static>>, BundleError> {
        let mut files = Vec::new();
        for report in self.reports {
            self.add_report(report, &mut files)?;
        }
        Ok(files)
    }

    fn add_report(&self, report: &ReportPlace, files: &mut Vec<BundleFile<'static>>) -> Result<(), BundleError> {
        let mut manifest = report.manifest()?;
        let redacted = self.redact.then(|| Redacted::new(&mut manifest));
        let path = report.folder.join(ReportWriter::MANIFEST);
        let mut add = |name: &str, content| {
            files.push(BundleFile {
                name: format!("{}{name}", report.path()),
                content,
            });
        };
        add(ReportWriter::MANIFEST, json(&path, &manifest)?);
        for name in manifest.files() {
            let path = file_path(&report.folder, name.split('/')).ok_or_else(|| SiteError::NoSuchFile {
                path: report.folder.clone(),
                file: name.to_owned(),
            })?;
            let changed = redacted
                .as_ref()
                .map(|redacted| redacted.file(name, &path))
                .transpose()?;
            add(name, changed.flatten().unwrap_or(Content::File(path)));
        }
        Ok(())
    }
}

/// A record as a file's content; `path` is for the error.
fn json(path: &Path, record: &impl serde::Serialize) -> Result<Content<'static>, BundleError> {
    let mut bytes = Vec::new();
    write_json(&mut bytes, record).map_err(|source| BundleError::Record {
        path: path.to_owned(),
        source,
    })?;
    Ok(Content::Bytes(Cow::Owned(bytes)))
}

fn read(path: &Path) -> Result<Vec<u8>, SiteError> {
    fs::read(path).map_err(|source| unreadable(path, source))
}

fn unreadable(path: &Path, source: io::Error) -> SiteError {
    SiteError::Read {
        path: path.to_owned(),
        source,
    }
}
