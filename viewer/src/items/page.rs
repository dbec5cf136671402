//! The page, and how its parts belong together.

use std::sync::Arc;

use eval_core::Cutoff;
use leptos::prelude::*;

use super::known::AllItems;
use super::rankings::{Exposures, Lists, with_exposure};
use super::shown::{Shown, parameter};
use super::spread::SpreadView;
use super::table::{ItemsTable, headings};
use crate::address::{Page, Route};
use crate::controls::{Choice, OnDemand, SaveAs, focus_by_key};
use crate::grid::{Grid, sort_after_click};
use crate::load::Source;
use crate::navigate::Navigator;
use crate::state::{Memo, Signal};

/// The id of the field for words of titles.
const FIND_ID: &str = "find";

/// Said of a report that counts no recommendations.
const NO_COUNTS: &str = "This report does not count how often items are recommended: it was written by an older langptune. Train \
                         the run anew with this version to have the counts.";

/// All items of a report.
#[component]
pub fn ItemsPage(
    /// The report.
    source: Source,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    if source.manifest().items.count == 0 {
        return view! { <p class="faint">"The report has no items."</p> }.into_any();
    }
    let of_address = source.clone();
    let read = Memo::new(move |before: Option<&Result<Shown, String>>| {
        let route = navigator.route();
        match before {
            // The address of the next page says nothing about this one.
            Some(before) if route.page != Page::Items => before.clone(),
            _ => Shown::read(&route.parameters, of_address.manifest()),
        }
    });
    let items = AllItems::new(&source);
    // Only another checkpoint is another table.
    let checkpoint = Memo::new(move |_| read.with(|read| read.as_ref().ok().map(|shown| shown.checkpoint)));
    let page = move || {
        match checkpoint.get() {
        Some(checkpoint) => items_view(&source, items, checkpoint, read),
        None => view! {
            <p class="problem" role="alert">{move || read.get().err()}</p>
            <p><a href=move || Route::new(&navigator.route().run, Page::Items).to_string()>"Show the items without these settings"</a></p>
        }
        .into_any(),
    }
    };
    page.into_any()
}

/// The page of a report whose address can be read.
fn items_view(
    source: &Source,
    items: AllItems,
    checkpoint: Option<usize>,
    read: Memo<Result<Shown, String>>,
) -> AnyView {
    let Some(first) = read.get_untracked().ok() else {
        return ().into_any();
    };
    let shown = Memo::new(move |before: Option<&Shown>| {
        let kept = || before.unwrap_or(&first).clone();
        read.get().unwrap_or_else(|_| kept())
    });
    let exposures = checkpoint.map(|checkpoint| Exposures::new(source, checkpoint));
    let cutoff = Memo::new(move |_| exposures?.with(|counted| shown.with(|shown| shown.cutoff_of(counted))));
    let table = the_table(items, exposures, shown, cutoff);
    let count = source.manifest().items.count;
    let stem = format!("{}-items", source.manifest().run);
    let progress = exposures
        .map(|exposures| view! { <OnDemand reading=exposures.reading what="how often items are recommended" /> });
    let no_counts = checkpoint.is_none().then(|| view! { <p class="note">{NO_COUNTS}</p> });
    view! {
        <section class="items">
            <h2>"Items"</h2>
            {no_counts}
            <OnDemand reading=items.reading what="titles and popularity of all items" />
            {progress}
            {table_view(source, items, exposures, shown, cutoff, table, count, stem)}
        </section>
        {exposures.map(|exposures| view! { <SpreadView exposures cutoff /> })}
    }
    .into_any()
}

type Table = Memo<Arc<ItemsTable>>;

fn the_table(items: AllItems, exposures: Option<Exposures>, shown: Memo<Shown>, cutoff: Memo<Option<Cutoff>>) -> Table {
    let lists = Memo::new(move |_| shown.with(|shown| shown.lists.clone()));
    Memo::new_with_compare(
        move |_| {
            let made = |counted: &_| {
                items.with(|known| lists.with(|lists| ItemsTable::new(known, counted, lists, cutoff.get())))
            };
            Arc::new(match exposures {
                Some(exposures) => exposures.with(made),
                None => made(&Default::default()),
            })
        },
        |_, _| true,
    )
}

#[allow(clippy::too_many_arguments, reason = "the parts of one page")]
fn table_view(
    source: &Source,
    items: AllItems,
    exposures: Option<Exposures>,
    shown: Memo<Shown>,
    cutoff: Memo<Option<Cutoff>>,
    table: Table,
    count: usize,
    stem: String,
) -> AnyView {
    let navigator = expect_context::<Navigator>();
    let order = Memo::new(move |_| shown.with(|shown| (shown.sort, shown.descending, shown.find.clone())));
    let rows = Memo::new(move |_| {
        let table = table.get();
        order.with(|(sort, descending, find)| items.with(|known| table.rows(known, find, *sort, *descending)))
    });
    let changes = Memo::new(move |before: Option<&u32>| {
        order.with(|_| ());
        before.map_or(0, |before| before.wrapping_add(1))
    });
    let version = Memo::new(move |before: Option<&u32>| {
        items.version.track();
        exposures.inspect(|exposures| exposures.version.track());
        shown.with(|shown| (shown.lists.clone(), shown.cutoff));
        before.map_or(0, |before| before.wrapping_add(1))
    });
    let headings = Memo::new(move |_| order.with(|(sort, descending, _)| headings(*sort, *descending)));
    let sort = Callback::new(move |name: &'static str| {
        let sort = shown.with_untracked(|shown| sort_after_click(shown.sort.name(), shown.descending, name));
        navigator.set(parameter::SORT, Some(&sort));
    });
    let row = Callback::new(move |item: u32| {
        let table = table.get_untracked();
        untrack(move || items.with(|known| table.row(known, item)))
    });
    let sheet = Callback::new(move |()| {
        let (table, rows) = (table.get_untracked(), rows.get_untracked());
        untrack(move || items.with(|known| table.sheet(known, &rows)))
    });
    focus_by_key(FIND_ID);
    let found = move || format!("{} of {count} items", rows.with(Vec::len));
    let find = navigator.parameter(parameter::FIND);
    let set_find = move |event| {
        let text = event_target_value(&event);
        navigator.set(parameter::FIND, Some(text.as_str()).filter(|text| !text.is_empty()));
    };
    view! {
        <div class="filter">
            <label for=FIND_ID>"Find in titles"</label>
            <input
                id=FIND_ID
                type="search"
                autocomplete="off"
                spellcheck="false"
                prop:value=move || find.get().unwrap_or_default()
                on:input=set_find
            />
        </div>
        <div class="toolbar">
            {exposures.map(|exposures| choices(source, exposures, shown, cutoff))}
            <SaveAs stem sheet />
        </div>
        <div class="status"><span role="status">{found}</span></div>
        <Grid
            label="Items"
            nothing="No title has these words."
            headings
            on_sort=sort
            rows
            row
            page=|item| Page::Item(item as usize)
            version
            order=changes
        />
    }
    .into_any()
}

/// Which checkpoint's top lists are counted, of which profiles, and how long they are.
fn choices(source: &Source, exposures: Exposures, shown: Memo<Shown>, cutoff: Memo<Option<Cutoff>>) -> AnyView {
    let navigator = expect_context::<Navigator>();
    let manifest = source.manifest();
    let named = |number: usize| {
        let checkpoint = &manifest.checkpoints[number];
        (
            checkpoint.name.clone(),
            format!("{}, update {}", checkpoint.name, checkpoint.update),
        )
    };
    let checkpoints: Vec<(String, String)> = with_exposure(manifest).into_iter().map(named).collect();
    let chosen = shown
        .get_untracked()
        .checkpoint
        .map_or_else(String::new, |number| named(number).0);
    let set = move |name: &'static str| Callback::new(move |value: String| navigator.set(name, Some(&value)));
    let lists = Memo::new(move |_| exposures.with(|counted| counted.lists()));
    let cutoffs = Memo::new(move |_| exposures.with(|counted| counted.cutoffs()));
    let lists_choice = move || {
        let named = |lists: Lists| (lists.to_string(), lists.name());
        let options = lists.get().into_iter().map(named).collect();
        let chosen = Signal::derive(move || shown.with(|shown| shown.lists.to_string()));
        view! { <Choice label="Top lists of" options chosen on_choice=set(parameter::LISTS) /> }
    };
    let cutoff_choice = move || {
        let named = |cutoff: Cutoff| (cutoff.to_string(), format!("the best {cutoff}"));
        let options = cutoffs.get().into_iter().map(named).collect();
        let chosen = Signal::derive(move || cutoff.get().map_or_else(String::new, |cutoff| cutoff.to_string()));
        view! { <Choice label="Length" options chosen on_choice=set(parameter::CUTOFF) /> }
    };
    view! {
        <Choice label="Checkpoint" options=checkpoints chosen=Signal::derive(move || chosen.clone()) on_choice=set(parameter::CHECKPOINT) />
        {lists_choice}
        {cutoff_choice}
    }
    .into_any()
}
