//! `view` and `report bundle`.

use std::fs;
use std::process::Command;

use insta::assert_snapshot;

use super::{page, page_in};

/// A folder with a run that has an empty report, and a site of one page.
fn with_report() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("run/report")).unwrap();
    fs::create_dir_all(folder.path().join("site")).unwrap();
    let manifest = fs::File::create(folder.path().join("run/report/manifest.json")).unwrap();
    eval_core::report::write_json(manifest, &eval_core::report::Manifest::default()).unwrap();
    fs::write(folder.path().join("site/index.html"), "<p>the page</p>").unwrap();
    folder
}

#[test]
fn help_of_view() {
    assert_snapshot!(page("view --help"), @r"
    exit code 0
    --- stdout
    Show runs in the browser, those that still train included

    The address is printed; Ctrl-C ends it.

    Usage: langptune view [OPTIONS] <RUN>...

    Arguments:
      <RUN>...
              Folders of training runs, or of reports

    Options:
          --port <N>
              Port on 127.0.0.1; 0 takes any that is free [default: 7860, or any that is free]

          --no-open
              Do not open a browser

      -h, --help
              Print help (see a summary with '-h')

    Examples:
      langptune view run
      langptune view runs/* --port 8000 --no-open

    Reports are served to browsers on this machine alone. From another one, forward the same port:
      ssh -L 7860:127.0.0.1:7860 HOST
    --- stderr
    ");
}

#[test]
fn help_of_report_bundle() {
    assert_snapshot!(page("report bundle --help"), @r"
    exit code 0
    --- stdout
    Write the viewer with reports in it, as a folder for any static host or as one HTML file

    Usage: langptune report bundle [OPTIONS] <--out <DIR>|--single-file <HTML>> <RUN>...

    Arguments:
      <RUN>...  Folders of training runs, or of reports

    Options:
          --out <DIR>           Folder to write; it must not exist, or be empty [alias: --output]
          --single-file <HTML>  HTML file to write
          --redact              Leave out reviews, prompts, profiles, histories, users' ids, vectors and
                                text indexes
          --overwrite           Replace an earlier bundle
      -h, --help                Print help

    Examples:
      langptune report bundle run --out site
      langptune report bundle runs/a runs/b --out site --redact --overwrite
      langptune report bundle run --single-file run.html

    A site may lie on any static host under any address. One file is for reports of up to 50 MB, and
    opens from a disk.
    --- stderr
    ");
}

#[test]
fn mistakes_in_view_and_bundle() {
    let folder = with_report();
    let failed = |arguments: &str| page_in(folder.path(), arguments);
    assert_snapshot!(failed("view nowhere"), @r"
    exit code 1
    --- stdout
    --- stderr
    error: nowhere: expected a run's folder with report/manifest.json, or a report's with manifest.json; `langptune train` writes it when training begins
    ");
    assert_snapshot!(failed("report bundle run"), @r"
    exit code 2
    --- stdout
    --- stderr
    error: the following required arguments were not provided:
      <--out <DIR>|--single-file <HTML>>

    Usage: langptune report bundle <--out <DIR>|--single-file <HTML>> <RUN>...

    For more information, try '--help'.
    ");
    if option_env!("LANGPTUNE_SITE").is_none_or(str::is_empty) {
        assert_snapshot!(failed("view run"), @r"
        exit code 1
        --- stdout
        --- stderr
        error: this langptune was built without the viewer; `cargo xtask bundle` in its repository builds one with it
        ");
    }
    fs::write(
        folder.path().join("run/report/manifest.json"),
        r#"{"schema_version": 9}"#,
    )
    .unwrap();
    let newer = failed("view run --site site");
    assert!(
        newer.starts_with("exit code 1") && newer.contains("use a newer langptune"),
        "{newer}"
    );
}

#[test]
fn a_bundle_is_written_and_named() {
    let folder = with_report();
    assert_snapshot!(page_in(folder.path(), "report bundle run --site site --out shared"), @r"
    exit code 0
    --- stdout
    shared
    --- stderr
    ");
    assert!(folder.path().join("shared/runs/run/manifest.json").is_file());
    let again = page_in(folder.path(), "report bundle run --site site --out shared");
    assert!(
        again.starts_with("exit code 1") && again.contains("--overwrite"),
        "{again}"
    );
    let overwritten = page_in(folder.path(), "report bundle run --site site --out shared --overwrite");
    assert!(overwritten.starts_with("exit code 0"), "{overwritten}");
}

#[cfg(unix)]
#[test]
fn view_serves_until_it_is_interrupted() {
    use std::io::{BufRead, BufReader, Read, Write};
    use std::os::unix::process::ExitStatusExt;
    use std::process::Stdio;

    let folder = with_report();
    let mut server = Command::new(env!("CARGO_BIN_EXE_langptune"))
        .args(["view", "run", "--site", "site", "--port", "0", "--no-open"])
        .current_dir(folder.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut url = String::new();
    BufReader::new(server.stdout.take().unwrap())
        .read_line(&mut url)
        .unwrap();
    let host = url.trim().strip_prefix("http://").unwrap().strip_suffix('/').unwrap();
    let mut stream = std::net::TcpStream::connect(host).unwrap();
    write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("<p>the page</p>"),
        "{answer}"
    );
    let interrupted = Command::new("kill").args(["-INT", &server.id().to_string()]).status();
    assert!(interrupted.unwrap().success());
    assert_eq!(server.wait().unwrap().signal(), Some(2));
}
