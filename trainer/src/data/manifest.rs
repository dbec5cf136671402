//! What a dataset says about itself: where it comes from, the rules it was made by, and what they left.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::Path,
};

use models::text::{PromptTemplate, TextError, Tokenizer};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{DataError, prompt::FILM_INSTRUCTION};

/// The name that every manifest carries.
pub const FORMAT: &str = "langptune-dataset";
/// The version of the dataset format that this program writes and reads.
pub const FORMAT_VERSION: u64 = 1;
/// The file name of the manifest.
pub const MANIFEST_FILE: &str = "manifest.json";

/// `manifest.json` of a dataset.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// [`FORMAT`].
    pub format: String,
    /// [`FORMAT_VERSION`].
    pub version: u64,
    /// The program that wrote it.
    pub created_by: String,
    /// The reviews file.
    pub reviews: Source,
    /// The metadata file.
    pub metadata: Source,
    /// How the data was filtered, split and written into prompts.
    pub rules: Rules,
    /// The rendered form of a prompt, `{prompt}` standing for its text.
    pub prompt_form: String,
    /// The tokenizer of the prompts.
    pub lm_tokenizer: TokenizerSource,
    /// The tokenizer of the items.
    pub embedder_tokenizer: TokenizerSource,
    /// What each step left.
    pub stats: Stats,
    /// The Parquet files.
    pub files: Vec<DataFile>,
}

/// A raw file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Its name, without the folder.
    pub name: String,
    /// Its size on disk.
    pub bytes: u64,
}

impl Source {
    pub(super) fn of(path: &Path) -> Result<Self, DataError> {
        let metadata = path.metadata().map_err(|source| DataError::Read {
            path: path.to_owned(),
            line: 0,
            source,
        })?;
        Ok(Self {
            name: name_of(path),
            bytes: metadata.len(),
        })
    }
}

/// A tokenizer, recognisable by its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenizerSource {
    /// The name of its folder.
    pub name: String,
    /// SHA-256 of tokenizer.json, in hexadecimal.
    pub sha256: String,
    /// The largest token id + 1.
    pub vocabulary_size: usize,
}

impl TokenizerSource {
    pub(super) fn of(folder: &Path, tokenizer: &Tokenizer) -> Result<Self, DataError> {
        let path = folder.join("tokenizer.json");
        let sha256 = sha256_of(&path).map_err(|source| TextError::Read { path, source })?;
        Ok(Self {
            name: name_of(folder),
            sha256,
            vocabulary_size: tokenizer.vocabulary_size(),
        })
    }
}

/// A Parquet file of the dataset.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DataFile {
    /// Its name in the folder.
    pub name: String,
    /// How many rows it has.
    pub rows: usize,
}

/// The rules by which raw reviews become a dataset. The defaults are those of the published runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rules {
    /// What the language model is asked.
    pub instruction: String,
    /// How many items a history has.
    pub history: usize,
    /// Users and items with fewer reviews are dropped.
    pub k: u32,
    /// Items of more embedder tokens are long; their users are dropped.
    pub max_item_tokens: usize,
    /// Users whose prompt has more tokens of the language model, turn markers included, are dropped.
    pub max_prompt_tokens: usize,
    /// The share of users, the last to arrive, that are not trained on.
    pub test_share: f64,
    /// Draws which of them are for validation.
    pub seed: u64,
    /// How a prompt is put to the language model.
    pub template: TemplateForm,
    /// Whether users are dropped whose history ends at the very time of their target.
    pub drop_tied_targets: bool,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            instruction: FILM_INSTRUCTION.to_owned(),
            history: 4,
            k: 5,
            max_item_tokens: 512,
            max_prompt_tokens: 1024,
            test_share: 0.2,
            seed: 555_134,
            template: TemplateForm::Gemma,
            drop_tied_targets: false,
        }
    }
}

impl Rules {
    /// Finds values that no dataset can be made with.
    pub(super) fn check(&self) -> Result<(), DataError> {
        let positive = [
            ("history", self.history),
            ("k", self.k as usize),
            ("max-item-tokens", self.max_item_tokens),
            ("max-prompt-tokens", self.max_prompt_tokens),
        ];
        for (option, value) in positive {
            if value == 0 {
                return Err(DataError::Option {
                    option,
                    found: "0".to_owned(),
                    expected: "1 or more",
                });
            }
        }
        if !(0.0..1.0).contains(&self.test_share) {
            let found = self.test_share.to_string();
            return Err(DataError::Option {
                option: "test-share",
                found,
                expected: "0 or more and below 1",
            });
        }
        Ok(())
    }
}

/// The forms of [`PromptTemplate`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TemplateForm {
    /// [`PromptTemplate::Gemma`].
    Gemma,
    /// [`PromptTemplate::Chat`].
    Chat,
}

impl TemplateForm {
    /// The template itself; a chat template is read from the language model's folder.
    ///
    /// # Errors
    /// Where the folder has no usable chat template.
    pub fn open(self, lm: &Path) -> Result<PromptTemplate, TextError> {
        match self {
            Self::Gemma => Ok(PromptTemplate::Gemma),
            Self::Chat => PromptTemplate::chat(lm),
        }
    }
}

/// What each step of the preparation left, in the order of the steps. Also written as `stats.json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Items in the metadata, with or without a title.
    pub items_read: usize,
    /// Lines of the metadata that were skipped.
    pub bad_metadata_lines: usize,
    /// Items without a title, which are left out.
    pub items_without_title: usize,
    /// Items, of all with a title, whose text is longer than the embedder takes.
    pub items_too_long: usize,
    /// Reviews read.
    pub reviews_read: usize,
    /// Lines of the reviews that were skipped.
    pub bad_review_lines: usize,
    /// Reviews of items with a title.
    pub reviews_with_metadata: usize,
    /// Reviews in the first k-core.
    pub reviews_after_first_kcore: usize,
    /// Users in the first k-core.
    pub users_after_first_kcore: usize,
    /// Items in the first k-core.
    pub items_after_first_kcore: usize,
    /// Users dropped for a long item anywhere in their session.
    pub users_with_long_item: usize,
    /// Users without a long item, dropped for a long prompt.
    pub users_with_long_prompt: usize,
    /// The sum of the two.
    pub users_too_long: usize,
    /// Reviews in the second k-core.
    pub reviews: usize,
    /// Users in the second k-core.
    pub users: usize,
    /// Items in the second k-core.
    pub items: usize,
    /// Users that arrived first.
    pub train_users: usize,
    /// Items that they reviewed: the catalogue.
    pub train_items: usize,
    /// Users that arrived last.
    pub test_users_before_cold_items: usize,
    /// Those left with enough items of the catalogue.
    pub test_users_after_cold_items: usize,
    /// Users whose prompt has become too long because items before it were dropped.
    pub users_too_long_after_split: usize,
    /// Training users with a target.
    pub train_users_with_target: usize,
    /// Test users with a target, before they are halved.
    pub test_users_with_target: usize,
    /// Users, of those with a target, whose history ends at the very time of their target: file order decided.
    pub users_with_tied_target_time: usize,
    /// How many of them were dropped for that.
    pub users_dropped_for_tied_target_time: usize,
    /// Validation users in the dataset.
    pub val_users: usize,
    /// Test users in the dataset.
    pub test_users: usize,
}

impl fmt::Display for Stats {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = [
            ("items read", self.items_read),
            ("  without title, left out", self.items_without_title),
            ("  too long for the embedder", self.items_too_long),
            ("reviews read", self.reviews_read),
            ("  of described items", self.reviews_with_metadata),
            ("first k-core: users", self.users_after_first_kcore),
            ("  items", self.items_after_first_kcore),
            ("users with a long item, dropped", self.users_with_long_item),
            ("users with a long prompt, dropped", self.users_with_long_prompt),
            ("second k-core: users", self.users),
            ("  items", self.items),
            ("training users", self.train_users),
            ("  their items (the catalogue)", self.train_items),
            ("  with a target, prompt still short", self.train_users_with_target),
            ("test users", self.test_users_before_cold_items),
            ("  with enough items of the catalogue", self.test_users_after_cold_items),
            ("  with a target, prompt still short", self.test_users_with_target),
            (
                "users with target and history's end at one time",
                self.users_with_tied_target_time,
            ),
            ("  dropped for that", self.users_dropped_for_tied_target_time),
            ("validation users", self.val_users),
            ("test users", self.test_users),
        ];
        for (name, count) in rows {
            writeln!(formatter, "{name:<49}{count:>12}")?;
        }
        let skipped = self.bad_metadata_lines + self.bad_review_lines;
        if skipped > 0 {
            writeln!(formatter, "{:<49}{skipped:>12}", "bad lines, skipped")?;
        }
        Ok(())
    }
}

pub(super) fn name_of(path: &Path) -> String {
    // `models/.` and `models/x/..` have no name of their own.
    let resolved = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().or_else(|| resolved.file_name());
    name.map_or_else(String::new, |name| name.to_string_lossy().into_owned())
}

/// SHA-256 of a file's bytes, in hexadecimal.
pub(super) fn sha256_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect());
        }
        hash.update(&buffer[..read]);
    }
}
