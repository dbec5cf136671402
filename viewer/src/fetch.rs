//! The bytes of a file: from the page itself where it holds the file, else over HTTP.

use thiserror::Error;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::js_sys::{Error as JsError, Promise, Reflect, Uint8Array};
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
    let unreachable = |reason: JsValue| FetchError::Unreachable {
        url: url.to_owned(),
        reason: said(&reason),
    };
    let window = web_sys::window().ok_or_else(|| unreachable(JsValue::from_str("there is no window")))?;
    if let Some(text) = inline_text(&window, url) {
        return inflated(&window, &text).await.map_err(|reason| FetchError::Damaged {
            url: url.to_owned(),
            reason: said(&reason),
        });
    }
    let response = answered(&window, url).await?;
    content(response.array_buffer()).await.map_err(unreachable)
}

/// Gives `take` the bytes of a file as they come, for files that are large.
///
/// # Errors
/// [`FetchError`]; some bytes may have been given before.
pub async fn in_parts(url: &str, take: &mut dyn FnMut(&[u8])) -> Result<(), FetchError> {
    let unreachable = |reason: JsValue| FetchError::Unreachable {
        url: url.to_owned(),
        reason: said(&reason),
    };
    let window = web_sys::window().ok_or_else(|| unreachable(JsValue::from_str("there is no window")))?;
    if inline_text(&window, url).is_some() {
        take(&bytes(url).await?);
        return Ok(());
    }
    let response = answered(&window, url).await?;
    let Some(stream) = response.body() else {
        return Ok(());
    };
    let reader: ReadableStreamDefaultReader = stream.get_reader().unchecked_into();
    loop {
        let part = JsFuture::from(reader.read()).await.map_err(unreachable)?;
        let field = |name: &str| Reflect::get(&part, &JsValue::from_str(name)).map_err(unreachable);
        if field("done")?.is_truthy() {
            return Ok(());
        }
        take(&Uint8Array::new(&field("value")?).to_vec());
    }
}

/// The host's answer where it is success.
async fn answered(window: &Window, url: &str) -> Result<Response, FetchError> {
    let unreachable = |reason: JsValue| FetchError::Unreachable {
        url: url.to_owned(),
        reason: said(&reason),
    };
    let settings = RequestInit::new();
    // A report may be written anew under the same names, so the host is asked whether a kept file is still the file.
    settings.set_cache(RequestCache::NoCache);
    let answer = JsFuture::from(window.fetch_with_str_and_init(url, &settings)).await;
    let response: Response = answer.map_err(unreachable)?.dyn_into().map_err(unreachable)?;
    if !response.ok() {
        return Err(FetchError::Status {
            url: url.to_owned(),
            status: response.status(),
        });
    }
    Ok(response)
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

/// The bytes behind gzip and base64.
async fn inflated(window: &Window, text: &str) -> Result<Vec<u8>, JsValue> {
    // `atob` gives a letter for each byte.
    let mut packed: Vec<u8> = window.atob(text.trim())?.chars().map(|letter| letter as u8).collect();
    let packed = Response::new_with_opt_u8_array(Some(&mut packed))?;
    let stream = packed.body().ok_or_else(|| JsValue::from_str("it is empty"))?;
    let inflater = DecompressionStream::new("gzip")?;
    let inflater = ReadableWritablePair::new(&inflater.readable(), &inflater.writable());
    let plain = Response::new_with_opt_readable_stream(Some(&stream.pipe_through(&inflater)))?;
    content(plain.array_buffer()).await
}

async fn content(buffer: Result<Promise, JsValue>) -> Result<Vec<u8>, JsValue> {
    let buffer = JsFuture::from(buffer?).await?;
    Ok(Uint8Array::new(&buffer).to_vec())
}

/// An exception's own words.
fn said(reason: &JsValue) -> String {
    reason
        .dyn_ref::<JsError>()
        .map_or_else(|| format!("{reason:?}"), |error| error.message().into())
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
    fn only_a_file_that_may_be_missing_counts_as_absent() {
        let status = |status| FetchError::Status {
            url: "runs.json".into(),
            status,
        };
        assert!(status(404).is_absent() && !status(500).is_absent());
    }
}
