//! Controls that pages share.

use leptos::prelude::*;

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

/// Whether keys belong to what has the focus: a text field or a list to choose from.
pub fn is_typing() -> bool {
    let focused = document().active_element();
    focused.is_some_and(|element| matches!(element.tag_name().as_str(), "INPUT" | "SELECT" | "TEXTAREA"))
}
