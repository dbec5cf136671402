//! A dataset from files in the published layout.

use std::path::{Path, PathBuf};

use super::{
    PublishedError, SPLITS,
    catalogue::Catalogue,
    column, layout,
    sessions::{SessionReader, token_column},
    tokens::PromptTokenizer,
};
use crate::data::{
    DataError, Dataset, Manifest, Rules, Source, Stats, TemplateForm, TokenizerSource, User,
    manifest::{FORMAT, FORMAT_VERSION, name_of},
};

/// The models whose tokenizers make ids of the texts. Without one there are no ids: nothing that needs them can be done.
#[derive(Debug, Clone, Default)]
pub(in crate::data) struct TextModels {
    /// Folder of the language model.
    pub(in crate::data) lm: Option<PathBuf>,
    /// Folder of the embedder.
    pub(in crate::data) embedder: Option<PathBuf>,
    /// How prompts are put to the language model; by default as the set has them.
    pub(in crate::data) template: Option<TemplateForm>,
}

/// Reads the sessions and the items of two folders, which may be one.
///
/// # Errors
/// Names the file, row and column.
pub(in crate::data) fn read(sessions: &Path, items: &Path, models: &TextModels) -> Result<Dataset, DataError> {
    let files = layout::session_files(sessions)?;
    let column = token_column(&files)?;
    let template = models.template.unwrap_or(match column {
        column::GEMMA_TOKENS => TemplateForm::Gemma,
        _ => TemplateForm::Chat,
    });
    let lm = models.lm.as_deref();
    let lm = lm.map(|folder| PromptTokenizer::open(folder, template)).transpose()?;
    let catalogue = Catalogue::read(items, models.embedder.as_deref())?;
    let mut reader = SessionReader::new(&catalogue, lm.as_ref(), column);
    let mut users = Vec::with_capacity(SPLITS.len());
    for (files, split) in files.iter().zip(SPLITS) {
        let found = reader.split(files, split)?;
        if found.is_empty() {
            return Err(PublishedError::Empty {
                folder: sessions.to_owned(),
                what: format!("{split} users"),
            }
            .into());
        }
        users.push(found);
    }
    reader.tell(sessions);
    let mut manifest = manifest(reader.rules(template), [sessions, items], &files, &catalogue)?;
    if let (Some(tokenizer), Some(folder)) = (&lm, &models.lm) {
        manifest.prompt_form = tokenizer.form()?;
        manifest.lm_tokenizer = TokenizerSource::of(folder, tokenizer.tokenizer())?;
    }
    if let (Some(tokenizer), Some(folder)) = (catalogue.embedder(), &models.embedder) {
        manifest.embedder_tokenizer = TokenizerSource::of(folder, tokenizer)?;
    }
    let mut users = users.into_iter();
    let mut next = || users.next().unwrap_or_default();
    Ok(dataset(manifest, catalogue, [next(), next(), next()]))
}

/// What can be said about where the set comes from. Rules that the files do not show are those of the publication.
fn manifest(
    rules: Rules,
    [sessions, items]: [&Path; 2],
    session_files: &[Vec<PathBuf>],
    catalogue: &Catalogue,
) -> Result<Manifest, DataError> {
    let source = |folder: &Path, files: &mut dyn Iterator<Item = &PathBuf>| -> Result<Source, DataError> {
        let mut bytes = 0;
        for file in files {
            bytes += Source::of(file)?.bytes;
        }
        let name = name_of(folder);
        Ok(Source { name, bytes })
    };
    let unknown = || TokenizerSource {
        name: String::new(),
        sha256: String::new(),
        vocabulary_size: 0,
    };
    Ok(Manifest {
        format: FORMAT.to_owned(),
        version: FORMAT_VERSION,
        created_by: concat!("langptune ", env!("CARGO_PKG_VERSION"), ", from the published layout").to_owned(),
        reviews: source(sessions, &mut session_files.iter().flatten())?,
        metadata: source(items, &mut catalogue.files().iter())?,
        rules,
        prompt_form: String::new(),
        lm_tokenizer: unknown(),
        embedder_tokenizer: unknown(),
        stats: Stats::default(),
        files: Vec::new(),
    })
}

fn dataset(mut manifest: Manifest, catalogue: Catalogue, [train, val, test]: [Vec<User>; 3]) -> Dataset {
    let mut items = catalogue.into_items();
    for item in train.iter().flat_map(|user| user.history.iter().chain(&user.later)) {
        items[*item as usize].train_count += 1;
    }
    manifest.stats = Stats {
        items: items.len(),
        train_items: items.len(),
        users: train.len() + val.len() + test.len(),
        train_users: train.len(),
        train_users_with_target: train.len(),
        test_users_with_target: val.len() + test.len(),
        val_users: val.len(),
        test_users: test.len(),
        ..Stats::default()
    };
    Dataset {
        manifest,
        items,
        train,
        val,
        test,
    }
}
