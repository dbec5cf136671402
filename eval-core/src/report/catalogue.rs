//! What every page wants to know of all items at once.

use serde::{Deserialize, Serialize};

use super::check::expect;
use super::{Item, Manifest};
use crate::Error;

/// `catalogue.json`: titles and popularity of all items, column by column, so that one file tells them instead of every
/// [`ItemChunk`](super::ItemChunk).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    /// The title of each item.
    pub titles: Vec<String>,
    /// Interactions with each item in the train split.
    pub train_interactions: Vec<u64>,
}

impl Catalogue {
    /// Adds the next item.
    pub fn push(&mut self, item: &Item) {
        self.titles.push(item.title.clone());
        self.train_interactions.push(item.train_interactions);
    }

    /// Whether it tells of every item of the manifest.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`](crate::ErrorKind::Inconsistent).
    pub fn check(&self, manifest: &Manifest) -> Result<(), Error> {
        let items = manifest.items.count;
        expect("catalogue.titles".to_owned(), &items, &self.titles.len())?;
        expect(
            "catalogue.train_interactions".to_owned(),
            &items,
            &self.train_interactions.len(),
        )
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::{Chunks, read_chunk, write_json};
    use super::*;

    #[test]
    fn a_catalogue_tells_of_every_item() {
        let item = |title: &str, train_interactions| Item {
            title: title.into(),
            train_interactions,
            ..Item::default()
        };
        let mut catalogue = Catalogue::default();
        for item in [item("a", 3), item("b", 0), item("c", 1)] {
            catalogue.push(&item);
        }
        let mut file = Vec::new();
        write_json(&mut file, &catalogue).unwrap();
        let json = r#"{"titles":["a","b","c"],"train_interactions":[3,0,1]}"#;
        assert_eq!(String::from_utf8(file).unwrap(), json);
        let manifest = Manifest {
            items: Chunks::in_files("items", 3, 2),
            ..Manifest::default()
        };
        catalogue.check(&manifest).unwrap();
        let short: Catalogue =
            read_chunk(r#"{"titles": ["a", "b", "c"], "train_interactions": [1]}"#.as_bytes()).unwrap();
        let error = short.check(&manifest).unwrap_err();
        assert_eq!(error.to_string(), "catalogue.train_interactions: expected 3, found 1");
    }
}
