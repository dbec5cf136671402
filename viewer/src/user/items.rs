//! Items by number, read as they are needed: an item's place on the page is there before its title is.

use std::collections::BTreeMap;

use eval_core::report::Item;
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::Element;

use crate::address::Page;
use crate::load::Source;
use crate::navigate::Navigator;
use crate::state::{RwSignal, StoredValue};

/// The items that a page shows.
#[derive(Clone, Copy)]
pub struct Items {
    source: StoredValue<Source>,
    known: RwSignal<BTreeMap<u32, Item>>,
    /// What was the matter with the first file that could not be read.
    pub problem: RwSignal<Option<String>>,
}

impl Items {
    /// None is known yet.
    pub fn new(source: Source) -> Self {
        Self {
            source: StoredValue::new(source),
            known: RwSignal::new(BTreeMap::new()),
            problem: RwSignal::new(None),
        }
    }

    /// Reads the files of these items, those that were not asked for.
    pub fn want(self, items: impl IntoIterator<Item = u32>) {
        let mut items: Vec<u32> = items.into_iter().collect();
        items.sort_unstable();
        items.dedup();
        let Some(source) = self.source.try_get_value() else {
            return;
        };
        let per_file = source.manifest().items.per_file.max(1);
        self.known
            .try_with_untracked(|known| items.retain(|item| !known.contains_key(item)));
        for items in items.chunk_by(|a, b| *a as usize / per_file == *b as usize / per_file) {
            let (source, items) = (source.clone(), items.to_vec());
            let file = items[0] as usize / per_file;
            spawn_local(async move { self.take(file, &items, &source).await });
        }
    }

    async fn take(self, file: usize, items: &[u32], source: &Source) {
        match source.items(file).await {
            Ok(chunk) => {
                let record = |item: u32| chunk.items.get((item as usize).checked_sub(chunk.first)?);
                let found = items.iter().filter_map(|&item| Some((item, record(item)?.clone())));
                self.known.try_update(|known| known.extend(found));
            }
            Err(error) => {
                self.problem
                    .try_update(|problem| _ = problem.get_or_insert(error.to_string()));
            }
        }
    }

    /// What an item is called: its title, else its id, else its number as long as it is not known; tracked.
    pub fn title(self, item: u32) -> String {
        self.known.with(|known| match known.get(&item) {
            Some(record) if !record.title.trim().is_empty() => record.title.clone(),
            Some(record) if !record.id.is_empty() => record.id.clone(),
            _ => format!("item {item}"),
        })
    }

    /// An item's text, and interactions with it in the train split; tracked.
    pub fn text(self, item: u32) -> Option<(String, u64)> {
        self.known.with(|known| {
            let record = known.get(&item)?;
            Some((record.text.clone(), record.train_interactions))
        })
    }
}

/// An item: its title, and its text for whoever opens it.
#[component]
pub fn ItemTitle(
    /// The page's items.
    items: Items,
    /// The item's number.
    item: u32,
) -> impl IntoView {
    let navigator = expect_context::<Navigator>();
    let is_open = RwSignal::new(false);
    let text = move || {
        // Texts are long: none is in the page before it is asked for.
        let text = is_open.get().then(|| items.text(item));
        text.map(|text| match text {
            Some((text, interactions)) => view! {
                <p dir="auto" class="text">{text}</p>
                <p class="faint">
                    <a href=move || navigator.link(Page::Item(item as usize))>{format!("Item {item}")}</a>
                    {format!(", {interactions} interactions in the train split")}
                </p>
            }
            .into_any(),
            None => view! { <p class="faint">"Its file is not there yet."</p> }.into_any(),
        })
    };
    view! {
        <details class="item" on:toggle=move |event| is_open.set(event_target::<Element>(&event).has_attribute("open"))>
            <summary dir="auto">{move || items.title(item)}</summary>
            {text}
        </details>
    }
}
