//! Which Parquet files of a folder hold items, and which hold the sessions of which split.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    path::{Path, PathBuf},
};

use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::{PublishedError, SPLITS, column};

/// `config/split/file.parquet` is the deepest that the hub writes.
const DEEPEST: usize = 4;

/// Other names of the splits, as `datasets` knows them.
const SPLIT_WORDS: [&[&str]; 3] = [
    &["train", "training"],
    &["val", "valid", "validation", "dev"],
    &["test", "testing", "eval", "evaluation"],
];

/// The files of items, in order.
pub(super) fn item_files(folder: &Path) -> Result<Vec<PathBuf>, PublishedError> {
    let found = Found::search(folder)?;
    if found.items.is_empty() {
        return Err(found.none("items"));
    }
    check_whole(folder, "the items", &found.items)?;
    Ok(found.items)
}

/// The files of sessions of train, val and test, in order.
pub(super) fn session_files(folder: &Path) -> Result<[Vec<PathBuf>; 3], PublishedError> {
    let found = Found::search(folder)?;
    if found.sessions.is_empty() {
        return Err(found.none("sessions"));
    }
    let mut splits = [const { Vec::new() }; 3];
    for path in &found.sessions {
        if let Some(split) = split_of(path.strip_prefix(folder).unwrap_or(path)) {
            splits[split].push(path.clone());
        }
    }
    for (files, split) in splits.iter().zip(SPLITS) {
        if files.is_empty() {
            let shown = |path: &PathBuf| path.strip_prefix(folder).unwrap_or(path).display().to_string();
            return Err(PublishedError::MissingSplit {
                folder: folder.to_owned(),
                split,
                found: found.sessions.iter().map(shown).collect(),
            });
        }
        check_whole(folder, split, files)?;
    }
    Ok(splits)
}

/// The Parquet files of a folder by what their columns say, each list sorted by path.
struct Found {
    folder: PathBuf,
    items: Vec<PathBuf>,
    sessions: Vec<PathBuf>,
    others: Vec<(PathBuf, Vec<String>)>,
    saved_to_disk: bool,
}

impl Found {
    fn search(folder: &Path) -> Result<Self, PublishedError> {
        let mut found = Self {
            folder: folder.to_owned(),
            items: Vec::new(),
            sessions: Vec::new(),
            others: Vec::new(),
            saved_to_disk: ["dataset_dict.json", "dataset_info.json"].map(|name| folder.join(name).is_file())
                != [false; 2],
        };
        let mut paths = Vec::new();
        collect(folder, DEEPEST, &mut paths)?;
        paths.sort();
        for path in paths {
            let columns = columns_of(&path)?;
            let has = |names: &[&str]| names.iter().any(|name| columns.iter().any(|column| column == name));
            if has(&column::OF_ITEMS) {
                found.items.push(path);
            } else if has(&column::OF_SESSIONS) {
                found.sessions.push(path);
            } else {
                found.others.push((path, columns));
            }
        }
        Ok(found)
    }

    /// Why there is nothing to read.
    fn none(self, wanted: &'static str) -> PublishedError {
        let has_the_rest = !(self.items.is_empty() && self.sessions.is_empty());
        if let (false, Some((path, columns))) = (has_the_rest, self.others.into_iter().next()) {
            return PublishedError::OtherColumns { path, columns };
        }
        let found = match (has_the_rest, wanted) {
            (true, "items") => {
                "sessions alone: give the items' folder or hub id as --task.item-dataset (train) or --item-dataset"
            }
            (true, _) => "items alone: give the sessions' folder or hub id as --dataset",
            (false, _) if self.saved_to_disk => {
                "Arrow files of `save_to_disk`: write each split with `to_parquet(\"train.parquet\")` and so on"
            }
            (false, _) => "neither: give such a folder, or a hub id owner/name",
        };
        PublishedError::NoFiles {
            folder: self.folder,
            wanted,
            found: found.to_owned(),
        }
    }
}

fn collect(folder: &Path, depth: usize, paths: &mut Vec<PathBuf>) -> Result<(), PublishedError> {
    let failed = |source| PublishedError::Read {
        path: folder.to_owned(),
        source,
    };
    for entry in fs::read_dir(folder).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let path = entry.path();
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        // The hub's cache is made of links, which `is_dir` and `is_file` follow.
        if path.is_dir() && depth > 1 {
            collect(&path, depth - 1, paths)?;
        } else if path.is_file() && path.extension().is_some_and(|extension| extension == "parquet") {
            paths.push(path);
        }
    }
    Ok(())
}

fn columns_of(path: &Path) -> Result<Vec<String>, PublishedError> {
    let file = File::open(path).map_err(|source| PublishedError::Read {
        path: path.to_owned(),
        source,
    })?;
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| PublishedError::Damaged {
        path: path.to_owned(),
        message: error.to_string(),
    })?;
    let fields = builder.schema().fields().iter();
    Ok(fields.map(|field| field.name().clone()).collect())
}

/// The split that a path inside a set speaks of: the file's name goes before its folders' names.
fn split_of(path: &Path) -> Option<usize> {
    let mut parts: Vec<String> = path
        .components()
        .map(|part| part.as_os_str().to_string_lossy().to_lowercase())
        .collect();
    if let Some(name) = parts.last_mut() {
        *name = name.trim_end_matches(".parquet").to_owned();
    }
    parts.iter().rev().find_map(|part| {
        let mut words = part.split(|letter: char| !letter.is_ascii_alphabetic());
        words.find_map(|word| SPLIT_WORDS.iter().position(|names| names.contains(&word)))
    })
}

/// `train-00000-of-00002` (a hash may follow) is file 0 of 2.
fn shard(path: &Path) -> Option<(usize, usize)> {
    let name = path.file_stem()?.to_str()?;
    let (before, after) = name.split_once("-of-")?;
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).collect::<String>();
    let number = before.rsplit('-').next()?.parse().ok()?;
    Some((number, digits(after).parse().ok()?))
}

fn check_whole(folder: &Path, what: &'static str, files: &[PathBuf]) -> Result<(), PublishedError> {
    let mut sets: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for (number, of) in files.iter().filter_map(|path| shard(path)) {
        sets.entry(of).or_default().insert(number);
    }
    match sets.into_iter().find(|(of, numbers)| numbers.len() != *of) {
        None => Ok(()),
        Some((expected, numbers)) => Err(PublishedError::MissingFiles {
            folder: folder.to_owned(),
            what,
            found: numbers.len(),
            expected,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_split_is_told_by_the_file_or_else_by_its_folders() {
        let splits = [
            ("data/train-00000-of-00001.parquet", Some(0)),
            ("data/val-00000-of-00001-0a1b2c3d.parquet", Some(1)),
            ("validation.parquet", Some(1)),
            ("default/test/0000.parquet", Some(2)),
            ("my-test-set/train/0000.parquet", Some(0)),
            ("train_test/val.parquet", Some(1)),
            ("part-0.parquet", None),
            ("trainees.parquet", None),
        ];
        for (path, split) in splits {
            assert_eq!(split_of(Path::new(path)), split, "{path}");
        }
    }

    #[test]
    fn files_that_their_names_count_must_all_be_there() {
        let two = |name: &str| PathBuf::from(format!("data/train-{name}.parquet"));
        let check = |files: &[PathBuf]| check_whole(Path::new("set"), "train", files);
        assert!(check(&[two("00000-of-00002"), two("00001-of-00002-ab12")]).is_ok());
        assert!(check(&[PathBuf::from("train.parquet")]).is_ok());
        let message = check(&[two("00001-of-00002")]).err().map(|error| error.to_string());
        assert_eq!(
            message.as_deref(),
            Some("set: 1 of 2 Parquet files of train; download the set again, whole")
        );
    }
}
