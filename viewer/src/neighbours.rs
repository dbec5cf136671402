//! The way from a record to the ones before and after it.

use leptos::ev;
use leptos::prelude::*;

use crate::address::{Page, Route};
use crate::controls::is_typing;
use crate::navigate::Navigator;
use crate::state::Memo;
use crate::users::sequence::{Sequence, by_number};

/// Links to all records and to the two beside record `number` of `count`; `j` goes to the next, `k` to the one before, with all
/// that the page is set to. Users come in the order of the table that one came from. `beside` is another page about the same
/// record.
pub fn neighbours(
    all: Page,
    number: usize,
    count: usize,
    page: fn(usize) -> Page,
    beside: Option<(&'static str, Page)>,
) -> AnyView {
    let navigator = expect_context::<Navigator>();
    let sequence = expect_context::<Sequence>();
    let is_user = all == Page::Users;
    let near = Memo::new(move |_| match is_user {
        true => sequence.beside(&navigator.route(), number, count),
        false => by_number(number, count),
    });
    let listener = window_event_listener(ev::keydown, move |event| {
        if is_typing() || event.ctrl_key() || event.meta_key() || event.alt_key() {
            return;
        }
        let [before, after] = near.get_untracked();
        let next = match event.key().as_str() {
            "j" => after,
            "k" => before,
            _ => None,
        };
        if let Some(next) = next {
            let route = untrack(|| navigator.route());
            navigator.go(&Route {
                page: page(next),
                ..route
            });
        }
    });
    on_cleanup(move || listener.remove());
    let link = move |number: usize, label: String, key: &'static str| {
        let route = move || Route {
            page: page(number),
            ..navigator.route()
        };
        view! { <a href=move || route().to_string() title=format!("Key {key}")>{label}</a> }
    };
    let links = move || {
        let [before, after] = near.get();
        let before = before.map(|number| link(number, format!("← {}", page(number).title()), "k"));
        let after = after.map(|number| link(number, format!("{} →", page(number).title()), "j"));
        (before, after).into_any()
    };
    let name = all.title();
    let label = format!("All {}", name.to_lowercase());
    view! {
        <nav class="neighbours" aria-label=name>
            <a href=move || navigator.link(all.clone())>{label}</a>
            {beside.map(|(label, page)| view! { <a href=move || navigator.link(page.clone())>{label}</a> })}
            {links}
        </nav>
    }
    .into_any()
}
