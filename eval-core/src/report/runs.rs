//! Which reports lie beside the viewer.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::check::{check_file, check_name, inconsistent};
use crate::Error;

/// `runs.json` beside the viewer: the reports that it offers. A viewer without it opens the report that its address names.
///
/// ```
/// use eval_core::report::{RunPlace, Runs, read_chunk};
///
/// let runs: Runs = read_chunk(r#"{"runs": [{"name": "demo", "path": "runs/demo/"}], "live": true}"#.as_bytes())?;
/// runs.check()?;
/// assert_eq!(runs.runs[0].path, "runs/demo/");
/// assert!(runs.live);
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Runs {
    /// The reports, in the order in which they were asked for.
    pub runs: Vec<RunPlace>,
    /// Whether a server gives the reports as they stand, so that those of runs that still train grow.
    #[serde(default)]
    pub live: bool,
}

/// A report beside the viewer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunPlace {
    /// What it is called, unlike all others.
    pub name: String,
    /// The folder of its manifest, relative to the viewer's page, with a slash at the end.
    pub path: String,
}

impl Runs {
    /// The file's name.
    pub const FILE: &'static str = "runs.json";

    /// Whether every run has a name of its own and lies beside the viewer.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent) with the field.
    pub fn check(&self) -> Result<(), Error> {
        let mut names = BTreeSet::new();
        for (place, run) in self.runs.iter().enumerate() {
            let field = |name: &str| format!("runs[{place}].{name}");
            check_name(field("name"), &run.name, &mut names)?;
            match run.path.strip_suffix('/') {
                Some(folder) => check_file(field("path"), folder)?,
                None => {
                    return inconsistent(
                        field("path"),
                        &"a folder with a slash at the end",
                        &format_args!("{:?}", run.path),
                    );
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn message(runs: &[(&str, &str)]) -> String {
        let runs = runs.iter().map(|&(name, path)| RunPlace {
            name: name.into(),
            path: path.into(),
        });
        let runs = Runs {
            runs: runs.collect(),
            live: false,
        };
        runs.check().unwrap_err().to_string()
    }

    #[test]
    fn two_runs_of_one_name_are_an_error() {
        assert_eq!(
            message(&[("a", "runs/a/"), ("a", "runs/a-2/")]),
            "runs[1].name: expected a name of its own, found \"a\" again"
        );
    }

    #[test]
    fn runs_lie_beside_the_viewer() {
        for path in ["../a/", "https://elsewhere/", "/a/", "a//b/", "/", "a\\b/"] {
            let message = message(&[("a", path)]);
            assert!(message.starts_with("runs[0].path: expected a path"), "{message}");
        }
        assert_eq!(
            message(&[("a", "runs/a")]),
            "runs[0].path: expected a folder with a slash at the end, found \"runs/a\""
        );
    }
}
