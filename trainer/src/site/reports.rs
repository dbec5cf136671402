//! The reports that are shown together: where they lie, and what they are called.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use eval_core::report::{Manifest, RunPlace, Runs, read_manifest};

use super::SiteError;
use crate::report::ReportWriter;

/// The folder of reports beside the viewer.
const RUNS: &str = "runs";

/// A report to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReportPlace {
    /// What it is called, unlike all others: the run's folder, with a number where two are called the same.
    pub name: String,
    /// Its folder's name beside the viewer, which needs no escapes in an address.
    pub slug: String,
    /// The folder of its manifest, without links.
    pub folder: PathBuf,
}

impl ReportPlace {
    /// Its manifest.
    ///
    /// # Errors
    /// When it cannot be read, or is of another version.
    pub fn manifest(&self) -> Result<Manifest, SiteError> {
        let path = self.folder.join(ReportWriter::MANIFEST);
        let file = fs::File::open(&path).map_err(|source| SiteError::Read {
            path: path.clone(),
            source,
        })?;
        read_manifest(file).map_err(|source| SiteError::Report { path, source })
    }

    /// Where it lies as seen from the viewer's page.
    pub fn path(&self) -> String {
        format!("{RUNS}/{}/", self.slug)
    }
}

/// The reports of `runs`: each the folder of a run, or of a report.
///
/// # Errors
/// [`SiteError::NoReport`] for a folder without one.
pub fn find_reports(runs: &[PathBuf]) -> Result<Vec<ReportPlace>, SiteError> {
    let (mut names, mut slugs) = (BTreeSet::new(), BTreeSet::new());
    let place = |run: &PathBuf| {
        let (folder, name) = report_folder(run)?;
        let slug = distinct(&slug(&name), &mut slugs);
        let name = distinct(&name, &mut names);
        Ok(ReportPlace { name, slug, folder })
    };
    runs.iter().map(place).collect()
}

/// `runs.json` for these reports.
pub fn runs(reports: &[ReportPlace], live: bool) -> Runs {
    let place = |report: &ReportPlace| RunPlace {
        name: report.name.clone(),
        path: report.path(),
    };
    Runs {
        runs: reports.iter().map(place).collect(),
        live,
    }
}

/// The file that `parts` name inside `folder`, which has no links in it; none where that is no file, or lies outside once links
/// are followed.
pub fn file_path<'a>(folder: &Path, parts: impl IntoIterator<Item = &'a str>) -> Option<PathBuf> {
    let mut path = folder.to_owned();
    for part in parts {
        if !is_plain(part) {
            return None;
        }
        path.push(part);
    }
    let path = fs::canonicalize(path).ok()?;
    // A pipe or a device would be opened otherwise, and wait.
    (path.starts_with(folder) && path.is_file()).then_some(path)
}

/// Whether a part of a path is a name as reports and the viewer have them: no hidden file, no way up, no escape left.
fn is_plain(part: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    !part.is_empty() && !part.starts_with('.') && part.chars().all(allowed)
}

/// A run's report, and the name of the run's folder.
fn report_folder(given: &Path) -> Result<(PathBuf, String), SiteError> {
    let none = || SiteError::NoReport { path: given.to_owned() };
    let inside = given.join(ReportWriter::FOLDER);
    let folder = [inside.as_path(), given]
        .into_iter()
        .find(|folder| folder.join(ReportWriter::MANIFEST).is_file())
        .ok_or_else(none)?;
    let canonical = |path: &Path| {
        fs::canonicalize(path).map_err(|source| SiteError::Read {
            path: path.to_owned(),
            source,
        })
    };
    let named = canonical(given)?;
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = match last(&named) {
        // A run's own report is called as its run.
        Some(name) if name == ReportWriter::FOLDER && folder == given => named.parent().and_then(last).unwrap_or(name),
        Some(name) => name,
        None => ReportWriter::FOLDER.to_owned(),
    };
    Ok((canonical(folder)?, name))
}

/// A name of letters, digits, `-`, `_` and `.` that looks like `name`.
fn slug(name: &str) -> String {
    let plain = |c: char| match c.is_ascii_alphanumeric() || "-_.".contains(c) {
        true => c,
        false => '-',
    };
    let slug: String = name.chars().map(plain).collect();
    match slug.trim_matches(['-', '.']) {
        "" => "run".to_owned(),
        trimmed => trimmed.to_owned(),
    }
}

/// `name`, or the first of `name-2`, `name-3`, … that is not taken.
fn distinct(name: &str, taken: &mut BTreeSet<String>) -> String {
    let mut candidate = name.to_owned();
    let mut number = 2;
    while !taken.insert(candidate.clone()) {
        candidate = format!("{name}-{number}");
        number += 1;
    }
    candidate
}
