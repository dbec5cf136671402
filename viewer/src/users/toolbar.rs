//! What is shown of the users: checkpoints, columns, and the table as a file.

use leptos::prelude::*;

use super::loading::Loading;
use super::shown::{Shown, parameter, with_results};
use crate::controls::{Choice, SaveAs};
use crate::load::Source;
use crate::navigate::Navigator;
use crate::state::{Memo, Signal, StoredValue};
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
    /// The name of the files that it saves, without the end.
    stem: String,
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
    let sheet = Callback::new(move |()| {
        let columns = shown.with_untracked(|shown| shown.columns.clone());
        loading.with_value(|loading| rows.with_untracked(|rows| loading.table().sheet(rows, &columns)))
    });
    view! {
        <div class="toolbar">
            <Choice label="Checkpoint" options=checkpoints chosen=checkpoint on_choice=set(parameter::CHECKPOINT) />
            <Choice label="Change against" options=others.collect() chosen=against on_choice=set(parameter::AGAINST) />
            <Columns shown />
            <SaveAs stem sheet />
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
