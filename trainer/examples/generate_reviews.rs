//! Writes a raw set of any size in the layout of Amazon Reviews 2023, to measure `langptune prepare` with.
//!
//! ```text
//! cargo run --release -p trainer --example generate_reviews -- 2000000 FOLDER
//! ```
//!
//! As in Movies & TV there is one user for 2.7 reviews and one item for 23, both long-tailed, and a review has some 300
//! characters. Three quarters of the reviews are of described items. The same size gives the same files.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use anyhow::Context;
use flate2::{Compression, write::GzEncoder};

const WORDS: [&str; 16] = [
    "quiet",
    "harbour",
    "winter",
    "train",
    "letters",
    "detective",
    "stranger",
    "daughter",
    "island",
    "ending",
    "music",
    "story",
    "acting",
    "season",
    "comedy",
    "the",
];

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let reviews: u64 = arguments
        .next()
        .context("usage: generate_reviews REVIEWS FOLDER")?
        .parse()?;
    let folder: PathBuf = arguments
        .next()
        .context("usage: generate_reviews REVIEWS FOLDER")?
        .into();
    std::fs::create_dir_all(&folder)?;
    let mut random = Random(1);
    let items = (reviews / 23).max(1);
    write_metadata(&folder.join("meta.jsonl.gz"), items, &mut random)?;
    write_reviews(&folder.join("reviews.jsonl.gz"), reviews, items, &mut random)?;
    Ok(())
}

fn write_metadata(path: &Path, items: u64, random: &mut Random) -> io::Result<()> {
    let mut file = gzip(path)?;
    for item in 0..items {
        let words = if random.below(10) == 0 {
            600
        } else {
            20 + random.below(200)
        };
        let title = random.text(3);
        let description = random.text(words);
        let rating = 1.0 + random.below(41) as f64 / 10.0;
        writeln!(
            file,
            r#"{{"main_category": "Movies & TV", "title": "{title}", "average_rating": {rating:?}, "description": ["{description}"], "price": null, "categories": ["Movies & TV", "Drama"], "parent_asin": "B{item:09}"}}"#
        )?;
    }
    file.finish()?.flush()
}

fn write_reviews(path: &Path, reviews: u64, items: u64, random: &mut Random) -> io::Result<()> {
    let mut file = gzip(path)?;
    let users = (reviews * 10 / 27).max(1);
    for _ in 0..reviews {
        let user = random.long_tailed(users);
        // Items beyond the metadata: their reviews are left out.
        let item = random.long_tailed(items * 2);
        let rating = 1 + random.below(5);
        let time = 1_200_000_000_000 + random.below(450_000_000_000);
        let words = 5 + random.below(90);
        let text = random.text(words);
        writeln!(
            file,
            r#"{{"rating": {rating}.0, "title": "", "text": "{text}", "images": [], "asin": "B{item:09}", "parent_asin": "B{item:09}", "user_id": "AGKHLEW2SOWHNMFQIJGBECAF{user:010}", "timestamp": {time}, "helpful_vote": 0, "verified_purchase": true}}"#
        )?;
    }
    file.finish()?.flush()
}

fn gzip(path: &Path) -> io::Result<GzEncoder<BufWriter<File>>> {
    Ok(GzEncoder::new(BufWriter::new(File::create(path)?), Compression::fast()))
}

/// SplitMix64 (Steele, Lea & Flood, 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Mostly small numbers below `limit`: half of the draws fall on the first 18 % of them.
    fn long_tailed(&mut self, limit: u64) -> u64 {
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        ((unit.powf(2.5) * limit as f64) as u64).min(limit - 1)
    }

    fn text(&mut self, words: u64) -> String {
        let words: Vec<&str> = (0..words)
            .map(|_| WORDS[self.below(WORDS.len() as u64) as usize])
            .collect();
        words.join(" ")
    }
}
