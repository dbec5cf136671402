//! Controls that pages share.

use leptos::ev;
use leptos::prelude::*;
use wasm_bindgen::JsCast;
use web_sys::HtmlElement;

use crate::download;
use crate::export::{Format, Sheet};
use crate::reading::{Progress, Reading};
use crate::state::{Memo, RwSignal, Signal, StoredValue};
use crate::worker::VectorsState;

/// A list to choose from, with its label.
#[component]
pub fn Choice(
    /// What is chosen.
    label: &'static str,
    /// Values and what they are called.
    options: Vec<(String, String)>,
    /// The value that is chosen.
    #[prop(into)]
    chosen: Signal<String>,
    /// Called with the new value.
    on_choice: Callback<String>,
) -> impl IntoView {
    let option = move |(value, name): (String, String)| {
        let own = value.clone();
        view! { <option value=value prop:selected=move || chosen.with(|chosen| *chosen == own)>{name}</option> }
    };
    view! {
        <label class="choice">
            <span>{label}</span>
            <select on:change=move |event| on_choice.run(event_target_value(&event))>
                {options.into_iter().map(option).collect_view()}
            </select>
        </label>
    }
}

/// Saves a table as a file of any format.
#[component]
pub fn SaveAs(
    /// The files' name without its end.
    stem: String,
    /// Makes the table.
    sheet: Callback<(), Sheet>,
) -> impl IntoView {
    let problem = RwSignal::new(None::<String>);
    let stem = StoredValue::new(stem);
    let save = move |format: Format| {
        let written = sheet.run(()).written(format);
        let saved = stem.with_value(|stem| download::save(stem, format.extension(), format.media_type(), &written));
        problem.set(
            saved
                .err()
                .map(|reason| format!("The file could not be saved: {reason}")),
        );
    };
    let button = move |format: Format| {
        let command = format!("Save the rows as {}", format.name());
        view! { <button type="button" data-command=command on:click=move |_| save(format)>{format.name()}</button> }
    };
    view! {
        <div class="export" role="group" aria-label="Save these rows as a file">
            {Format::ALL.map(button).collect_view()}
        </div>
        <p class="problem" role="alert">{move || problem.get()}</p>
    }
    .into_any()
}

/// How far the reading of files is, and what was the matter with those that could not be read.
#[component]
pub fn FileProgress(
    /// How far it is.
    progress: RwSignal<Progress>,
    /// Asks again for what could not be read.
    retry: Callback<()>,
) -> impl IntoView {
    let is_partial = Memo::new(move |_| progress.with(|progress| !progress.is_over()));
    let bar = move || {
        is_partial.get().then(|| {
            view! {
                <label class="faint">
                    "Reading files "
                    <progress
                        max=move || progress.with(|progress| progress.needed)
                        value=move || progress.with(|progress| progress.done)
                    ></progress>
                </label>
            }
        })
    };
    let problem = move || {
        let progress = progress.get();
        progress.problem.map(|problem| {
            view! {
                <p class="problem" role="alert">
                    {format!("{} of {} files could not be read, so numbers are missing. ", progress.failed, progress.needed)}
                    {problem} ". "
                    <button type="button" on:click=move |_| retry.run(())>"Try again"</button>
                </p>
            }
        })
    };
    (bar, problem).into_any()
}

/// Files that are read when asked for: a button as long as they are not, and how far it is from then on.
#[component]
pub fn OnDemand(
    /// The files.
    reading: Reading,
    /// What they hold, as `titles of all items`.
    what: &'static str,
) -> impl IntoView {
    let files = reading.progress.get_untracked().needed;
    move || match reading.asked.get() {
        true => view! { <FileProgress progress=reading.progress retry=Callback::new(move |()| reading.retry()) /> }
            .into_any(),
        false => view! {
            <p class="faint">
                {format!("Not read yet: {what}. ")}
                <button type="button" on:click=move |_| reading.start()>{format!("Read {files} files")}</button>
            </p>
        }
        .into_any(),
    }
}

/// How far the vectors are that the worker reads; `read` asks for them.
pub fn vectors_view(state: VectorsState, bytes: usize, read: Callback<()>) -> AnyView {
    match state {
        VectorsState::Ready => ().into_any(),
        VectorsState::Absent => view! {
            <p>
                <button type="button" on:click=move |_| read.run(())>{format!("Read the items' vectors ({})", megabytes(bytes))}</button>
            </p>
        }
        .into_any(),
        VectorsState::Coming { done, of } => view! {
            <p class="faint">
                <progress max=of.to_string() value=done.to_string() aria-label="Vectors that were read"></progress>
                {format!(" {} of {} of vectors read", megabytes(done), megabytes(of))}
            </p>
        }
        .into_any(),
        VectorsState::Problem(problem) => view! {
            <p class="problem" role="alert">
                {problem}" "<button type="button" on:click=move |_| read.run(())>"Try again"</button>
            </p>
        }
        .into_any(),
    }
}

/// A size in words, such as `204.8 MB`.
fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

/// `/` and the browser's find go to a field, which also finds rows that are out of view. Asked for twice, the browser's own
/// find opens.
pub fn focus_by_key(id: &'static str) {
    let listener = window_event_listener(ev::keydown, move |event| {
        let is_find = (event.ctrl_key() || event.meta_key()) && event.key() == "f";
        let is_slash = event.key() == "/" && !event.ctrl_key() && !event.meta_key() && !event.alt_key();
        if is_typing() || !(is_find || is_slash) {
            return;
        }
        if let Some(field) = document().get_element_by_id(id)
            && let Ok(field) = field.dyn_into::<HtmlElement>()
        {
            event.prevent_default();
            _ = field.focus();
        }
    });
    on_cleanup(move || listener.remove());
}

/// Whether keys belong to what has the focus: a text field or a list to choose from.
pub fn is_typing() -> bool {
    let focused = document().active_element();
    focused.is_some_and(|element| matches!(element.tag_name().as_str(), "INPUT" | "SELECT" | "TEXTAREA"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_in_megabytes() {
        assert_eq!(megabytes(204_800_000), "204.8 MB");
    }
}
