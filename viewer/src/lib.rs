//! The browser application: opens published reports and shows them.
//!
//! What is shown is worked out by plain structs, which are tested without a browser; the components are thin. Every number
//! comes from the report or from eval-core. [`address`] says which page is shown, [`follow`] which report, and [`load`] reads
//! its files.

pub mod address;
pub mod chart;
pub mod check;
pub mod compare;
pub mod export;
pub mod fetch;
pub mod filter;
pub mod follow;
pub mod grid;
pub mod keys;
pub mod load;
pub mod navigate;
pub mod order;
pub mod overview;
pub mod palette;
pub mod reading;
pub mod runs;
pub mod state;
pub mod table;
pub mod theme;
pub mod words;
pub mod worker;

mod app;
mod controls;
mod download;
mod item;
mod items;
mod map;
mod neighbours;
mod user;
mod users;

use wasm_bindgen::JsCast;
use wasm_bindgen::prelude::wasm_bindgen;
use web_sys::DedicatedWorkerGlobalScope;

/// Called by the page, and by its worker, once the module is loaded.
#[wasm_bindgen(start)]
pub fn start() {
    match web_sys::js_sys::global().dyn_into::<DedicatedWorkerGlobalScope>() {
        Ok(scope) => worker::serve(&scope),
        Err(_) => leptos::mount::mount_to_body(app::App),
    }
}
