//! The page, and how its parts belong together.

use eval_core::report::{Item, Manifest};
use leptos::prelude::*;

use super::near::near_view;
use super::users::users_view;
use crate::address::{Page, Route};
use crate::controls::{Choice, OnDemand};
use crate::items::Exposures;
use crate::items::known::AllItems;
use crate::items::rankings::{Counted, Lists, chosen};
use crate::load::{LoadError, Source};
use crate::navigate::Navigator;
use crate::neighbours::neighbours;
use crate::state::{Loaded, Memo, Signal};

/// The parameter that names the checkpoint.
const CHECKPOINT: &str = "checkpoint";

/// One item of a report.
#[component]
pub fn ItemPage(
    /// The report.
    source: Source,
    /// The item's number.
    item: usize,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let count = source.manifest().items.count;
    let of_address = source.clone();
    let checkpoint = Memo::new(move |before: Option<&Result<Option<usize>, String>>| {
        let route = navigator.route();
        match before {
            Some(before) if route.page != Page::Item(item) => before.clone(),
            _ => {
                let all: Vec<usize> = (0..of_address.manifest().checkpoints.len()).collect();
                let named = route.parameters.get(CHECKPOINT);
                chosen(named, &all, "results", of_address.manifest())
            }
        }
    });
    let items = AllItems::new(&source);
    let record = {
        let source = source.clone();
        Loaded::new(move || {
            let source = source.clone();
            async move { record(&source, item).await.map_err(|error| error.to_string()) }
        })
    };
    let map = source
        .manifest()
        .checkpoints
        .iter()
        .any(|checkpoint| checkpoint.map.is_some());
    let described = move || {
        match record.get() {
        None => view! { <section><h2>{format!("Item {item}")}</h2><p class="faint" role="status">"Reading the item …"</p></section> }.into_any(),
        Some(Ok(record)) => record_view(record, item, map),
        Some(Err(problem)) => view! {
            <section><h2>{format!("Item {item}")}</h2><p class="problem" role="alert">{problem}</p></section>
        }
        .into_any(),
    }
    };
    let ranked = move || {
        match checkpoint.get() {
        _ if item >= count => ().into_any(),
        Err(problem) => view! {
            <p class="problem" role="alert">{problem}</p>
            <p><a href=move || Route::new(&navigator.route().run, Page::Item(item)).to_string()>"Show the item without these settings"</a></p>
        }
        .into_any(),
        Ok(None) => view! { <p class="faint">"The report has no checkpoint yet: the run was not evaluated so far."</p> }.into_any(),
        Ok(Some(checkpoint)) => ranked_view(&source, checkpoint, item as u32, items),
    }
    };
    view! {
        {neighbours(Page::Items, item, count, Page::Item, None)}
        {described}
        {ranked}
    }
    .into_any()
}

async fn record(source: &Source, item: usize) -> Result<Item, LoadError> {
    let items = &source.manifest().items;
    let (file, place) = items.locate(item).ok_or_else(|| LoadError::Beyond {
        what: format!("item {item}"),
        count: items.count,
    })?;
    let chunk = source.items(file).await?;
    // The file was checked against the manifest; an empty record would stand for one that is not there.
    Ok(chunk.items.get(place).cloned().unwrap_or_default())
}

fn record_view(record: Item, item: usize, has_map: bool) -> AnyView {
    let navigator = expect_context::<Navigator>();
    let title = match record.title.trim() {
        "" => format!("Item {item}"),
        title => title.to_owned(),
    };
    let map = has_map.then(|| {
        let link = move || {
            navigator
                .to(Page::Map)
                .with("item", Some(&item.to_string()))
                .to_string()
        };
        view! { <p><a href=link>"Show it on the map"</a></p> }
    });
    view! {
        <section>
            <h2 dir="auto">{title}</h2>
            <p class="faint">
                {format!("Item {item}, ")} <span dir="auto">{record.id}</span>
                {format!(", {} interactions in the train split", record.train_interactions)}
            </p>
            <p class="item-text" dir="auto">{record.text}</p>
            {map}
        </section>
    }
    .into_any()
}

/// What a checkpoint does with the item.
fn ranked_view(source: &Source, checkpoint: usize, item: u32, items: AllItems) -> AnyView {
    let manifest = source.manifest();
    let has_counts = manifest.checkpoints[checkpoint].exposure.is_some();
    let counts = match has_counts {
        true => counts_view(Exposures::new(source, checkpoint), item),
        false => view! {
            <p class="note">
                "This report does not count how often items are recommended: it was written by an older langptune. \
                 The rankings below are counted instead."
            </p>
        }
        .into_any(),
    };
    let vectors = manifest.checkpoints[checkpoint].embeddings.as_ref();
    let near = match vectors {
        Some(vectors) => near_view(source, checkpoint, vectors.items.clone(), item, items),
        None => view! {
            <p class="faint">
                "The report does not keep this checkpoint's vectors. It keeps those of the best and the last, and with --report_embeddings all."
            </p>
        }
        .into_any(),
    };
    view! {
        <section>
            <div class="toolbar">{checkpoint_choice(manifest, checkpoint)}</div>
            <h2>"How often it is recommended"</h2>
            {counts}
        </section>
        <section>
            <h2>"Nearest items"</h2>
            <OnDemand reading=items.reading what="titles of all items" />
            {near}
        </section>
        <section>
            <h2>"Users"</h2>
            {users_view(source, checkpoint, item)}
        </section>
    }
    .into_any()
}

fn checkpoint_choice(manifest: &Manifest, checkpoint: usize) -> AnyView {
    let navigator = expect_context::<Navigator>();
    let options = manifest.checkpoints.iter();
    let options = options.map(|found| (found.name.clone(), format!("{}, update {}", found.name, found.update)));
    let chosen = manifest.checkpoints[checkpoint].name.clone();
    let set = Callback::new(move |name: String| navigator.set(CHECKPOINT, Some(&name)));
    view! { <Choice label="Checkpoint" options=options.collect() chosen=Signal::derive(move || chosen.clone()) on_choice=set /> }
        .into_any()
}

fn counts_view(exposures: Exposures, item: u32) -> AnyView {
    let table = move || exposures.with(|counted| counts_table(counted, item));
    view! {
        <OnDemand reading=exposures.reading what="how often items are recommended" />
        <div class="scroll" tabindex="0" role="region" aria-label="How often it is recommended">{table}</div>
    }
    .into_any()
}

fn counts_table(counted: &Counted, item: u32) -> AnyView {
    let cutoffs = counted.cutoffs();
    let head = |cutoff: &eval_core::Cutoff| view! { <th scope="col">{format!("In the best {cutoff}")}</th> };
    let row = |lists: Lists| {
        let count = |&cutoff: &eval_core::Cutoff| {
            let count = counted
                .counts(&lists, cutoff)
                .and_then(|counts| counts.get(item as usize));
            view! { <td>{count.map_or_else(|| "–".to_owned(), u32::to_string)}</td> }
        };
        let counts = cutoffs.iter().map(count).collect_view();
        let mean = counted.mean_rank(&lists, item);
        view! {
            <tr>
                <th scope="row" dir="auto">{lists.name()}</th>
                {counts}
                <td>{mean.map_or_else(|| "–".to_owned(), |mean| format!("{mean:.1}"))}</td>
            </tr>
        }
    };
    let rows = counted.lists().into_iter().map(row).collect_view();
    view! {
        <table class="counts">
            <caption>"Number of top lists that have the item, and its mean rank in those of the largest length."</caption>
            <thead>
                <tr>
                    <th scope="col">"Top lists of"</th>
                    {cutoffs.iter().map(head).collect_view()}
                    <th scope="col">"Mean rank"</th>
                </tr>
            </thead>
            <tbody>{rows}</tbody>
        </table>
    }
    .into_any()
}

/// An item's title as a link to its page.
pub fn item_link(items: AllItems, item: u32) -> AnyView {
    let navigator = expect_context::<Navigator>();
    view! {
        <a dir="auto" href=move || navigator.link(Page::Item(item as usize))>{move || items.with(|known| known.name(item))}</a>
    }
    .into_any()
}
