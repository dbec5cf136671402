//! A world as files in the layout of Amazon Reviews 2023, which `langptune prepare` reads as any other set.

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use flate2::{Compression, GzBuilder};
use serde_json::{Value, json};

use super::aspects::Aspect;
use super::world::{Film, Review, World};
use crate::TrainError;

/// The files of a world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawFiles {
    /// One review a line.
    pub reviews: PathBuf,
    /// One film a line.
    pub metadata: PathBuf,
}

impl World {
    /// The file that says what a world is.
    pub const ABOUT: &str = "world.json";

    /// Writes `reviews.jsonl.gz`, `meta.jsonl.gz` and `world.json`, which says that all of it is made up, into `folder`.
    ///
    /// # Errors
    /// When the folder or a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<RawFiles, TrainError> {
        fs::create_dir_all(folder).map_err(|source| TrainError::io(folder, source))?;
        let files = RawFiles {
            reviews: folder.join("reviews.jsonl.gz"),
            metadata: folder.join("meta.jsonl.gz"),
        };
        let about = serde_json::to_vec_pretty(&self.about()).unwrap_or_default();
        models::write_atomically(&folder.join(Self::ABOUT), |out| out.write_all(&about))?;
        write_lines(&files.metadata, self.films.iter().map(|film| self.metadata(film)))?;
        write_lines(&files.reviews, self.reviews.iter().map(|review| self.review(review)))?;
        Ok(files)
    }

    fn metadata(&self, film: &Film) -> Value {
        json!({
            "parent_asin": film.id,
            "title": film.title,
            "description": [film.description],
            "categories": ["Movies"],
            "average_rating": film.average_rating,
            "price": film.price,
            "store": self.label(),
        })
    }

    fn review(&self, review: &Review) -> Value {
        json!({
            "user_id": self.people[review.person].id,
            "parent_asin": self.films[review.film].id,
            "rating": f64::from(review.rating),
            "timestamp": review.timestamp,
            "text": review.text,
        })
    }

    /// What the world is, and the truth that the demo has to find out.
    fn about(&self) -> Value {
        json!({
            "synthetic": true,
            "label": self.label(),
            "seed": self.seed,
            "films": self.films.len(),
            "people": self.people.len(),
            "reviews": self.reviews.len(),
            "decisive_aspects": self.decisive.map(Aspect::name),
        })
    }

    fn label(&self) -> String {
        format!("made-up world of langptune demo, seed {}", self.seed)
    }
}

/// Writes one JSON object a line, gzip without a time stamp: the same lines give the same bytes.
fn write_lines(path: &Path, lines: impl Iterator<Item = Value>) -> Result<(), TrainError> {
    models::write_atomically(path, |out| {
        let mut gzip = GzBuilder::new().mtime(0).write(out, Compression::default());
        for line in lines {
            serde_json::to_writer(&mut gzip, &line).map_err(io::Error::from)?;
            gzip.write_all(b"\n")?;
        }
        gzip.finish().map(|_| ())
    })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::demo::WorldSize;

    #[test]
    fn the_same_seed_gives_the_same_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let size = WorldSize { films: 60, people: 40 };
        let files = ["one", "two"].map(|name| World::generate(5, size).write(&folder.path().join(name)).unwrap());
        for file in ["reviews.jsonl.gz", "meta.jsonl.gz", "world.json"] {
            let [one, two] = ["one", "two"].map(|name| fs::read(folder.path().join(name).join(file)).unwrap());
            assert!(one == two, "{file}");
        }
        assert!(files[0].reviews.is_file() && files[0].metadata.is_file());
    }
}
