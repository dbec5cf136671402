//! A dataset of ours in the published layout.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow_array::{
    ArrayRef, Int64Array, ListArray, RecordBatch, StringArray,
    builder::{Float64Builder, ListBuilder},
    types::Int64Type,
};
use parquet::{
    arrow::ArrowWriter,
    basic::{Compression, ZstdLevel},
    file::properties::WriterProperties,
};

use super::{PublishedError, SPLITS, column};
use crate::{
    data::{DataError, Dataset, Item, TemplateForm, UnfinishedFolder, User},
    progress::Progress,
};

/// Entries of dense rows that are in memory at a time: 8 MiB a column.
const DENSE_AT_ONCE: usize = 1 << 20;
/// Entries of dense rows in a row group, which readers take into memory whole: 64 MiB a column.
const DENSE_IN_GROUP: usize = 1 << 23;

/// Items in memory, and in a row group.
const ITEM_SIZES: [usize; 2] = [1024, 8192];

/// The id of `[PAD]` in the vocabularies of BERT.
const EMBEDDER_PAD: u32 = 0;

/// What tells an earlier export from other folders.
const MARKER: &str = "sessions/README.md";

/// A dataset to write in the published layout, and where to.
#[derive(Debug, Clone)]
pub struct Export {
    /// The folder that `langptune prepare` wrote.
    pub dataset: PathBuf,
    /// The folder to write; it gets `sessions` and `items`, each a set of its own.
    pub output: PathBuf,
    /// Whether an earlier export in its place is replaced.
    pub overwrite: bool,
    /// Pads prompts; by default the id after the vocabulary, which the published scripts give to the pad they add.
    pub lm_pad: Option<u32>,
    /// Pads item texts; by default 0, BERT's.
    pub embedder_pad: Option<u32>,
}

/// A file that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExportedFile {
    /// Its path in the folder.
    pub name: String,
    /// How many rows it has.
    pub rows: usize,
}

impl Export {
    /// Writes all files; the folder appears whole or not at all.
    ///
    /// # Errors
    /// A dataset that cannot be read, a pad that its tokens have, a folder that cannot be written.
    pub fn run(&self) -> Result<Vec<ExportedFile>, DataError> {
        let folder = UnfinishedFolder::begin(&self.output, self.overwrite, MARKER)?;
        let dataset = Dataset::open(&self.dataset)?;
        let writer = Writer::new(&dataset, self)?;
        let mut files = vec![writer.items(folder.path())?];
        let users = [&dataset.train, &dataset.val, &dataset.test];
        for (split, users) in SPLITS.into_iter().zip(users) {
            files.push(writer.sessions(folder.path(), split, users)?);
        }
        writer.cards(folder.path(), &files)?;
        folder.publish()?;
        Ok(files)
    }
}

struct Writer<'a> {
    dataset: &'a Dataset,
    lm_pad: u32,
    embedder_pad: u32,
}

type Columns = Result<RecordBatch, arrow_schema::ArrowError>;

impl<'a> Writer<'a> {
    fn new(dataset: &'a Dataset, export: &Export) -> Result<Self, DataError> {
        let vocabulary = dataset.manifest.lm_tokenizer.vocabulary_size;
        let writer = Self {
            dataset,
            lm_pad: export.lm_pad.unwrap_or(u32::try_from(vocabulary).unwrap_or(u32::MAX)),
            embedder_pad: export.embedder_pad.unwrap_or(EMBEDDER_PAD),
        };
        writer.check()?;
        Ok(writer)
    }

    /// Padding must be told from text, and all texts must fit.
    fn check(&self) -> Result<(), PublishedError> {
        let rules = &self.dataset.manifest.rules;
        let Dataset { train, val, test, .. } = self.dataset;
        for user in train.iter().chain(val).chain(test) {
            let what = || format!("the prompt of user {}", user.id);
            fits(&user.prompt_tokens, rules.max_prompt_tokens, what)?;
            is_no_token(self.lm_pad, &user.prompt_tokens, what, "lm-pad-id")?;
        }
        for item in &self.dataset.items {
            let what = || format!("item {}", item.id);
            fits(&item.tokens, rules.max_item_tokens, what)?;
            is_no_token(self.embedder_pad, &item.tokens, what, "embedder-pad-id")?;
        }
        Ok(())
    }

    fn items(&self, folder: &Path) -> Result<ExportedFile, DataError> {
        let name = "items/data/train-00000-of-00001.parquet".to_owned();
        let rows: Vec<(usize, &Item)> = self.dataset.items.iter().enumerate().collect();
        write(&folder.join(&name), &rows, ITEM_SIZES, "items", |rows| {
            RecordBatch::try_from_iter([
                (column::INDEX, numbers(rows.iter().map(|(index, _)| *index))),
                (
                    column::ITEM_TEXT,
                    texts(rows.iter().map(|(_, item)| item.text.as_str())),
                ),
                (
                    column::ITEM_TOKENS,
                    lists(rows.iter().map(|(_, item)| self.padded_item(item))),
                ),
            ])
        })?;
        let rows = rows.len();
        Ok(ExportedFile { name, rows })
    }

    fn sessions(&self, folder: &Path, split: &str, users: &[User]) -> Result<ExportedFile, DataError> {
        let name = format!("sessions/data/{split}-00000-of-00001.parquet");
        let rows: Vec<(usize, &User)> = users.iter().enumerate().collect();
        let items = self.dataset.items.len().max(1);
        let sizes = [DENSE_AT_ONCE, DENSE_IN_GROUP].map(|entries| (entries / items).max(1));
        write(&folder.join(&name), &rows, sizes, "sessions", |rows| {
            self.session_columns(rows)
        })?;
        let rows = rows.len();
        Ok(ExportedFile { name, rows })
    }

    fn session_columns(&self, rows: &[(usize, &User)]) -> Columns {
        let token_column = match self.dataset.manifest.rules.template {
            TemplateForm::Gemma => column::GEMMA_TOKENS,
            TemplateForm::Chat => column::LLAMA_TOKENS,
        };
        let users = || rows.iter().map(|(_, user)| *user);
        let signed = |indices: &[u32]| indices.iter().map(|index| i64::from(*index)).collect::<Vec<_>>();
        let form = &self.dataset.manifest.prompt_form;
        let prompts: Vec<String> = users().map(|user| form.replacen("{prompt}", &user.prompt, 1)).collect();
        let items = self.dataset.items.len();
        RecordBatch::try_from_iter([
            (column::INDEX, numbers(rows.iter().map(|(index, _)| *index))),
            (column::HISTORY, lists(users().map(|user| signed(&user.history)))),
            (column::TARGETS, lists(users().map(|user| signed(&user.targets)))),
            (column::DENSE_HISTORY, dense(users().map(|user| &user.history), items)),
            (column::DENSE_TARGETS, dense(users().map(|user| &user.targets), items)),
            (column::PROMPT, texts(prompts.iter().map(String::as_str))),
            (token_column, lists(users().map(|user| self.padded_prompt(user)))),
            (
                column::REFERENCE,
                texts(users().map(|user| self.reference(user).map_or("", |item| &item.text))),
            ),
            (
                column::REFERENCE_TOKENS,
                lists(users().map(|user| self.reference(user).map_or(Vec::new(), |item| self.padded_item(item)))),
            ),
        ])
    }

    /// The last item of the history.
    fn reference(&self, user: &User) -> Option<&Item> {
        user.history.last().map(|item| &self.dataset.items[*item as usize])
    }

    /// Padded on the right, as for the embedder.
    fn padded_item(&self, item: &Item) -> Vec<i64> {
        let mut row: Vec<i64> = item.tokens.iter().map(|token| i64::from(*token)).collect();
        row.resize(self.dataset.manifest.rules.max_item_tokens, self.embedder_pad.into());
        row
    }

    /// Padded on the left, as for the language model.
    fn padded_prompt(&self, user: &User) -> Vec<i64> {
        let length = self.dataset.manifest.rules.max_prompt_tokens;
        let mut row = vec![i64::from(self.lm_pad); length.saturating_sub(user.prompt_tokens.len())];
        row.extend(user.prompt_tokens.iter().map(|token| i64::from(*token)));
        row
    }

    /// A page about each of the two sets.
    ///
    /// It has no YAML head that maps splits to files: `datasets` finds them by the files' names, and keeps one cache for all
    /// local folders of a name whose heads are alike, so that a second export would be read as the first.
    fn cards(&self, folder: &Path, files: &[ExportedFile]) -> Result<(), DataError> {
        let manifest = &self.dataset.manifest;
        let (lm, embedder) = (&manifest.lm_tokenizer.name, &manifest.embedder_tokenizer.name);
        let (prompt, item) = (manifest.rules.max_prompt_tokens, manifest.rules.max_item_tokens);
        let (lm_pad, embedder_pad) = (self.lm_pad, self.embedder_pad);
        let sessions = format!(
            "# Sessions\n\nPrompts are tokenized for {lm} and padded on the left with {lm_pad} to {prompt} tokens, reference \
             profiles for {embedder} and on the right with {embedder_pad} to {item}.\n\n{}",
            split_table(files, "sessions/")
        );
        let items = format!(
            "# Items\n\nTexts are tokenized for {embedder} and padded on the right with {embedder_pad} to {item} tokens.\n\n{}",
            split_table(files, "items/")
        );
        write_text(&folder.join("sessions/README.md"), &sessions)?;
        write_text(&folder.join("items/README.md"), &items)
    }
}

/// The files of the set in the folder `set`, with the split that each is.
fn split_table(files: &[ExportedFile], set: &str) -> String {
    let mut table = "| split | file | rows |\n|---|---|---|\n".to_owned();
    for ExportedFile { name, rows } in files {
        if let Some(path) = name.strip_prefix(set) {
            let split = path.trim_start_matches("data/").split('-').next().unwrap_or_default();
            table.push_str(&format!("| {split} | `{path}` | {rows} |\n"));
        }
    }
    table
}

fn fits(tokens: &[u32], most: usize, what: impl Fn() -> String) -> Result<(), PublishedError> {
    if tokens.len() <= most {
        return Ok(());
    }
    Err(PublishedError::TooLong {
        what: what(),
        found: tokens.len(),
        most,
    })
}

fn is_no_token(
    pad: u32,
    tokens: &[u32],
    what: impl Fn() -> String,
    option: &'static str,
) -> Result<(), PublishedError> {
    if !tokens.contains(&pad) {
        return Ok(());
    }
    let what = what();
    Err(PublishedError::PadInUse { what, pad, option })
}

/// Writes rows, `at_once` in memory and `in_group` in a row group.
fn write<T>(
    path: &Path,
    rows: &[T],
    [at_once, in_group]: [usize; 2],
    unit: &'static str,
    columns: impl Fn(&[T]) -> Columns,
) -> Result<(), DataError> {
    let failed = |source| DataError::Write {
        path: path.to_owned(),
        source,
    };
    fs::create_dir_all(path.parent().unwrap_or(path)).map_err(failed)?;
    let file = File::create(path).map_err(failed)?;
    let properties = WriterProperties::builder()
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_max_row_group_row_count(Some(in_group))
        .build();
    let mut progress = Progress::start("writing", unit, Some(rows.len() as u64));
    let write = || -> parquet::errors::Result<()> {
        let mut writer = ArrowWriter::try_new(file, columns(&[])?.schema(), Some(properties))?;
        for rows in rows.chunks(at_once) {
            writer.write(&columns(rows)?)?;
            progress.add(rows.len() as u64);
        }
        writer.close()?;
        Ok(())
    };
    let written = write();
    progress.finish();
    written.map_err(|error| DataError::Parquet {
        path: path.to_owned(),
        message: error.to_string(),
    })
}

fn write_text(path: &Path, text: &str) -> Result<(), DataError> {
    fs::write(path, text).map_err(|source| DataError::Write {
        path: path.to_owned(),
        source,
    })
}

fn numbers(values: impl Iterator<Item = usize>) -> ArrayRef {
    Arc::new(Int64Array::from_iter_values(values.map(|value| value as i64)))
}

fn texts<'text>(values: impl Iterator<Item = &'text str>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

fn lists(values: impl Iterator<Item = Vec<i64>>) -> ArrayRef {
    let lists = values.map(|values| Some(values.into_iter().map(Some)));
    Arc::new(ListArray::from_iter_primitive::<Int64Type, _, _>(lists))
}

/// For each row a number an item: 1 where the row has it, else 0.
fn dense<'row>(rows: impl Iterator<Item = &'row Vec<u32>>, items: usize) -> ArrayRef {
    let mut lists = ListBuilder::new(Float64Builder::new());
    for indices in rows {
        let mut row = vec![0.0; items];
        indices.iter().for_each(|index| row[*index as usize] = 1.0);
        lists.values().append_slice(&row);
        lists.append(true);
    }
    Arc::new(lists.finish())
}
