//! A prepared dataset in memory.

use std::{fs, path::Path};

use super::{
    DataError, Manifest,
    manifest::{DataFile, FORMAT, FORMAT_VERSION, MANIFEST_FILE},
    parquet_files,
    prompt::{self, Rated},
};

/// Items and users of a prepared dataset; the format on disk is in `docs/dataset.md`.
#[derive(Debug, Clone, PartialEq)]
pub struct Dataset {
    /// Where it comes from and how it was made.
    pub manifest: Manifest,
    /// The catalogue; items are referred to by their place in it.
    pub items: Vec<Item>,
    /// Users to train on.
    pub train: Vec<User>,
    /// Users to evaluate on while training.
    pub val: Vec<User>,
    /// Users to evaluate on at the end.
    pub test: Vec<User>,
}

/// An item of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its `parent_asin`.
    pub id: String,
    /// Its title alone.
    pub title: String,
    /// The text that stands for it in prompts and before the embedder.
    pub text: String,
    /// Its categories.
    pub categories: Vec<String>,
    /// The embedder's tokens of `text`, special tokens included.
    pub tokens: Vec<u32>,
    /// How many reviews it has from the training users: its popularity.
    pub train_count: u32,
}

/// A user. The reference profile is the text (and the tokens) of the last item of the history.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// The `user_id`.
    pub id: String,
    /// The first items of the session, oldest first.
    pub history: Vec<u32>,
    /// What is to be found: the first later item that is not in the history.
    pub targets: Vec<u32>,
    /// All items after the history, oldest first, repetitions included.
    pub later: Vec<u32>,
    /// The ratings of the history.
    pub ratings: Vec<f32>,
    /// The reviews of the history.
    pub reviews: Vec<String>,
    /// What the language model is asked, instruction included, without turn markers.
    pub prompt: String,
    /// The language model's tokens of the prompt, turn markers and BOS included.
    pub prompt_tokens: Vec<u32>,
    /// Whether the history ends at the very time of the target, so that file order decided between them.
    pub tied_target_time: bool,
}

/// The names of the files in a dataset's folder.
pub(super) const ITEMS_FILE: &str = "items.parquet";
pub(super) const USER_FILES: [&str; 3] = ["users-train.parquet", "users-val.parquet", "users-test.parquet"];

impl Dataset {
    /// Reads the folder that `langptune prepare` wrote, and checks it: version, row counts, lengths and indices.
    ///
    /// # Errors
    /// Names the file, and the row where one is wrong.
    pub fn open(folder: &Path) -> Result<Self, DataError> {
        let manifest = read_manifest(&folder.join(MANIFEST_FILE))?;
        let rows_of = |name: &str| {
            let file = manifest.files.iter().find(|file| file.name == name);
            file.map(|file| file.rows).ok_or_else(|| DataError::Manifest {
                path: folder.join(MANIFEST_FILE),
                message: format!("`files` does not list {name}"),
            })
        };
        let items = parquet_files::read_items(&folder.join(ITEMS_FILE))?;
        check_rows(&folder.join(ITEMS_FILE), items.len(), rows_of(ITEMS_FILE)?)?;
        let users = |name: &str| -> Result<Vec<User>, DataError> {
            let path = folder.join(name);
            let mut users = parquet_files::read_users(&path)?;
            check_rows(&path, users.len(), rows_of(name)?)?;
            for (row, user) in users.iter_mut().enumerate() {
                check_user(user, items.len(), manifest.rules.history).map_err(|problem| DataError::Row {
                    path: path.clone(),
                    row,
                    problem,
                })?;
                user.prompt = prompt_of(user, &items, &manifest.rules.instruction);
            }
            Ok(users)
        };
        let [train, val, test] = USER_FILES;
        let (train, val, test) = (users(train)?, users(val)?, users(test)?);
        Ok(Self {
            manifest,
            items,
            train,
            val,
            test,
        })
    }

    /// Writes all files into `folder`, which exists and is empty. The manifest's list of files is made here.
    pub(super) fn write(&mut self, folder: &Path) -> Result<(), DataError> {
        let mut files = vec![DataFile {
            name: ITEMS_FILE.to_owned(),
            rows: self.items.len(),
        }];
        parquet_files::write_items(&folder.join(ITEMS_FILE), &self.items)?;
        for (name, users) in USER_FILES.into_iter().zip([&self.train, &self.val, &self.test]) {
            parquet_files::write_users(&folder.join(name), users)?;
            files.push(DataFile {
                name: name.to_owned(),
                rows: users.len(),
            });
        }
        self.manifest.files = files;
        write_json(&folder.join("stats.json"), &self.manifest.stats)?;
        write_json(&folder.join(MANIFEST_FILE), &self.manifest)
    }
}

/// The prompt follows from the history, so it is not stored.
pub(super) fn prompt_of(user: &User, items: &[Item], instruction: &str) -> String {
    let history = user.history.iter().zip(&user.ratings).zip(&user.reviews);
    prompt::prompt(
        instruction,
        history.map(|((item, rating), review)| Rated {
            item_text: &items[*item as usize].text,
            rating: *rating,
            review,
        }),
    )
}

fn read_manifest(path: &Path) -> Result<Manifest, DataError> {
    let wrong = |message: String| DataError::Manifest {
        path: path.to_owned(),
        message,
    };
    let text = fs::read_to_string(path).map_err(|error| wrong(error.to_string()))?;
    let value: serde_json::Value = serde_json::from_str(&text).map_err(|error| wrong(error.to_string()))?;
    // Before anything else: another version may have other fields.
    if value["format"] != FORMAT {
        return Err(wrong(format!("`format` is {}, expected {FORMAT:?}", value["format"])));
    }
    match value["version"].as_u64() {
        Some(FORMAT_VERSION) => {}
        Some(found) => {
            return Err(DataError::Version {
                path: path.to_owned(),
                found,
                expected: FORMAT_VERSION,
            });
        }
        None => return Err(wrong(format!("`version` is {}, expected a number", value["version"]))),
    }
    serde_json::from_value(value).map_err(|error| wrong(error.to_string()))
}

fn check_rows(path: &Path, found: usize, expected: usize) -> Result<(), DataError> {
    if found == expected {
        return Ok(());
    }
    Err(DataError::RowCount {
        path: path.to_owned(),
        found,
        expected,
    })
}

fn check_user(user: &User, items: usize, history: usize) -> Result<(), String> {
    let columns = [
        ("history", user.history.len()),
        ("ratings", user.ratings.len()),
        ("reviews", user.reviews.len()),
    ];
    for (name, length) in columns {
        if length != history {
            return Err(format!("`{name}` has {length} entries, expected {history}"));
        }
    }
    for (name, indices) in [
        ("history", &user.history),
        ("target", &user.targets),
        ("later", &user.later),
    ] {
        if let Some(index) = indices.iter().find(|index| **index as usize >= items) {
            return Err(format!("`{name}` has item {index}, but there are {items} items"));
        }
    }
    if user.prompt_tokens.is_empty() {
        return Err("`prompt_tokens` is empty".to_owned());
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl serde::Serialize) -> Result<(), DataError> {
    let failed = |source| DataError::Write {
        path: path.to_owned(),
        source,
    };
    let mut text = serde_json::to_string_pretty(value).map_err(|error| failed(error.into()))?;
    text.push('\n');
    fs::write(path, text).map_err(failed)
}
