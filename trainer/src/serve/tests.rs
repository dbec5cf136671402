//! Every rule of the server, asked over TCP as a browser, or somebody with worse intentions, would.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};

use eval_core::report::{Manifest, Runs, read_chunk, write_json};
use flate2::read::GzDecoder;
use tempfile::TempDir;

use super::*;
use crate::site::find_reports;

const SCRIPT: &str = "export const answer = 42;\n";

/// A server over a site and a run, and what lies around them.
struct Place {
    outer: TempDir,
    port: u16,
}

impl Place {
    fn served() -> Self {
        let outer = tempfile::tempdir().unwrap();
        let (site, run) = (outer.path().join("site"), outer.path().join("demo"));
        fs::create_dir_all(&site).unwrap();
        fs::create_dir_all(run.join("report/checkpoints")).unwrap();
        fs::write(site.join("index.html"), "<!doctype html><title>viewer</title>").unwrap();
        fs::write(site.join("viewer.js"), SCRIPT.repeat(100)).unwrap();
        fs::write(site.join("viewer_bg.wasm"), b"\0asm").unwrap();
        fs::write(run.join("secret"), "secret").unwrap();
        let manifest = fs::File::create(run.join("report/manifest.json")).unwrap();
        write_json(manifest, &Manifest::default()).unwrap();
        fs::write(run.join("report/items.f16"), (0..=255).collect::<Vec<u8>>()).unwrap();
        fs::write(run.join("report/users-0.json"), users()).unwrap();
        let reports = find_reports(&[run]).unwrap();
        let server = Server::bind(Some(0), Site::read(&site).unwrap(), reports).unwrap();
        let port = server.port();
        std::thread::spawn(move || server.run());
        Self { outer, port }
    }

    fn report(&self) -> PathBuf {
        self.outer.path().join("demo/report")
    }

    fn connect(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).unwrap()
    }

    /// The answer to these very bytes.
    fn raw(&self, text: &str) -> Answer {
        let mut stream = self.connect();
        stream.write_all(text.as_bytes()).unwrap();
        Answer::read(&mut stream, false)
    }

    /// The answer to a request with these header lines besides the host.
    fn ask(&self, method: &str, path: &str, lines: &[&str]) -> Answer {
        let mut text = format!("{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\n", self.port);
        lines.iter().for_each(|line| text.push_str(&format!("{line}\r\n")));
        let mut stream = self.connect();
        stream.write_all((text + "\r\n").as_bytes()).unwrap();
        Answer::read(&mut stream, method == "HEAD")
    }

    fn get(&self, path: &str, lines: &[&str]) -> Answer {
        self.ask("GET", path, lines)
    }
}

/// Text that packs well, long enough to be packed.
fn users() -> String {
    "{\"first\":0,\"users\":[".to_owned() + &"{\"id\":\"u\"},".repeat(500) + "]}"
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    /// Reads one answer, and no more than its length says.
    fn read(stream: &mut TcpStream, head: bool) -> Self {
        let (mut text, mut byte) = (Vec::new(), [0]);
        while !text.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            text.push(byte[0]);
        }
        let text = String::from_utf8(text).unwrap();
        let mut lines = text.trim_end().split("\r\n");
        let status = lines.next().unwrap().split(' ').nth(1).unwrap().parse().unwrap();
        let header = |line: &str| {
            let (name, value) = line.split_once(": ").unwrap();
            (name.to_ascii_lowercase(), value.to_owned())
        };
        let mut answer = Self {
            status,
            headers: lines.map(header).collect(),
            body: Vec::new(),
        };
        if !head && let Some(length) = answer.header("content-length") {
            answer.body = vec![0; length.parse().unwrap()];
            stream.read_exact(&mut answer.body).unwrap();
        }
        answer
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(own, _)| own == name);
        let value = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} twice");
        value
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

#[test]
fn the_page_its_files_and_the_reports_are_there() {
    let place = Place::served();
    let page = place.get("/", &[]);
    assert_eq!(
        (page.status, page.text()),
        (200, "<!doctype html><title>viewer</title>")
    );
    assert_eq!(page.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(place.get("/index.html?theme=dark", &[]).body, page.body);
    assert_eq!(
        place.get("/viewer_bg.wasm", &[]).header("content-type"),
        Some("application/wasm")
    );
    let runs: Runs = read_chunk(&place.get("/runs.json", &[]).body[..]).unwrap();
    runs.check().unwrap();
    assert!(runs.live);
    assert_eq!((&runs.runs[0].name[..], &runs.runs[0].path[..]), ("demo", "runs/demo/"));
    let manifest = place.get("/runs/demo/manifest.json", &[]);
    assert_eq!(manifest.header("content-type"), Some("application/json"));
    assert_eq!(manifest.body, fs::read(place.report().join("manifest.json")).unwrap());
    for missing in [
        "/nothing",
        "/runs/",
        "/runs/demo",
        "/runs/demo/",
        "/runs/other/manifest.json",
        "/runs/demo/checkpoints",
    ] {
        assert_eq!(place.get(missing, &[]).status, 404, "{missing}");
    }
}

#[test]
fn nothing_outside_the_reports_folder_is_given() {
    let place = Place::served();
    for path in [
        "/runs/demo/../secret",
        "/runs/demo/../../demo/secret",
        "/runs/demo/checkpoints/../../secret",
        "/runs/demo/%2e%2e/secret",
        "/runs/demo/.%2e/secret",
        "/runs/demo/..%2fsecret",
        "/runs/demo/%2e%2e%2fsecret",
        "/runs/demo/%252e%252e/secret",
        "/runs/demo/..\\secret",
        "/runs/demo/..%5csecret",
        "/runs/demo//etc/passwd",
        "/runs/demo/%2fetc%2fpasswd",
        "/runs/demo/manifest.json%00",
        "/runs/demo/./manifest.json",
        "/../demo/secret",
        "//etc/passwd",
        "/etc/passwd",
        "/runs/../demo/secret",
    ] {
        let answer = place.get(path, &[]);
        assert_eq!(answer.status, 404, "{path}");
        assert!(!answer.text().contains("secret"), "{path}");
    }
    assert_eq!(place.get("/runs/demo/manifest.json\0", &[]).status, 400);
    assert_eq!(place.get("*", &[]).status, 400);
}

#[cfg(unix)]
#[test]
fn links_are_followed_inside_the_report_alone() {
    use std::os::unix::fs::symlink;

    let place = Place::served();
    symlink("../secret", place.report().join("leak.json")).unwrap();
    symlink("..", place.report().join("up")).unwrap();
    symlink("users-0.json", place.report().join("same.json")).unwrap();
    symlink("/dev/zero", place.report().join("endless.json")).unwrap();
    for path in [
        "/runs/demo/leak.json",
        "/runs/demo/up/secret",
        "/runs/demo/endless.json",
    ] {
        assert_eq!(place.get(path, &[]).status, 404, "{path}");
    }
    assert_eq!(place.get("/runs/demo/same.json", &[]).text(), users());
}

#[test]
fn files_that_are_being_written_are_not_given() {
    let place = Place::served();
    fs::write(place.report().join(".manifest.json.tmp"), "{").unwrap();
    assert_eq!(place.get("/runs/demo/.manifest.json.tmp", &[]).status, 404);
}

#[test]
fn only_get_and_head_are_answered() {
    let place = Place::served();
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "CONNECT"] {
        let answer = place.ask(method, "/", &[]);
        assert_eq!(
            (answer.status, answer.header("allow")),
            (405, Some("GET, HEAD")),
            "{method}"
        );
    }
    let refused = place.raw(&format!(
        "POST / HTTP/1.1\r\nHost: localhost:{}\r\nContent-Length: 9\r\n\r\nGET / HTT",
        place.port
    ));
    assert_eq!((refused.status, refused.header("connection")), (405, Some("close")));
    for path in ["/", "/runs/demo/users-0.json", "/runs/demo/items.f16"] {
        let (get, head) = (place.get(path, &[]), place.ask("HEAD", path, &[]));
        assert_eq!((head.status, head.body.len()), (200, 0));
        let without_date = |answer: &Answer| {
            let headers = answer.headers.iter().filter(|(name, _)| name != "date");
            headers.cloned().collect::<Vec<_>>()
        };
        assert_eq!(without_date(&head), without_date(&get), "{path}");
    }
}

#[test]
fn another_host_is_not_ours() {
    let place = Place::served();
    let port = place.port;
    let with = |host: &str| place.raw(&format!("GET / HTTP/1.1\r\n{host}\r\n")).status;
    for host in ["127.0.0.1", "localhost", "LocalHost", "[::1]"] {
        assert_eq!(with(&format!("Host: {host}:{port}\r\n")), 200, "{host}");
        assert_eq!(with(&format!("Host: {host}\r\n")), 421, "{host} without our port");
    }
    for host in [
        format!("evil.example:{port}"),
        format!("127.0.0.1.evil.example:{port}"),
        format!("evil-localhost:{port}"),
        format!("user@localhost:{port}"),
        format!("127.0.0.1:{}", port ^ 1),
        format!("0.0.0.0:{port}"),
        String::new(),
    ] {
        assert_eq!(with(&format!("Host: {host}\r\n")), 421, "{host}");
    }
    assert_eq!(with(""), 421, "no host");
    let twice = format!("Host: localhost:{port}\r\nHost: evil.example:{port}\r\n");
    assert_eq!(with(&twice), 421, "two hosts");
    let absolute = |host: &str| {
        place
            .raw(&format!(
                "GET http://{host}:{port}/ HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n"
            ))
            .status
    };
    assert_eq!((absolute("127.0.0.1"), absolute("evil.example")), (200, 421));
}

#[test]
fn every_answer_keeps_other_sites_out() {
    let place = Place::served();
    for answer in [
        place.get("/", &[]),
        place.get("/runs/demo/users-0.json", &["Origin: https://evil.example"]),
        place.get("/nothing", &[]),
        place.ask("POST", "/", &[]),
        place.get("/runs/demo/items.f16", &["Range: bytes=0-3"]),
        place.raw("GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
        place.raw("nonsense\r\n\r\n"),
    ] {
        let status = answer.status;
        assert_eq!(
            answer.header("content-security-policy"),
            Some(
                "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; style-src 'self' 'unsafe-inline'; \
                 img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
            ),
            "{status}"
        );
        assert_eq!(answer.header("x-content-type-options"), Some("nosniff"), "{status}");
        assert_eq!(answer.header("cache-control"), Some("no-cache"), "{status}");
        assert_eq!(
            answer.header("cross-origin-resource-policy"),
            Some("same-origin"),
            "{status}"
        );
        assert!(answer.header("date").unwrap().ends_with(" GMT"), "{status}");
        let shared = answer
            .headers
            .iter()
            .any(|(name, _)| name.starts_with("access-control-"));
        assert!(!shared, "{status}");
    }
}

#[test]
fn parts_of_a_file_are_given() {
    let place = Place::served();
    let whole: Vec<u8> = (0..=255).collect();
    let ask = |range: &str| place.get("/runs/demo/items.f16", &[&format!("Range: {range}")]);
    for (range, from, to) in [
        ("bytes=16-31", 16, 32),
        ("bytes=250-", 250, 256),
        ("bytes=-4", 252, 256),
        ("bytes=250-999", 250, 256),
    ] {
        let answer = ask(range);
        assert_eq!((answer.status, &answer.body[..]), (206, &whole[from..to]), "{range}");
        let expected = format!("bytes {from}-{}/256", to - 1);
        assert_eq!(answer.header("content-range"), Some(expected.as_str()), "{range}");
    }
    let beyond = ask("bytes=256-");
    assert_eq!(
        (beyond.status, beyond.header("content-range")),
        (416, Some("bytes */256"))
    );
    for range in ["bytes=0-1,4-5", "bytes=5-4", "lines=0-1"] {
        let answer = ask(range);
        assert_eq!((answer.status, &answer.body), (200, &whole), "{range}");
    }
    // Parts are of the file as it is, not of its packed form; the viewer's own files have them too.
    let text = place.get("/viewer.js", &["Range: bytes=7-11", "Accept-Encoding: gzip"]);
    assert_eq!(
        (text.status, text.text(), text.header("content-encoding")),
        (206, "const", None)
    );
    let tag = place
        .get("/runs/demo/items.f16", &[])
        .header("etag")
        .unwrap()
        .to_owned();
    let if_range = |tag: &str| {
        let lines = ["Range: bytes=0-3", &format!("If-Range: {tag}")];
        place.get("/runs/demo/items.f16", &lines).status
    };
    assert_eq!((if_range(&tag), if_range("\"older\"")), (206, 200));
}

/// What a packed answer holds.
fn unpacked(answer: &Answer) -> String {
    let mut text = String::new();
    match answer.header("content-encoding") {
        Some("gzip") => GzDecoder::new(&answer.body[..]).read_to_string(&mut text).unwrap(),
        Some("br") => brotli::Decompressor::new(&answer.body[..], 4096)
            .read_to_string(&mut text)
            .unwrap(),
        other => panic!("{other:?} is no coding"),
    };
    text
}

#[test]
fn text_is_packed_for_those_who_take_it() {
    let place = Place::served();
    let (report, viewer) = ("/runs/demo/users-0.json", "/viewer.js");
    for (path, expected) in [(report, users()), (viewer, SCRIPT.repeat(100))] {
        let coding_of = |accepted: &str| {
            let answer = place.get(path, &[&format!("Accept-Encoding: {accepted}")]);
            assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
            let coding = answer.header("content-encoding").map(str::to_owned);
            match coding {
                None => assert_eq!(answer.text(), expected, "{accepted}"),
                Some(_) => {
                    assert!(answer.body.len() < expected.len() / 2);
                    assert_eq!(unpacked(&answer), expected, "{accepted}");
                }
            }
            coding.unwrap_or_default()
        };
        for accepted in ["gzip", "GZIP", "br;q=0, gzip", "gzip, br;q=0.0"] {
            assert_eq!(coding_of(accepted), "gzip", "{accepted}");
        }
        // Only what is packed once is packed with what takes its time.
        let best = if path == viewer { "br" } else { "gzip" };
        for accepted in ["br;q=1.0, gzip;q=0.8", "gzip, deflate, br, zstd", "*"] {
            assert_eq!(coding_of(accepted), best, "{accepted}");
        }
        assert_eq!(coding_of("br"), if path == viewer { "br" } else { "" });
        for accepted in ["identity", "gzip;q=0", "gzip;q=0, br;q=0, *", "*;q=0"] {
            assert_eq!(coding_of(accepted), "", "{accepted}");
        }
    }
    let vectors = place.get("/runs/demo/items.f16", &["Accept-Encoding: gzip, br"]);
    assert_eq!(vectors.header("content-encoding"), None);
    let tag = |accepted: &str| {
        let answer = place.get(viewer, &[&format!("Accept-Encoding: {accepted}")]);
        answer.header("etag").unwrap().to_owned()
    };
    let tags = [tag("identity"), tag("gzip"), tag("br")];
    assert!(
        tags[0] != tags[1] && tags[1] != tags[2] && tags[0] != tags[2],
        "three forms, three tags"
    );
    for tag in &tags {
        assert_eq!(place.get(viewer, &[&format!("If-None-Match: {tag}")]).status, 304);
    }
}

#[test]
fn what_has_not_changed_is_not_sent_again() {
    let place = Place::served();
    let path = "/runs/demo/users-0.json";
    let tag = |answer: &Answer| answer.header("etag").unwrap().to_owned();
    let (plain, packed) = (
        tag(&place.get(path, &[])),
        tag(&place.get(path, &["Accept-Encoding: gzip"])),
    );
    assert_ne!(plain, packed, "two forms, two tags");
    let again = |tag: &str| place.get(path, &[&format!("If-None-Match: {tag}")]);
    for tag in [&plain, &packed, &format!("\"x\", W/{plain}")] {
        let answer = again(tag);
        assert_eq!((answer.status, answer.body.len()), (304, 0), "{tag}");
        assert_eq!(answer.header("content-length"), None);
        assert!(answer.header("etag").is_some());
    }
    assert_eq!(again("\"x\"").status, 200);
    // A file that takes its place is another one, even of the same length.
    let next = place.report().join("next");
    fs::write(&next, users().replace('u', "v")).unwrap();
    fs::rename(next, place.report().join("users-0.json")).unwrap();
    let answer = again(&plain);
    assert_eq!((answer.status, answer.text()), (200, &users().replace('u', "v")[..]));
    let page = tag(&place.get("/", &[]));
    assert_eq!(place.get("/", &[&format!("If-None-Match: {page}")]).status, 304);
}

#[test]
fn a_connection_is_used_again() {
    let place = Place::served();
    let mut stream = place.connect();
    for _ in 0..3 {
        let host = format!("Host: localhost:{}\r\n", place.port);
        write!(
            stream,
            "GET /runs/demo/items.f16 HTTP/1.1\r\n{host}\r\nHEAD / HTTP/1.1\r\n{host}\r\n"
        )
        .unwrap();
        let (first, second) = (Answer::read(&mut stream, false), Answer::read(&mut stream, true));
        assert_eq!((first.status, first.body.len()), (200, 256));
        assert_eq!((second.status, second.header("connection")), (200, None));
    }
}

#[test]
fn what_is_no_request_is_refused() {
    let place = Place::served();
    assert_eq!(place.raw("nonsense\r\n\r\n").status, 400);
    assert_eq!(place.raw("GET / HTTP/9.9\r\n\r\n").status, 400);
    let long = format!("GET / HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(place.raw(&long).status, 431);
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "X: y\r\n".repeat(100));
    assert_eq!(place.raw(&many).status, 431);
}

#[test]
fn a_taken_port_is_an_error_unless_any_will_do() {
    let place = Place::served();
    let site = || Site::read(&place.outer.path().join("site")).unwrap();
    let error = Server::bind(Some(place.port), site(), Vec::new())
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(&format!("cannot listen on 127.0.0.1:{}", place.port)),
        "{error}"
    );
    let (first, second) = (
        Server::bind(None, site(), Vec::new()).unwrap(),
        Server::bind(None, site(), Vec::new()).unwrap(),
    );
    assert_ne!(first.port(), second.port());
    assert!(first.url().starts_with("http://127.0.0.1:"));
}

#[test]
fn a_report_that_is_written_anew_is_followed() {
    let place = Place::served();
    let folder: &Path = &place.report();
    fs::remove_dir_all(folder).unwrap();
    assert_eq!(place.get("/runs/demo/manifest.json", &[]).status, 404);
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("manifest.json"), "{}").unwrap();
    assert_eq!(place.get("/runs/demo/manifest.json", &[]).text(), "{}");
}
