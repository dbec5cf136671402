//! The filter's text field, with what may come next.

use leptos::ev::KeyboardEvent;
use leptos::html;
use leptos::prelude::*;

use super::shown::parameter;
use crate::filter::{Completion, complete};
use crate::navigate::Navigator;
use crate::state::{Effect, RwSignal, Signal};

/// The text field's id.
pub const FILTER_ID: &str = "filter";

/// The state of the text field.
#[derive(Clone, Copy)]
struct Typing {
    navigator: Navigator,
    field: NodeRef<html::Input>,
    text: RwSignal<String>,
    completion: RwSignal<Completion>,
    /// The option that Enter takes.
    chosen: RwSignal<Option<usize>>,
}

impl Typing {
    /// Takes what was typed.
    fn typed(self, text: &str) {
        self.text.set(text.to_owned());
        self.navigator
            .set(parameter::FILTER, (!text.is_empty()).then_some(text));
        self.offer();
    }

    /// Offers what may stand at the cursor.
    fn offer(self) {
        let text = self.text.get_untracked();
        let cursor = self
            .field
            .get_untracked()
            .and_then(|field| field.selection_start().ok().flatten());
        let cursor = cursor.map_or(text.len(), |units| byte_of_utf16(&text, units as usize));
        self.completion.set(complete(&text, cursor));
        self.chosen.set(None);
    }

    fn close(self) {
        self.completion.set(Completion::default());
        self.chosen.set(None);
    }

    /// Puts an option into the text.
    fn take(self, option: &str) {
        let (text, cursor) = self
            .completion
            .get_untracked()
            .applied(&self.text.get_untracked(), option);
        if let Some(field) = self.field.get_untracked() {
            field.set_value(&text);
            let cursor = text[..cursor].encode_utf16().count() as u32;
            // A field that is gone has no cursor to set.
            _ = field.set_selection_range(cursor, cursor);
            _ = field.focus();
        }
        self.typed(&text);
    }

    fn key(self, event: &KeyboardEvent) {
        let count = self.completion.with_untracked(|completion| completion.options.len());
        let chosen = self.chosen.get_untracked();
        match (event.key().as_str(), chosen) {
            ("Escape", _) if count > 0 => self.close(),
            ("Enter", None) => self.close(),
            ("Enter" | "Tab", Some(chosen)) => {
                let option = self
                    .completion
                    .with_untracked(|completion| completion.options.get(chosen).copied());
                self.take(option.unwrap_or_default());
            }
            (key @ ("ArrowDown" | "ArrowUp"), _) if count > 0 => self.chosen.set(moved(key, chosen, count)),
            _ => return,
        }
        event.prevent_default();
    }
}

/// The option after an arrow key: round and round, with no option between the last and the first.
fn moved(key: &str, chosen: Option<usize>, count: usize) -> Option<usize> {
    match (key, chosen) {
        ("ArrowDown", None) => Some(0),
        ("ArrowDown", Some(chosen)) => Some(chosen + 1).filter(|&next| next < count),
        (_, None) => count.checked_sub(1),
        (_, Some(chosen)) => chosen.checked_sub(1),
    }
}

/// The byte of `text` behind so many UTF-16 units, in which browsers count.
fn byte_of_utf16(text: &str, units: usize) -> usize {
    let mut before = 0;
    let behind = text.char_indices().find(|(_, letter)| {
        before += letter.len_utf16();
        before > units
    });
    behind.map_or(text.len(), |(byte, _)| byte)
}

/// The filter.
#[component]
pub fn FilterBox(
    /// What is wrong with the filter.
    error: Signal<Option<String>>,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let of_address = navigator.parameter(parameter::FILTER);
    let typing = Typing {
        navigator,
        field: NodeRef::new(),
        text: RwSignal::new(of_address.get_untracked().unwrap_or_default()),
        completion: RwSignal::new(Completion::default()),
        chosen: RwSignal::new(None),
    };
    // A link or the way back may change the filter, too.
    Effect::new(move |_| {
        let filter = of_address.get().unwrap_or_default();
        if typing.text.with_untracked(|text| *text != filter) {
            typing.text.set(filter);
        }
    });
    let is_open = move || typing.completion.with(|completion| !completion.options.is_empty());
    let options = move || {
        let options = typing.completion.with(|completion| completion.options.clone());
        options
            .into_iter()
            .enumerate()
            .map(|(place, option)| view! { <FilterOption typing place option /> })
            .collect_view()
    };
    view! {
        <div class="filter">
            <label for=FILTER_ID>"Filter"</label>
            <div class="field">
                <input
                    id=FILTER_ID
                    type="text"
                    role="combobox"
                    spellcheck="false"
                    autocomplete="off"
                    autocapitalize="off"
                    placeholder="rank<=20 and delta<0 and \"horror\""
                    aria-autocomplete="list"
                    aria-controls="filter-options"
                    aria-describedby="filter-error"
                    aria-expanded=move || is_open().to_string()
                    aria-invalid=move || error.with(Option::is_some).to_string()
                    aria-activedescendant=move || typing.chosen.get().map(option_id)
                    node_ref=typing.field
                    prop:value=move || typing.text.get()
                    on:input=move |event| typing.typed(&event_target_value(&event))
                    on:click=move |_| typing.offer()
                    on:blur=move |_| typing.close()
                    on:keydown=move |event| typing.key(&event)
                />
                <ul id="filter-options" role="listbox" aria-label="What may come next" hidden=move || !is_open()>
                    {options}
                </ul>
            </div>
            <p id="filter-error" class="problem" role="status">{move || error.get()}</p>
        </div>
    }
}

#[component]
fn FilterOption(typing: Typing, place: usize, option: &'static str) -> impl IntoView {
    let is_chosen = move || typing.chosen.get() == Some(place);
    view! {
        <li
            id=option_id(place)
            role="option"
            aria-selected=move || is_chosen().to_string()
            // The field keeps the focus.
            on:mousedown=move |event| {
                event.prevent_default();
                typing.take(option);
            }
        >
            {option}
        </li>
    }
}

fn option_id(place: usize) -> String {
    format!("filter-option-{place}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browsers_place_in_a_text_becomes_a_byte() {
        let text = "é🎬x";
        let bytes = [0, 2, 2, 6, 7, 7].into_iter().enumerate();
        for (units, byte) in bytes {
            assert_eq!(byte_of_utf16(text, units), byte, "{units}");
        }
    }

    #[test]
    fn arrows_go_round_the_options() {
        assert_eq!(moved("ArrowDown", None, 2), Some(0));
        assert_eq!(moved("ArrowDown", Some(0), 2), Some(1));
        assert_eq!(moved("ArrowDown", Some(1), 2), None);
        assert_eq!(moved("ArrowUp", None, 2), Some(1));
        assert_eq!(moved("ArrowUp", Some(0), 2), None);
    }
}
