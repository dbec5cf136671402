//! The list of commands on the page: a field, and what fits what is typed.

use std::sync::Arc;

use eval_core::report::Catalogue;
use leptos::ev::KeyboardEvent;
use leptos::html;
use leptos::prelude::*;
use leptos::task::spawn_local;
use wasm_bindgen::JsCast;
use web_sys::{Element, HtmlElement};

use super::{Action, Choices, Entry, pages};
use crate::address::{Page, Route};
use crate::follow::Reports;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::state::{Effect, Memo, RwSignal, StoredValue};
use crate::theme::Theme;

/// The attribute of a button that says what command it is.
const COMMAND: &str = "data-command";

/// The list's id, and how those of its entries begin.
const LIST: &str = "commands";

/// The items of a report of up to so many files are found by title even if it has no catalogue.
const FEW_FILES: usize = 20;

/// The dialog.
#[component]
pub fn Palette(
    /// The reports that can be chosen.
    reports: Reports,
    /// The theme.
    theme: RwSignal<Theme>,
    /// The dialog, to be opened.
    dialog: NodeRef<html::Dialog>,
    /// Whether it is open.
    is_open: RwSignal<bool>,
    /// Shows the list of keys.
    on_help: Callback<()>,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let typed = RwSignal::new(String::new());
    let active = RwSignal::new(0_usize);
    let choices = RwSignal::new(Choices::default());
    let titles_of = StoredValue::new(None::<Source>);
    Effect::new(move |_| {
        if is_open.get() {
            typed.set(String::new());
            active.set(0);
            let source = reports.newest.get_untracked();
            choices.update(|choices| {
                choices.entries = entries(reports, source.as_ref());
                choices.users = source.as_ref().map_or(0, |source| source.manifest().users.count);
            });
            if source != titles_of.get_value() {
                titles_of.set_value(source.clone());
                choices.update(|choices| choices.titles = Arc::default());
                spawn_local(async move {
                    let titles = match &source {
                        Some(source) => titles(source).await,
                        None => Vec::new(),
                    };
                    if source == titles_of.get_value() {
                        choices.update(|choices| choices.titles = Arc::new(titles));
                    }
                });
            }
        }
    });
    let found = Memo::new(move |_| match is_open.get() {
        true => choices.with(|choices| typed.with(|typed| choices.found(typed))),
        false => Vec::new(),
    });
    let close = move || {
        if let Some(dialog) = dialog.get_untracked() {
            dialog.close();
        }
    };
    let run = move |entry: Entry| {
        close();
        match entry.action {
            Action::Go(page) => navigator.go(&untrack(|| navigator.to(page))),
            Action::Checkpoint(name) => navigator.set("checkpoint", Some(&name)),
            Action::Run(name) => navigator.go(&Route::new(&name, Page::Overview)),
            Action::Theme(chosen) => theme.set(chosen),
            Action::Press(number) => press(number),
            Action::Help => on_help.run(()),
        }
    };
    let at_key = move |event: KeyboardEvent| {
        let count = found.with_untracked(Vec::len);
        let last = count.saturating_sub(1);
        let place = active.get_untracked().min(last);
        let next = match event.key().as_str() {
            "ArrowDown" => {
                if place == last {
                    0
                } else {
                    place + 1
                }
            }
            "ArrowUp" => place.checked_sub(1).unwrap_or(last),
            "PageDown" => (place + 8).min(last),
            "PageUp" => place.saturating_sub(8),
            "Enter" => {
                event.prevent_default();
                if let Some(entry) = found.with_untracked(|found| found.get(place).cloned()) {
                    run(entry);
                }
                return;
            }
            _ => return,
        };
        event.prevent_default();
        active.set(next);
        if let Some(entry) = document().get_element_by_id(&format!("{LIST}-{next}")) {
            entry.scroll_into_view_with_bool(false);
        }
    };
    let option = move |(place, entry): (usize, Entry)| {
        let (kind, name) = (entry.kind, entry.name.clone());
        view! {
            <li
                id=format!("{LIST}-{place}")
                role="option"
                aria-selected=move || (active.get() == place).to_string()
                on:click=move |_| run(entry.clone())
            >
                <span dir="auto" class="name">{name}</span>
                " "
                <span class="kind">{kind}</span>
            </li>
        }
    };
    let options = move || found.get().into_iter().enumerate().map(option).collect_view();
    let is_empty = Memo::new(move |_| found.with(Vec::is_empty));
    let at_active = move || (!is_empty.get()).then(|| format!("{LIST}-{}", active.get()));
    view! {
        <dialog class="palette" node_ref=dialog aria-label="Commands" on:close=move |_| is_open.set(false)>
            <input
                type="text"
                role="combobox"
                aria-label="Go to a page, user or item, or run a command"
                placeholder="Go to a page, user or item, or run a command"
                aria-expanded="true"
                aria-controls=LIST
                aria-autocomplete="list"
                aria-activedescendant=at_active
                autocomplete="off"
                spellcheck="false"
                prop:value=move || typed.get()
                on:input=move |event| {
                    typed.set(event_target_value(&event));
                    active.set(0);
                }
                on:keydown=at_key
            />
            <ul id=LIST role="listbox" aria-label="Commands" hidden=move || is_empty.get()>{options}</ul>
            <p class="faint" role="status">{move || is_empty.get().then_some("Nothing fits.")}</p>
        </dialog>
    }
    .into_any()
}

/// The commands that there are now.
fn entries(reports: Reports, source: Option<&Source>) -> Vec<Entry> {
    let mut entries = pages();
    for (number, name) in (0..).zip(buttons().iter().filter_map(|button| button.get_attribute(COMMAND))) {
        entries.push(Entry::new("Command", name, Action::Press(number)));
    }
    if let Some(source) = source {
        let checkpoints = source.manifest().checkpoints.iter();
        entries.extend(checkpoints.map(|checkpoint| {
            Entry::new(
                "Checkpoint",
                checkpoint.name.clone(),
                Action::Checkpoint(checkpoint.name.clone()),
            )
        }));
    }
    reports.runs.with_untracked(|runs| {
        if let Some(Ok(runs)) = runs
            && runs.runs.len() > 1
        {
            let runs = runs.runs.iter();
            entries.extend(runs.map(|run| Entry::new("Run", run.name.clone(), Action::Run(run.name.clone()))));
        }
    });
    let themes = Theme::ALL.map(|theme| Entry::new("Theme", theme.label(), Action::Theme(theme)));
    entries.extend(themes);
    entries.push(Entry::new("Help", "Keys", Action::Help));
    entries
}

/// The buttons on the page that say what command they are, in their order.
fn buttons() -> Vec<Element> {
    let Ok(found) = document().query_selector_all(&format!("main [{COMMAND}]")) else {
        return Vec::new();
    };
    let nodes = (0..found.length()).filter_map(|place| found.get(place));
    nodes.filter_map(|node| node.dyn_into().ok()).collect()
}

fn press(number: u32) {
    if let Some(button) = buttons()
        .get(number as usize)
        .and_then(|button| button.dyn_ref::<HtmlElement>())
    {
        button.click();
    }
}

/// The items' titles, by number. What cannot be read is left out: pages that show it say what is wrong.
async fn titles(source: &Source) -> Vec<String> {
    let manifest = source.manifest();
    if let Some(file) = &manifest.catalogue {
        let catalogue = source.json::<Catalogue>(file).await;
        return catalogue.map_or_else(|_| Vec::new(), |catalogue| catalogue.titles);
    }
    let files = manifest.items.files.len();
    let mut titles = Vec::new();
    for file in (0..files).filter(|_| files <= FEW_FILES) {
        let Ok(chunk) = source.items(file).await else { break };
        titles.extend(chunk.items.iter().map(|item| item.title.clone()));
    }
    titles
}
