//! What is shown of the users: checkpoints, columns, and the table as a file.

use leptos::prelude::*;

use super::loading::Loading;
use super::shown::{Shown, parameter, with_results};
use crate::controls::Choice;
use crate::download;
use crate::export::Format;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::table::Column;

/// The controls above the table.
#[component]
pub fn Toolbar(
    /// The report.
    source: StoredValue<Source>,
    /// The table.
    loading: StoredValue<Loading>,
    /// The users that match, in their order.
    rows: Memo<Vec<u32>>,
    /// What the table is set to.
    shown: Memo<Shown>,
    /// The run's name, for files.
    run: String,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let name_of = move |number: usize| source.with_value(|source| source.manifest().checkpoints[number].name.clone());
    let checkpoints: Vec<(String, String)> = source.with_value(|source| {
        let checkpoints = with_results(source.manifest()).into_iter();
        checkpoints
            .map(|number| &source.manifest().checkpoints[number])
            .map(|checkpoint| {
                (
                    checkpoint.name.clone(),
                    format!("{}, update {}", checkpoint.name, checkpoint.update),
                )
            })
            .collect()
    });
    let others = std::iter::once((String::new(), "nothing".to_owned())).chain(checkpoints.clone());
    let checkpoint = Signal::derive(move || name_of(shown.with(|shown| shown.checkpoint)));
    let against = Signal::derive(move || shown.with(|shown| shown.against).map_or_else(String::new, name_of));
    let set = move |name: &'static str| Callback::new(move |value: String| navigator.set(name, Some(&value)));
    view! {
        <div class="toolbar">
            <Choice label="Checkpoint" options=checkpoints chosen=checkpoint on_choice=set(parameter::CHECKPOINT) />
            <Choice label="Change against" options=others.collect() chosen=against on_choice=set(parameter::AGAINST) />
            <Columns shown />
            <Export loading rows shown run />
        </div>
    }
}

/// Which columns there are.
#[component]
fn Columns(shown: Memo<Shown>) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let choice = move |column: Column| {
        let toggle = move |event| {
            let columns = shown.with_untracked(|shown| shown.columns_with(column, event_target_checked(&event)));
            navigator.set(parameter::COLUMNS, Some(&columns));
        };
        let is_shown = move || shown.with(|shown| shown.columns.contains(&column));
        view! {
            <label title=column.explanation()>
                <input type="checkbox" prop:checked=is_shown on:change=toggle />
                {column.heading()}
            </label>
        }
    };
    let columns = Column::ALL.into_iter().filter(|&column| column != Column::User);
    view! {
        <details class="columns">
            <summary>"Columns"</summary>
            <div>{columns.map(choice).collect_view()}</div>
        </details>
    }
}

/// The rows that match, with the columns that are shown, as a file.
#[component]
fn Export(loading: StoredValue<Loading>, rows: Memo<Vec<u32>>, shown: Memo<Shown>, run: String) -> impl IntoView {
    let problem = RwSignal::new(None::<String>);
    let run = StoredValue::new(run);
    let save = move |format: Format| {
        let columns = shown.with_untracked(|shown| shown.columns.clone());
        let sheet = loading.with_value(|loading| rows.with_untracked(|rows| loading.table().sheet(rows, &columns)));
        let stem = run.with_value(|run| format!("{run}-users"));
        let saved = download::save(&stem, format.extension(), format.media_type(), &sheet.written(format));
        problem.set(
            saved
                .err()
                .map(|reason| format!("The file could not be saved: {reason}")),
        );
    };
    let button = move |format: Format| {
        view! { <button type="button" on:click=move |_| save(format)>{format.name()}</button> }
    };
    view! {
        <div class="export" role="group" aria-label="Save these rows as a file">
            {Format::ALL.map(button).collect_view()}
        </div>
        <p class="problem" role="alert">{move || problem.get()}</p>
    }
}
