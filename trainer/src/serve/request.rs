//! Reading requests.

use std::io::{self, Read};

use super::response::Status;

/// Bytes of a request's head. Browsers send under two thousand here.
const MAX_HEAD_BYTES: usize = 16 << 10;
/// Header lines of a request.
const MAX_HEADERS: usize = 64;

/// A request's head; bodies are of no use to us and not read.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) method: String,
    target: String,
    headers: Vec<(String, String)>,
    /// Whether the connection ends with the answer.
    pub(super) closes: bool,
}

/// What came over a connection.
#[derive(Debug)]
pub(super) enum Incoming {
    /// A request.
    Request(Request),
    /// What is none; the connection ends with the answer.
    Refused(Status),
    /// The other side has nothing more to ask.
    End,
}

/// Reads the next head; `buffer` holds what was read beyond the last one.
pub(super) fn read_request(stream: &mut impl Read, buffer: &mut Vec<u8>) -> io::Result<Incoming> {
    loop {
        match parse(buffer) {
            Ok(Some((request, length))) => {
                buffer.drain(..length);
                return Ok(Incoming::Request(request));
            }
            Ok(None) if buffer.len() >= MAX_HEAD_BYTES => return Ok(Incoming::Refused(Status::HeadTooLarge)),
            Ok(None) => {}
            Err(status) => return Ok(Incoming::Refused(status)),
        }
        let mut part = [0; 4096];
        match stream.read(&mut part)? {
            0 => return Ok(Incoming::End),
            read => buffer.extend_from_slice(&part[..read]),
        }
    }
}

/// A head and its length; `None` where it is not whole yet.
fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Status> {
    let mut lines = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut lines);
    let length = match head.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
        Err(_) => return Err(Status::BadRequest),
    };
    let (Some(method), Some(target), Some(version)) = (head.method, head.path, head.version) else {
        return Err(Status::BadRequest);
    };
    let headers = head.headers.iter().map(|header| {
        let value = String::from_utf8_lossy(header.value);
        (header.name.to_ascii_lowercase(), value.trim().to_owned())
    });
    let mut request = Request {
        method: method.to_owned(),
        target: target.to_owned(),
        headers: headers.collect(),
        closes: false,
    };
    let asked = request
        .all("connection")
        .any(|value| value.eq_ignore_ascii_case("close"));
    // A body would be taken for the next head.
    request.closes = version == 0 || asked || request.has_body();
    Ok(Some((request, length)))
}

impl Request {
    /// The value of a header, by its name in lower case; the first where there are several.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a header, by its name in lower case.
    pub(super) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = self.headers.iter().filter(move |(own, _)| own == name);
        named.map(|(_, value)| value.as_str())
    }

    /// The host that the target itself names, as requests to proxies do.
    pub(super) fn authority(&self) -> Option<&str> {
        let (_, rest) = self
            .target
            .split_once("://")
            .filter(|_| !self.target.starts_with('/'))?;
        rest.split(['/', '?', '#']).next()
    }

    /// The path after its first slash, as it is written, without the query; none where the target is no path.
    pub(super) fn path(&self) -> Option<&str> {
        let target = match self.authority() {
            // Scheme and host are left out.
            Some(_) => self
                .target
                .split_once("://")?
                .1
                .split_once('/')
                .map_or("/", |(_, path)| path),
            None => self.target.strip_prefix('/')?,
        };
        target.split(['?', '#']).next()
    }

    /// Whether the request is a HEAD, whose answer has no body.
    pub(super) fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    fn has_body(&self) -> bool {
        self.header("transfer-encoding").is_some() || self.all("content-length").any(|length| length != "0")
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn request(text: &str) -> Request {
        parse(text.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_path_is_what_stands_between_host_and_query() {
        for (target, path) in [
            ("/", Some("")),
            ("/runs.json?x=/1#y", Some("runs.json")),
            ("//runs.json", Some("/runs.json")),
            ("http://localhost:1/a/b?c", Some("a/b")),
            ("/a?b=http://c/d", Some("a")),
            ("*", None),
            ("runs.json", None),
        ] {
            let request = request(&format!("GET {target} HTTP/1.1\r\n\r\n"));
            assert_eq!(request.path(), path, "{target}");
        }
        let absolute = request("GET http://elsewhere:1/a HTTP/1.1\r\n\r\n");
        assert_eq!(absolute.authority(), Some("elsewhere:1"));
        assert_eq!(request("GET /http://a/ HTTP/1.1\r\n\r\n").authority(), None);
    }

    #[test]
    fn a_connection_lives_on_unless_there_is_a_reason() {
        let closes = |version: &str, lines: &str| request(&format!("GET / {version}\r\n{lines}\r\n")).closes;
        assert!(!closes("HTTP/1.1", ""));
        assert!(!closes("HTTP/1.1", "Content-Length: 0\r\n"));
        assert!(closes("HTTP/1.0", ""));
        assert!(closes("HTTP/1.1", "Connection: Close\r\n"));
        assert!(closes("HTTP/1.1", "Content-Length: 5\r\n"));
        assert!(closes("HTTP/1.1", "Transfer-Encoding: chunked\r\n"));
    }

    #[test]
    fn heads_that_come_in_pieces_or_together_are_read_one_by_one() {
        /// Gives a byte at a time.
        struct Slowly<'a>(&'a [u8]);
        impl Read for Slowly<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                self.0.read(&mut into[..1])
            }
        }
        let text = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        for whole in [true, false] {
            let (mut fast, mut slow) = (&text[..], Slowly(text));
            let stream: &mut dyn Read = if whole { &mut fast } else { &mut slow };
            let (mut buffer, mut paths, mut stream) = (Vec::new(), Vec::new(), stream);
            while let Incoming::Request(request) = read_request(&mut stream, &mut buffer).unwrap() {
                paths.push(request.path().unwrap().to_owned());
            }
            assert_eq!(paths, ["a", "b"]);
        }
    }
}
