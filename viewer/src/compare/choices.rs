//! What the page lets one choose.

use eval_core::report::Manifest;
use leptos::prelude::*;

use super::both::Both;
use super::settings::{Named, parameter};
use crate::controls::Choice;
use crate::follow::Reports;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::state::{Loaded, Memo, Signal};
use crate::users::shown::with_results;

/// Which checkpoints, and of which run the second.
#[component]
pub fn Settings(
    /// The report of the first checkpoint.
    source: Source,
    /// Both checkpoints, once they are there.
    both: Loaded<Result<Both, String>>,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let reports = expect_context::<Reports>();
    let chosen = Memo::new(move |before: Option<&Option<Both>>| match both.get() {
        Some(Ok(both)) => Some(both),
        _ => before.cloned().flatten(),
    });
    let options = |manifest: &Manifest| -> Vec<(String, String)> {
        let named = |number: usize| {
            let found = &manifest.checkpoints[number];
            (found.name.clone(), format!("{}, update {}", found.name, found.update))
        };
        with_results(manifest).into_iter().map(named).collect()
    };
    let name = |(source, checkpoint): &(Source, usize)| source.manifest().checkpoints[*checkpoint].name.clone();
    let [first, second] = [false, true].map(|is_second| {
        Signal::derive(move || {
            chosen.with(|both| {
                both.as_ref().map_or_else(String::new, |both| {
                    name(if is_second { &both.second } else { &both.first })
                })
            })
        })
    });
    let run_of_second = move || {
        navigator
            .route()
            .parameters
            .get(parameter::SECOND)
            .and_then(|named| Named::parse(named).run)
    };
    let set_first = Callback::new(move |value: String| navigator.set(parameter::FIRST, Some(&value)));
    let set_second = Callback::new(move |value: String| {
        let named = Named {
            run: untrack(run_of_second),
            checkpoint: Some(value),
        };
        navigator.set(parameter::SECOND, Some(&named.to_string()));
    });
    let set_run = Callback::new(move |value: String| {
        let named = Named {
            run: (!value.is_empty()).then_some(value),
            checkpoint: None,
        };
        let value = named.to_string();
        navigator.set(
            parameter::SECOND,
            Some(value.as_str()).filter(|value| !value.is_empty()),
        );
    });
    let runs = reports.runs.with_untracked(|runs| match runs {
        Some(Ok(runs)) => runs.runs.iter().map(|run| run.name.clone()).collect(),
        _ => Vec::new(),
    });
    let run_choice = (runs.len() > 1).then(|| {
        let this = (String::new(), "this run".to_owned());
        let options = std::iter::once(this).chain(runs.into_iter().map(|run| (run.clone(), run))).collect();
        view! { <Choice label="Run of the second" options chosen=Signal::derive(move || run_of_second().unwrap_or_default()) on_choice=set_run /> }
    });
    let firsts = options(source.manifest());
    let seconds = move || {
        let options = chosen.with(|both| options(both.as_ref().map_or(&source, |both| &both.second.0).manifest()));
        view! { <Choice label="Second checkpoint" options chosen=second on_choice=set_second /> }
    };
    view! {
        <div class="toolbar">
            <Choice label="First checkpoint" options=firsts chosen=first on_choice=set_first />
            {run_choice}
            {seconds}
        </div>
    }
    .into_any()
}
