#![allow(clippy::unwrap_used)]

use eval_core::report::write_json;

use super::*;

/// A folder with a report's manifest in it.
fn report(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    write_json(
        fs::File::create(folder.join("manifest.json")).unwrap(),
        &eval_core::report::Manifest::default(),
    )
    .unwrap();
}

#[test]
fn a_run_and_its_report_are_the_same_place() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("first try");
    report(&run.join("report"));
    let found = find_reports(&[run.clone(), run.join("report")]).unwrap();
    let canonical = fs::canonicalize(run.join("report")).unwrap();
    assert!(found.iter().all(|report| report.folder == canonical));
    let named: Vec<_> = found
        .iter()
        .map(|report| (&report.name[..], &report.slug[..]))
        .collect();
    assert_eq!(named, [("first try", "first-try"), ("first try-2", "first-try-2")]);
    assert!(found[0].manifest().is_ok());
}

#[test]
fn names_that_look_alike_get_places_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let runs: Vec<_> = ["a b", "a-b", "..hidden", "名"]
        .iter()
        .map(|name| folder.path().join(name))
        .collect();
    runs.iter().for_each(|run| report(run));
    let found = find_reports(&runs).unwrap();
    let named: Vec<_> = found
        .iter()
        .map(|report| (&report.name[..], &report.slug[..]))
        .collect();
    assert_eq!(
        named,
        [("a b", "a-b"), ("a-b", "a-b-2"), ("..hidden", "hidden"), ("名", "run")]
    );
    let runs = runs_of(&found);
    runs.check().unwrap();
    assert_eq!(runs.runs[1].path, "runs/a-b-2/");
}

fn runs_of(found: &[ReportPlace]) -> eval_core::report::Runs {
    runs(found, true)
}

#[test]
fn a_folder_without_a_report_says_what_was_expected() {
    let folder = tempfile::tempdir().unwrap();
    let error = find_reports(&[folder.path().to_owned()]).unwrap_err().to_string();
    assert!(error.contains("report/manifest.json"), "{error}");
    let error = find_reports(&[folder.path().join("missing")]).unwrap_err().to_string();
    assert!(error.contains("missing: expected a run's folder"), "{error}");
}

#[test]
fn only_files_inside_a_folder_have_a_path() {
    let outer = tempfile::tempdir().unwrap();
    let outer = fs::canonicalize(outer.path()).unwrap();
    let folder = outer.join("report");
    fs::create_dir_all(folder.join("checkpoints")).unwrap();
    fs::write(outer.join("secret"), "secret").unwrap();
    fs::write(folder.join("items-0.json"), "{}").unwrap();
    fs::write(folder.join(".items-0.json.tmp"), "{}").unwrap();
    let path = |parts: &[&str]| file_path(&folder, parts.iter().copied());
    assert_eq!(path(&["items-0.json"]), Some(folder.join("items-0.json")));
    for parts in [
        &["..", "secret"][..],
        &["checkpoints", "..", "..", "secret"],
        &["checkpoints", "..", "items-0.json"],
        &["../secret"],
        &["..\\secret"],
        &[".", "items-0.json"],
        &["", "items-0.json"],
        &["items-0.json\0"],
        &[".items-0.json.tmp"],
        &["checkpoints"],
        &["items-1.json"],
        &[],
    ] {
        assert_eq!(path(parts), None, "{parts:?}");
    }
}

#[cfg(unix)]
#[test]
fn links_that_lead_out_have_no_path() {
    use std::os::unix::fs::symlink;

    let outer = tempfile::tempdir().unwrap();
    let outer = fs::canonicalize(outer.path()).unwrap();
    let folder = outer.join("report");
    fs::create_dir_all(&folder).unwrap();
    // A neighbour whose name begins as the folder's.
    fs::create_dir_all(outer.join("report-2")).unwrap();
    fs::write(outer.join("report-2/secret"), "secret").unwrap();
    fs::write(folder.join("inside"), "inside").unwrap();
    symlink("inside", folder.join("link")).unwrap();
    symlink("../report-2/secret", folder.join("leak")).unwrap();
    symlink("../report-2", folder.join("leaks")).unwrap();
    assert_eq!(file_path(&folder, ["link"]), Some(folder.join("inside")));
    assert_eq!(file_path(&folder, ["leak"]), None);
    assert_eq!(file_path(&folder, ["leaks", "secret"]), None);
}

#[test]
fn a_site_is_a_folder_with_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let error = Site::read(folder.path()).unwrap_err().to_string();
    assert!(error.contains("a built viewer with index.html"), "{error}");
    fs::write(folder.path().join("index.html"), "<p>").unwrap();
    fs::create_dir(folder.path().join("parts")).unwrap();
    fs::write(folder.path().join("parts/a.js"), "1").unwrap();
    let site = Site::read(folder.path()).unwrap();
    let names: Vec<&str> = site.files().map(|(name, _)| name).collect();
    assert_eq!(names, ["index.html", "parts/a.js"]);
    assert_eq!(site.get("parts/a.js"), Some(&b"1"[..]));
}
