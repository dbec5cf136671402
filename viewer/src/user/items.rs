//! Items by number, read as they are needed: an item's place on the page is there before its title is, and its text is read by
//! whoever opens it, where the report has all titles in one file.

use std::collections::BTreeMap;
use std::sync::Arc;

use eval_core::report::{Catalogue, Item};
use leptos::prelude::*;
use leptos::task::spawn_local;
use web_sys::Element;

use crate::address::Page;
use crate::load::{LoadError, Source};
use crate::navigate::Navigator;
use crate::state::{RwSignal, StoredValue};

/// The items that a page shows.
#[derive(Clone, Copy)]
pub struct Items {
    source: StoredValue<Source>,
    known: RwSignal<BTreeMap<u32, Item>>,
    /// The titles of all items, where the report has them in a file.
    catalogue: RwSignal<Option<Arc<Catalogue>>>,
    /// What was the matter with the first file that could not be read.
    pub problem: RwSignal<Option<String>>,
}

impl Items {
    /// None is known yet.
    pub fn new(source: Source) -> Self {
        Self {
            source: StoredValue::new(source),
            known: RwSignal::new(BTreeMap::new()),
            catalogue: RwSignal::new(None),
            problem: RwSignal::new(None),
        }
    }

    /// Reads the titles of these items.
    pub fn want(self, items: impl IntoIterator<Item = u32>) {
        let Some(source) = self.source.try_get_value() else {
            return;
        };
        if source.manifest().catalogue.is_none() {
            self.want_records(items);
        } else if self.catalogue.try_with_untracked(Option::is_none) == Some(true) {
            spawn_local(async move {
                match source.catalogue().await {
                    Ok(catalogue) => self.catalogue.try_set(Some(catalogue)),
                    Err(error) => self.fail(&error),
                }
            });
        }
    }

    /// Reads the files of these items, those that are not there.
    fn want_records(self, items: impl IntoIterator<Item = u32>) {
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
            Err(error) => self.fail(&error),
        }
    }

    fn fail(self, error: &LoadError) {
        self.problem
            .try_update(|problem| _ = problem.get_or_insert(error.to_string()));
    }

    /// What an item is called: its title, else its id, else its number as long as it is not known; tracked.
    pub fn title(self, item: u32) -> String {
        let is_told = |title: &&String| !title.trim().is_empty();
        let of_all = self.catalogue.with(|catalogue| {
            let title = catalogue.as_ref()?.titles.get(item as usize);
            title.filter(is_told).cloned()
        });
        let own = || {
            self.known.with(|known| {
                let record = known.get(&item)?;
                let title = Some(&record.title).filter(is_told);
                title.or(Some(&record.id).filter(is_told)).cloned()
            })
        };
        of_all.or_else(own).unwrap_or_else(|| format!("item {item}"))
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
    let toggle = move |event| {
        is_open.set(event_target::<Element>(&event).has_attribute("open"));
        items.want_records([item]);
    };
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
        <details class="item" on:toggle=toggle>
            <summary dir="auto">{move || items.title(item)}</summary>
            {text}
        </details>
    }
}
