//! Titles and popularity of all items: from the report's catalogue, or from the item files of a report that has none.

use std::sync::Arc;

use eval_core::report::{Catalogue, ItemChunk, Manifest};

use crate::load::Source;
use crate::reading::Reading;
use crate::state::{RwSignal, StoredValue};

/// What is known of the items so far.
#[derive(Clone, Debug, Default)]
pub struct Known {
    catalogue: Arc<Catalogue>,
    /// The titles in lower case, for a search; empty as long as an item is not known.
    folded: Vec<String>,
    /// Which item files are there; empty where the catalogue is.
    files: Vec<bool>,
    per_file: usize,
    count: usize,
}

impl Known {
    /// Nothing is known yet.
    pub fn new(manifest: &Manifest) -> Self {
        Self {
            files: vec![false; manifest.items.files.len()],
            per_file: manifest.items.per_file.max(1),
            count: manifest.items.count,
            ..Self::default()
        }
    }

    /// Number of items, known or not.
    pub fn count(&self) -> usize {
        self.count
    }

    /// Takes all items at once.
    pub fn take_catalogue(&mut self, catalogue: Arc<Catalogue>) {
        self.folded = catalogue.titles.iter().map(|title| title.to_lowercase()).collect();
        self.catalogue = catalogue;
        self.files.clear();
    }

    /// Takes a file of items.
    pub fn take_file(&mut self, file: usize, chunk: &ItemChunk) {
        let Some(is_there) = self.files.get_mut(file) else {
            return;
        };
        *is_there = true;
        let catalogue = Arc::make_mut(&mut self.catalogue);
        catalogue.titles.resize(self.count, String::new());
        catalogue.train_interactions.resize(self.count, 0);
        self.folded.resize(self.count, String::new());
        for (place, item) in (chunk.first..self.count).zip(&chunk.items) {
            let title = if item.title.trim().is_empty() {
                &item.id
            } else {
                &item.title
            };
            catalogue.titles[place].clone_from(title);
            catalogue.train_interactions[place] = item.train_interactions;
            self.folded[place] = title.to_lowercase();
        }
    }

    fn is_known(&self, item: usize) -> bool {
        item < self.count
            && match self.files.is_empty() {
                true => item < self.catalogue.titles.len(),
                false => self.files.get(item / self.per_file).copied().unwrap_or(false),
            }
    }

    /// An item's title; `None` where it is not known, or is empty.
    pub fn title(&self, item: u32) -> Option<&str> {
        let title = self.catalogue.titles.get(item as usize)?;
        Some(title.as_str()).filter(|title| !title.trim().is_empty())
    }

    /// What an item is called: its title, or else its number.
    pub fn name(&self, item: u32) -> String {
        self.title(item).map_or_else(|| format!("item {item}"), str::to_owned)
    }

    /// The title in lower case; empty as long as it is not known.
    pub fn folded(&self, item: u32) -> &str {
        self.folded.get(item as usize).map_or("", String::as_str)
    }

    /// Interactions with an item in the train split; `None` as long as that is not known.
    pub fn interactions(&self, item: u32) -> Option<u64> {
        let found = self.catalogue.train_interactions.get(item as usize).copied();
        found.filter(|_| self.is_known(item as usize))
    }
}

/// What is known of the items, and the reading of more.
#[derive(Clone, Copy, Debug)]
pub struct AllItems {
    known: StoredValue<Known>,
    /// Changes with what is known.
    pub version: RwSignal<u32>,
    /// The reading of the catalogue, or of the item files.
    pub reading: Reading,
}

impl AllItems {
    /// Reads the catalogue, or the item files unless they are many.
    pub fn new(source: &Source) -> Self {
        let known = StoredValue::new(Known::new(source.manifest()));
        let version = RwSignal::new(0);
        let has_catalogue = source.manifest().catalogue.is_some();
        let needed = if has_catalogue {
            1
        } else {
            source.manifest().items.files.len()
        };
        let source = source.clone();
        let read = move |file: usize| {
            let source = source.clone();
            Box::pin(async move {
                if has_catalogue {
                    let catalogue = source.catalogue().await?;
                    known.try_update_value(|known| known.take_catalogue(catalogue));
                } else {
                    let chunk = source.items(file).await?;
                    known.try_update_value(|known| known.take_file(file, &chunk));
                }
                version.try_update(|version| *version += 1);
                Ok(())
            }) as _
        };
        Self {
            known,
            version,
            reading: Reading::new(needed, Box::new(read)),
        }
    }

    /// Uses what is known; tracked.
    pub fn with<T>(self, use_it: impl FnOnce(&Known) -> T) -> T {
        self.version.track();
        self.known.with_value(use_it)
    }

    /// Uses what is known now.
    pub fn with_untracked<T>(self, use_it: impl FnOnce(&Known) -> T) -> Option<T> {
        self.known.try_with_value(use_it)
    }
}

#[cfg(test)]
mod tests {
    use eval_core::report::{Chunks, Item};

    use super::*;

    fn manifest() -> Manifest {
        Manifest {
            items: Chunks::in_files("items", 3, 2),
            ..Manifest::default()
        }
    }

    #[test]
    fn a_catalogue_tells_of_all_items_at_once() {
        let mut known = Known::new(&manifest());
        assert_eq!((known.name(1).as_str(), known.interactions(1)), ("item 1", None));
        known.take_catalogue(Arc::new(Catalogue {
            titles: vec!["Ünder".into(), " ".into(), "c".into()],
            train_interactions: vec![7, 0, 2],
        }));
        assert_eq!(
            (known.title(0), known.folded(0), known.interactions(0)),
            (Some("Ünder"), "ünder", Some(7))
        );
        assert_eq!((known.name(1).as_str(), known.interactions(1)), ("item 1", Some(0)));
        assert_eq!((known.title(3), known.interactions(3), known.count()), (None, None, 3));
    }

    #[test]
    fn files_tell_of_their_items_alone_and_an_item_without_title_has_its_id() {
        let mut known = Known::new(&manifest());
        let item = Item {
            id: "B00".into(),
            train_interactions: 5,
            ..Item::default()
        };
        known.take_file(
            1,
            &ItemChunk {
                first: 2,
                items: vec![item],
            },
        );
        assert_eq!((known.title(2), known.interactions(2)), (Some("B00"), Some(5)));
        assert_eq!(
            (known.title(0), known.interactions(0)),
            (None, None),
            "its file is not there"
        );
    }
}
