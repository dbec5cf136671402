//! The browser application: opens a published report and shows what its manifest says.
//!
//! What is shown is worked out by plain structs ([`address`], [`overview`]), which are tested without a browser; the
//! components are thin. Every number comes from the report or from eval-core.

pub mod address;
pub mod export;
pub mod fetch;
pub mod filter;
pub mod overview;
pub mod table;
pub mod words;

mod app;

use wasm_bindgen::prelude::wasm_bindgen;

/// Called by the page once the module is loaded.
#[wasm_bindgen(start)]
pub fn start() {
    leptos::mount::mount_to_body(app::App);
}
