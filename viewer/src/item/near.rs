//! The items whose vectors are nearest to an item's.

use std::sync::Arc;

use eval_core::report::F16File;
use eval_core::retrieval::{EmbeddingStore, Query, Retriever};
use eval_core::scores::ScoredItem;
use eval_core::{Cutoff, Error};
use leptos::prelude::*;
use leptos::task::spawn_local;

use super::page::item_link;
use crate::items::known::AllItems;
use crate::load::Source;
use crate::state::{RwSignal, StoredValue};

/// So many items are shown.
const NEAREST: usize = 20;

/// Files of up to so many bytes are read without being asked for.
const READ_UNASKED_BYTES: usize = 8 << 20;

/// The nearest items by cosine, the nearest first; none for an item beyond the vectors.
///
/// # Errors
/// Those of [`Retriever::search`].
pub fn nearest(vectors: &Retriever, item: u32, count: Cutoff) -> Result<Vec<ScoredItem>, Error> {
    let items = vectors.items();
    if item as usize >= items.rows() {
        return Ok(Vec::new());
    }
    let own = EmbeddingStore::from_f32(items.row(item as usize).into_owned(), items.dims())?;
    let query = Query {
        masked: &[item],
        targets: &[],
    };
    let found = vectors.search(&own, &[query], Some(count))?;
    Ok(found.into_iter().flat_map(|found| found.top).collect())
}

/// How far the reading is.
#[derive(Clone, Debug, PartialEq)]
enum State {
    NotAsked,
    /// Bytes that are there.
    Reading(usize),
    There(Vec<ScoredItem>),
    Problem(String),
}

/// The nearest items on the page.
pub fn near_view(source: &Source, file: F16File, item: u32, items: AllItems) -> AnyView {
    let bytes = file.rows.saturating_mul(file.dims).saturating_mul(2);
    let state = RwSignal::new(State::NotAsked);
    let is_there = source.kept_vectors(&file).is_some();
    let source = StoredValue::new((source.clone(), file));
    let read = move || {
        let Some((source, file)) = source.try_get_value() else {
            return;
        };
        state.set(State::Reading(0));
        spawn_local(async move {
            let progress = move |bytes| state.try_set(State::Reading(bytes));
            let read = source.vectors(&file, &progress).await;
            state.try_set(outcome(read.map_err(|error| error.to_string()), item));
        });
    };
    if is_there || bytes <= READ_UNASKED_BYTES {
        read();
    }
    let size = megabytes(bytes);
    let shown = move || {
        match state.get() {
        State::NotAsked => view! {
            <p>
                "The items' vectors of this checkpoint are in a file of "{size.clone()}". "
                <button type="button" on:click=move |_| read()>"Read the vectors"</button>
            </p>
        }
        .into_any(),
        State::Reading(found) => view! {
            <label class="faint">
                "Reading vectors " <progress max=bytes value=found></progress> " " {megabytes(found)} " of " {size.clone()}
            </label>
        }
        .into_any(),
        State::There(near) => near_list(near, items),
        State::Problem(problem) => view! {
            <p class="problem" role="alert">
                {problem} ". "
                <button type="button" on:click=move |_| read()>"Try again"</button>
            </p>
        }
        .into_any(),
    }
    };
    shown.into_any()
}

fn outcome(read: Result<Arc<Retriever>, String>, item: u32) -> State {
    let found = read.and_then(|vectors| {
        let near = Cutoff::new(NEAREST).and_then(|count| nearest(&vectors, item, count));
        near.map_err(|error| error.to_string())
    });
    found.map_or_else(State::Problem, State::There)
}

fn near_list(near: Vec<ScoredItem>, items: AllItems) -> AnyView {
    let row = |scored: ScoredItem| {
        view! {
            <tr>
                <th scope="row">{item_link(items, scored.item)}</th>
                <td>{format!("{:.4}", scored.score)}</td>
            </tr>
        }
    };
    view! {
        <div class="scroll" tabindex="0" role="region" aria-label="Nearest items">
            <table class="near">
                <thead><tr><th scope="col">"Item"</th><th scope="col">"Cosine"</th></tr></thead>
                <tbody>{near.into_iter().map(row).collect_view()}</tbody>
            </table>
        </div>
    }
    .into_any()
}

/// A size in words, such as `204.8 MB`.
fn megabytes(bytes: usize) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::retrieval::Similarity;

    use super::*;

    #[test]
    fn the_nearest_come_first_and_the_item_itself_is_not_among_them() {
        let store = EmbeddingStore::from_f32(vec![1.0, 0.0, 0.0, 2.0, 3.0, 3.0, 5.0, 0.0], 2).unwrap();
        let vectors = Retriever::new(store.to_f16().unwrap(), Similarity::Cosine).unwrap();
        let near = nearest(&vectors, 0, Cutoff::new(2).unwrap()).unwrap();
        assert_eq!(near.iter().map(|scored| scored.item).collect::<Vec<_>>(), [3, 2]);
        assert_eq!(near[0].score, 1.0);
        assert!((near[1].score - 0.5f32.sqrt()).abs() < 1e-6);
        assert_eq!(nearest(&vectors, 4, Cutoff::new(2).unwrap()).unwrap(), []);
    }

    #[test]
    fn a_size_is_in_megabytes() {
        assert_eq!(megabytes(204_800_000), "204.8 MB");
    }
}
