//! Which reports the viewer can open.

use eval_core::report::{RunPlace, Runs, read_chunk};

use crate::address::BESIDE_THE_VIEWER;
use crate::fetch;

/// The name of a report that no list of runs names.
const ONLY_RUN: &str = "report";

/// The runs that the page offers: the report that its own query names, or else those of `runs.json`, or else the report
/// beside the viewer.
///
/// # Errors
/// A `runs.json` that is there and cannot be read, in words for the page.
pub async fn offered(named: Option<String>) -> Result<Runs, String> {
    if let Some(folder) = named {
        return Ok(only(folder));
    }
    match fetch::bytes(Runs::FILE).await {
        Ok(bytes) => parse(&bytes),
        Err(error) if error.is_absent() => Ok(only(BESIDE_THE_VIEWER.to_owned())),
        Err(error) => Err(error.to_string()),
    }
}

fn only(path: String) -> Runs {
    let name = ONLY_RUN.to_owned();
    Runs {
        runs: vec![RunPlace { name, path }],
        live: false,
    }
}

fn parse(bytes: &[u8]) -> Result<Runs, String> {
    let whole = |runs: Runs| runs.check().map(|()| runs);
    let runs = read_chunk(bytes).and_then(whole);
    let runs = runs.map_err(|error| format!("{}: {error}", Runs::FILE))?;
    match runs.runs.is_empty() {
        true => Err("runs.json names no run: start `langptune view` with the folder of one".to_owned()),
        false => Ok(runs),
    }
}

/// The run of that name; the first for an empty name.
pub fn chosen<'a>(runs: &'a Runs, name: &str) -> Option<&'a RunPlace> {
    match name {
        "" => runs.runs.first(),
        name => runs.runs.iter().find(|run| run.name == name),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn a_run_is_chosen_by_name_and_the_first_without_one() {
        let json = r#"{"runs": [{"name": "a", "path": "runs/a/"}, {"name": "b", "path": "runs/b/"}], "live": true}"#;
        let runs = parse(json.as_bytes()).unwrap();
        assert!(runs.live);
        let path = |name: &str| chosen(&runs, name).map(|run| run.path.as_str());
        assert_eq!(
            (path(""), path("b"), path("c")),
            (Some("runs/a/"), Some("runs/b/"), None)
        );
    }

    #[test]
    fn a_list_without_runs_and_a_broken_list_are_problems() {
        assert!(
            parse(br#"{"runs": [], "live": false}"#)
                .unwrap_err()
                .contains("names no run")
        );
        assert!(parse(b"{").unwrap_err().starts_with("runs.json: "));
    }
}
