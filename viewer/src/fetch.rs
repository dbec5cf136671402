//! Reading files of a report over HTTP.

use thiserror::Error;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::Response;

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
}

/// The text of the file at `url`, which may be relative to the page.
pub async fn text(url: &str) -> Result<String, FetchError> {
    let unreachable = |reason: JsValue| FetchError::Unreachable {
        url: url.to_owned(),
        reason: said(&reason),
    };
    let window = web_sys::window().ok_or_else(|| unreachable(JsValue::from_str("there is no window")))?;
    let answer = JsFuture::from(window.fetch_with_str(url)).await.map_err(unreachable)?;
    let response: Response = answer.dyn_into().map_err(unreachable)?;
    if !response.ok() {
        return Err(FetchError::Status {
            url: url.to_owned(),
            status: response.status(),
        });
    }
    let text = JsFuture::from(response.text().map_err(unreachable)?)
        .await
        .map_err(unreachable)?;
    text.as_string()
        .ok_or_else(|| unreachable(JsValue::from_str("the answer is no text")))
}

/// An exception's own words.
fn said(reason: &JsValue) -> String {
    reason
        .dyn_ref::<web_sys::js_sys::Error>()
        .map_or_else(|| format!("{reason:?}"), |error| error.message().into())
}
