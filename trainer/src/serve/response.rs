//! Writing answers.

use std::borrow::Cow;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::time::SystemTime;

/// What every answer says besides: keep nothing without asking again, guess no types, run and load nothing from elsewhere, be
/// shown in no other site's page, be read by none.
const ALWAYS: [(&str, &str); 6] = [
    ("Cache-Control", "no-cache"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Referrer-Policy", "no-referrer"),
    ("Server", concat!("langptune/", env!("CARGO_PKG_VERSION"))),
    ("X-Content-Type-Options", "nosniff"),
];

/// The viewer's own scripts, its module, styles that it computes, and what it draws; nothing else.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; \
    style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; \
    frame-ancestors 'none'";

/// Statuses that are answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Whole,
    Part,
    NotModified,
    BadRequest,
    NotFound,
    MethodNotAllowed,
    NoSuchRange,
    Misdirected,
    HeadTooLarge,
    Unreadable,
}

impl Status {
    /// Its number and name (RFC 9110; 431 is RFC 6585's).
    fn line(self) -> &'static str {
        match self {
            Self::Whole => "200 OK",
            Self::Part => "206 Partial Content",
            Self::NotModified => "304 Not Modified",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::NoSuchRange => "416 Range Not Satisfiable",
            Self::Misdirected => "421 Misdirected Request",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::Unreadable => "500 Internal Server Error",
        }
    }

    /// For whoever reads the answer.
    fn explanation(self) -> &'static str {
        match self {
            Self::Misdirected => {
                "langptune view answers under http://127.0.0.1 and http://localhost with its own port: forward that very port."
            }
            Self::MethodNotAllowed => "Only GET and HEAD.",
            Self::NotFound => "Nothing is here.",
            Self::Unreadable => "The file could not be read.",
            _ => "",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Response<'a> {
    status: Status,
    headers: Vec<(&'static str, Cow<'static, str>)>,
    body: Body<'a>,
}

/// What an answer carries.
#[derive(Debug)]
pub(super) enum Body<'a> {
    /// Bytes at hand.
    Bytes(Cow<'a, [u8]>),
    /// A part of a file: `length` bytes from `first` on.
    File { file: File, first: u64, length: u64 },
    /// None, not even an empty one.
    None,
}

impl Body<'_> {
    fn length(&self) -> Option<u64> {
        match self {
            Self::Bytes(bytes) => Some(bytes.len() as u64),
            Self::File { length, .. } => Some(*length),
            Self::None => None,
        }
    }
}

impl<'a> Response<'a> {
    pub(super) fn new(status: Status, body: Body<'a>) -> Self {
        Self {
            status,
            headers: Vec::new(),
            body,
        }
    }

    /// An answer that gives nothing but its reason.
    pub(super) fn refusal(status: Status) -> Self {
        let text = format!("{}\n{}\n", status.line(), status.explanation());
        let response = Self::new(status, Body::Bytes(Cow::Owned(text.into_bytes())));
        let response = response.with("Content-Type", "text/plain; charset=utf-8");
        match status {
            Status::MethodNotAllowed => response.with("Allow", "GET, HEAD"),
            _ => response,
        }
    }

    /// The same with another header line.
    pub(super) fn with(mut self, name: &'static str, value: impl Into<Cow<'static, str>>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// Sends it, for a HEAD without its body.
    pub(super) fn write(self, out: &mut impl Write, head: bool, closes: bool) -> io::Result<()> {
        let mut text = format!("HTTP/1.1 {}\r\n", self.status.line());
        let mut line = |name: &str, value: &str| {
            text.push_str(&format!("{name}: {value}\r\n"));
        };
        line("Date", &httpdate::fmt_http_date(SystemTime::now()));
        ALWAYS.iter().for_each(|(name, value)| line(name, value));
        self.headers.iter().for_each(|(name, value)| line(name, value));
        if let Some(length) = self.body.length() {
            line("Content-Length", &length.to_string());
        }
        if closes {
            line("Connection", "close");
        }
        text.push_str("\r\n");
        out.write_all(text.as_bytes())?;
        match self.body {
            _ if head => {}
            Body::None => {}
            Body::Bytes(bytes) => out.write_all(&bytes)?,
            Body::File {
                mut file,
                first,
                length,
            } => {
                file.seek(SeekFrom::Start(first))?;
                let sent = io::copy(&mut file.take(length), out)?;
                if sent != length {
                    // The length is promised: only an ended connection says that the rest is missing.
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
        out.flush()
    }
}
