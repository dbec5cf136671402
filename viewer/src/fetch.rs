//! The bytes of a file: from the page itself where it holds the file, else over HTTP.

use std::ops::Range;

use thiserror::Error;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::js_sys::{Object, Promise, Reflect, Uint8Array};
use web_sys::{
    ReadableStream, ReadableStreamDefaultReader, ReadableWritablePair, RequestCache, RequestInit, Response, Window,
    WritableStream,
};

/// Why a file could not be read.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FetchError {
    /// No answer at all: a wrong address, no network, or a host that does not let other sites read it.
    #[error(
        "{url} could not be reached ({reason}): is the address right, and does its host allow other sites to read it?"
    )]
    Unreachable {
        /// The file's address.
        url: String,
        /// What the browser says.
        reason: String,
    },
    /// An answer other than success.
    #[error("{url} answered with HTTP status {status}")]
    Status {
        /// The file's address.
        url: String,
        /// The status, such as 404.
        status: u16,
    },
    /// The page holds the file, but not whole.
    #[error("{url}, which is inside this page, could not be unpacked ({reason}): the page was damaged, get it again")]
    Damaged {
        /// The file's name in the page.
        url: String,
        /// What the browser says.
        reason: String,
    },
}

impl FetchError {
    /// Whether there is no such file, as far as one can tell.
    pub fn is_absent(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Status { status, .. } => matches!(status, 404 | 410),
            Self::Damaged { .. } => false,
        }
    }
}

/// The bytes of the file at `url`, which is relative to the page or a whole address.
///
/// A page that is a report in one file has it as `<script type="text/plain" data-file="URL"
/// data-encoding="gzip+base64">`.
///
/// # Errors
/// [`FetchError`].
pub async fn bytes(url: &str) -> Result<Vec<u8>, FetchError> {
    open(url, None).await?.content().await
}

/// Some of the file's bytes; fewer where it ends before. A host that gives only whole files is read as far as that, and no more
/// than the part is kept.
///
/// # Errors
/// As [`bytes`].
pub async fn part(url: &str, range: Range<usize>) -> Result<Vec<u8>, FetchError> {
    let opened = match open(url, Some(&range)).await {
        // Another site's host may refuse the question for a part alone.
        Err(FetchError::Unreachable { .. }) => open(url, None).await?,
        opened => opened?,
    };
    if opened.response.status() == PARTIAL_CONTENT {
        return opened.content().await;
    }
    let mut pieces = opened.pieces()?;
    let (mut bytes, mut offset) = (Vec::with_capacity(range.len()), 0);
    while offset < range.end
        && let Some(piece) = pieces.next().await?
    {
        let length = piece.length() as usize;
        let within = overlap(&range, offset, length);
        bytes.extend(piece.subarray(within.start as u32, within.end as u32).to_vec());
        offset += length;
    }
    pieces.end();
    Ok(bytes)
}

/// What of a piece, counted from its begin, is in the range; the piece begins at `offset` of the file.
fn overlap(range: &Range<usize>, offset: usize, length: usize) -> Range<usize> {
    let inside = |place: usize| place.saturating_sub(offset).min(length);
    inside(range.start)..inside(range.end)
}

/// The status of an answer with a part of a file.
const PARTIAL_CONTENT: u16 = 206;

/// The file's bytes as they arrive.
///
/// # Errors
/// As [`bytes`].
pub async fn pieces(url: &str) -> Result<Pieces, FetchError> {
    open(url, None).await?.pieces()
}

/// A file that is being read.
#[derive(Debug)]
pub struct Pieces {
    opened: Opened,
    reader: ReadableStreamDefaultReader,
}

impl Pieces {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// As [`bytes`].
    pub async fn next(&mut self) -> Result<Option<Uint8Array>, FetchError> {
        let read = JsFuture::from(self.reader.read()).await;
        let value = read.and_then(|read| Reflect::get(&read, &JsValue::from_str("value")));
        let value = value.map_err(|reason| self.opened.problem(&reason))?;
        // At the end there is none.
        Ok(value.dyn_into().ok())
    }

    /// Nothing more is wanted.
    fn end(self) {
        // Whether the host hears of it makes no difference here.
        _ = self.reader.cancel();
    }
}

/// An answer whose content is still to be read.
#[derive(Debug)]
struct Opened {
    url: String,
    response: Response,
    is_inside: bool,
}

impl Opened {
    async fn content(self) -> Result<Vec<u8>, FetchError> {
        let content = content(self.response.array_buffer()).await;
        content.map_err(|reason| self.problem(&reason))
    }

    fn pieces(self) -> Result<Pieces, FetchError> {
        let body = self.response.body().ok_or_else(|| JsValue::from_str("it is empty"));
        let reader = body.and_then(|body| body.get_reader().dyn_into().map_err(JsValue::from));
        match reader {
            Ok(reader) => Ok(Pieces { opened: self, reader }),
            Err(reason) => Err(self.problem(&reason)),
        }
    }

    fn problem(&self, reason: &JsValue) -> FetchError {
        match self.is_inside {
            true => FetchError::Damaged {
                url: self.url.clone(),
                reason: said(reason),
            },
            false => unreachable(&self.url, reason),
        }
    }
}

async fn open(url: &str, range: Option<&Range<usize>>) -> Result<Opened, FetchError> {
    let opened = |response, is_inside| Opened {
        url: url.to_owned(),
        response,
        is_inside,
    };
    let window = web_sys::window().ok_or_else(|| unreachable(url, &JsValue::from_str("there is no window")))?;
    if let Some(text) = inline_text(&window, url) {
        let response = inflated(&window, &text).map_err(|reason| FetchError::Damaged {
            url: url.to_owned(),
            reason: said(&reason),
        });
        return Ok(opened(response?, true));
    }
    let settings = RequestInit::new();
    // A report may be written anew under the same names, so the host is asked whether a kept file is still the file.
    settings.set_cache(RequestCache::NoCache);
    if let Some(range) = range {
        let headers = Object::new();
        let value = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
        // A plain object takes any property.
        _ = Reflect::set(&headers, &JsValue::from_str("Range"), &JsValue::from_str(&value));
        settings.set_headers(&headers);
    }
    let answer = JsFuture::from(window.fetch_with_str_and_init(url, &settings)).await;
    let response = answer.and_then(|answer| answer.dyn_into::<Response>());
    let response = response.map_err(|reason| unreachable(url, &reason))?;
    match response.ok() {
        true => Ok(opened(response, false)),
        false => Err(FetchError::Status {
            url: url.to_owned(),
            status: response.status(),
        }),
    }
}

fn unreachable(url: &str, reason: &JsValue) -> FetchError {
    FetchError::Unreachable {
        url: url.to_owned(),
        reason: said(reason),
    }
}

/// The text of a file that is inside of the page; `None` where it is not.
pub async fn inside(url: &str) -> Option<Result<String, JsValue>> {
    let window = web_sys::window()?;
    let packed = inline_text(&window, url)?;
    let unpacked = async {
        let bytes = content(inflated(&window, &packed)?.array_buffer()).await?;
        String::from_utf8(bytes).map_err(|error| JsValue::from_str(&error.to_string()))
    };
    Some(unpacked.await)
}

/// What the page holds as the file `url`.
fn inline_text(window: &Window, url: &str) -> Option<String> {
    let selector = format!("script[data-file={}]", css_string(url));
    let element = window.document()?.query_selector(&selector).ok()??;
    element.text_content()
}

/// A string as a selector has it.
fn css_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' | '\\' => quoted.extend(['\\', letter]),
            letter if letter.is_control() => quoted.push_str(&format!("\\{:x} ", u32::from(letter))),
            letter => quoted.push(letter),
        }
    }
    quoted + "\""
}

#[wasm_bindgen]
extern "C" {
    /// The browser's inflater: web-sys has it only behind a compiler flag.
    type DecompressionStream;
    #[wasm_bindgen(constructor, catch)]
    fn new(format: &str) -> Result<DecompressionStream, JsValue>;
    #[wasm_bindgen(method, getter)]
    fn readable(this: &DecompressionStream) -> ReadableStream;
    #[wasm_bindgen(method, getter)]
    fn writable(this: &DecompressionStream) -> WritableStream;
}

/// What is behind gzip and base64, as an answer.
fn inflated(window: &Window, text: &str) -> Result<Response, JsValue> {
    // `atob` gives a letter for each byte.
    let mut packed: Vec<u8> = window.atob(text.trim())?.chars().map(|letter| letter as u8).collect();
    let packed = Response::new_with_opt_u8_array(Some(&mut packed))?;
    let stream = packed.body().ok_or_else(|| JsValue::from_str("it is empty"))?;
    let inflater = DecompressionStream::new("gzip")?;
    let inflater = ReadableWritablePair::new(&inflater.readable(), &inflater.writable());
    Response::new_with_opt_readable_stream(Some(&stream.pipe_through(&inflater)))
}

async fn content(buffer: Result<Promise, JsValue>) -> Result<Vec<u8>, JsValue> {
    let buffer = JsFuture::from(buffer?).await?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// An exception's own words, or those of an event that tells of one.
pub fn said(reason: &JsValue) -> String {
    let message = Reflect::get(reason, &JsValue::from_str("message"));
    let message = message.ok().and_then(|message| message.as_string());
    message
        .or_else(|| reason.as_string())
        .unwrap_or_else(|| format!("{reason:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_cannot_leave_its_selector() {
        assert_eq!(css_string("runs/a b/é.json"), "\"runs/a b/é.json\"");
        assert_eq!(css_string("a\"]\\\n"), "\"a\\\"]\\\\\\a \"");
    }

    #[test]
    fn a_part_is_put_together_from_what_pieces_have_of_it() {
        let file: Vec<u8> = (0..40).collect();
        for range in [0..1, 3..17, 8..16, 15..40, 30..99, 40..50] {
            let (mut bytes, mut offset) = (Vec::<u8>::new(), 0);
            for piece in file.chunks(8) {
                bytes.extend(&piece[overlap(&range, offset, piece.len())]);
                offset += piece.len();
            }
            assert_eq!(bytes, file[range.start.min(40)..range.end.min(40)], "{range:?}");
        }
    }

    #[test]
    fn only_a_file_that_may_be_missing_counts_as_absent() {
        let status = |status| FetchError::Status {
            url: "runs.json".into(),
            status,
        };
        assert!(status(404).is_absent() && !status(500).is_absent());
    }
}
