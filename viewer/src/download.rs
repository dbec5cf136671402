//! Files that the page makes and the browser saves.

use leptos::prelude::*;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::HtmlAnchorElement;
use web_sys::js_sys::{Array, Object, Reflect};

#[wasm_bindgen]
extern "C" {
    type Blob;
    #[wasm_bindgen(constructor, catch)]
    fn new(parts: &Array, settings: &Object) -> Result<Blob, JsValue>;
    #[wasm_bindgen(js_namespace = URL, js_name = createObjectURL, catch)]
    fn create_url(content: &Blob) -> Result<String, JsValue>;
    #[wasm_bindgen(js_namespace = URL, js_name = revokeObjectURL)]
    fn forget_url(url: &str);
}

/// Has the browser save `content` as a file named after `stem`.
///
/// # Errors
/// What the browser says.
pub fn save(stem: &str, extension: &str, media_type: &str, content: &str) -> Result<(), String> {
    try_save(&file_name(stem, extension), media_type, content).map_err(|reason| format!("{reason:?}"))
}

/// The address of a file that the page made.
///
/// # Errors
/// What the browser says.
pub fn address_of(content: &str, media_type: &str) -> Result<String, JsValue> {
    let settings = Object::new();
    Reflect::set(&settings, &JsValue::from_str("type"), &JsValue::from_str(media_type))?;
    let parts = Array::new();
    parts.push(&JsValue::from_str(content));
    create_url(&Blob::new(&parts, &settings)?)
}

fn try_save(name: &str, media_type: &str, content: &str) -> Result<(), JsValue> {
    let url = address_of(content, media_type)?;
    click(&url, name)?;
    // The click has begun the download, which holds on to the content by itself.
    forget_url(&url);
    Ok(())
}

/// Has the browser save what lies at `url`, as a file named after `stem`.
///
/// # Errors
/// What the browser says.
pub fn save_from(url: &str, stem: &str, extension: &str) -> Result<(), JsValue> {
    click(url, &file_name(stem, extension))
}

fn click(url: &str, name: &str) -> Result<(), JsValue> {
    let link: HtmlAnchorElement = document().create_element("a")?.dyn_into().map_err(JsValue::from)?;
    link.set_href(url);
    link.set_download(name);
    link.click();
    Ok(())
}

/// A file's name without what file systems do not take.
fn file_name(stem: &str, extension: &str) -> String {
    let is_kept = |letter: char| letter.is_alphanumeric() || matches!(letter, '-' | '_' | '.');
    let stem: String = stem
        .chars()
        .map(|letter| if is_kept(letter) { letter } else { '-' })
        .collect();
    format!("{stem}.{extension}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_has_no_path_in_it() {
        assert_eq!(file_name("../first run: users", "csv"), "..-first-run--users.csv");
        assert_eq!(file_name("größe_1", "tex"), "größe_1.tex");
    }
}
