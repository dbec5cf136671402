//! The published sessions, which are users here.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use models::text::TextError;
use rayon::prelude::*;

use super::{
    PublishedError,
    catalogue::Catalogue,
    column,
    columns::{Rows, Table},
    history::{history, without_markers},
    tokens::{Agreement, PromptTokenizer},
};
use crate::{
    data::{DataError, Rules, TemplateForm, User},
    progress::Progress,
};

/// Which of the two columns of prompt tokens the set has; all files must have the same.
pub(super) fn token_column(files: &[Vec<PathBuf>]) -> Result<&'static str, PublishedError> {
    let mut first: Option<(&Path, &'static str)> = None;
    for path in files.iter().flatten() {
        let table = Table::open(path)?;
        let known = [column::GEMMA_TOKENS, column::LLAMA_TOKENS];
        let found = known.into_iter().find(|name| table.has(name));
        let found = found.ok_or_else(|| table.missing(&known.join("` or `")))?;
        match first {
            Some((one, column)) if column != found => {
                return Err(PublishedError::TwoSets {
                    one: one.to_owned(),
                    other: path.clone(),
                });
            }
            Some(_) => {}
            None => first = Some((path, found)),
        }
    }
    Ok(first.map_or(column::GEMMA_TOKENS, |(_, column)| column))
}

/// Reads sessions, and learns what all of them share.
pub(super) struct SessionReader<'a> {
    catalogue: &'a Catalogue,
    tokenizer: Option<&'a PromptTokenizer>,
    token_column: &'static str,
    /// What the first prompt asks; it is what all ask.
    instruction: Option<String>,
    /// How many items the first history has; all have as many.
    history: Option<usize>,
    /// The longest row of prompt tokens, padding included.
    row_length: usize,
    read: usize,
    other_spaces: usize,
    other_tokens: usize,
}

/// A row as it is stored.
struct Row {
    index: i64,
    history: Vec<i64>,
    targets: Vec<i64>,
    prompt: String,
    tokens: Vec<u32>,
    reference: String,
}

/// A row that was understood.
struct Session {
    user: User,
    instruction: String,
    agreement: Agreement,
}

/// Why a row is not taken.
enum Refused {
    /// A column's value.
    Value { column: &'static str, problem: String },
    /// The tokenizer or its template.
    Text(TextError),
}

impl Refused {
    fn because(column: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self::Value { column, problem }
    }

    fn at(self, rows: &Rows<'_>, row: usize) -> DataError {
        match self {
            Self::Value { column, problem } => rows.wrong(row, column, problem).into(),
            Self::Text(error) => error.into(),
        }
    }
}

impl From<TextError> for Refused {
    fn from(error: TextError) -> Self {
        Self::Text(error)
    }
}

impl<'a> SessionReader<'a> {
    pub(super) fn new(
        catalogue: &'a Catalogue,
        tokenizer: Option<&'a PromptTokenizer>,
        token_column: &'static str,
    ) -> Self {
        Self {
            catalogue,
            tokenizer,
            token_column,
            instruction: None,
            history: None,
            row_length: 0,
            read: 0,
            other_spaces: 0,
            other_tokens: 0,
        }
    }

    /// The users of a split.
    pub(super) fn split(&mut self, files: &[PathBuf], split: &str) -> Result<Vec<User>, DataError> {
        let mut progress = Progress::start(format!("reading {split} sessions"), "sessions", None);
        let mut users = Vec::new();
        let mut seen = HashSet::new();
        for path in files {
            self.check_dense(path)?;
            let columns = [
                column::INDEX,
                column::HISTORY,
                column::TARGETS,
                column::PROMPT,
                self.token_column,
                column::REFERENCE,
            ];
            for rows in Table::open(path)?.rows(&columns)? {
                let rows = rows?;
                let stored = self.stored(&rows)?;
                for (row, session) in stored.iter().enumerate() {
                    if !seen.insert(session.index) {
                        let problem = format!("is {}, as in another row of {split}", session.index);
                        return Err(rows.wrong(row, column::INDEX, problem).into());
                    }
                }
                progress.add(stored.len() as u64);
                self.understand(&rows, &stored, split, &mut users)?;
            }
        }
        progress.finish();
        Ok(users)
    }

    /// The dense rows themselves are not read; their length says how many items there should be.
    fn check_dense(&self, path: &Path) -> Result<(), PublishedError> {
        let table = Table::open(path)?;
        if !table.has(column::DENSE_HISTORY) {
            return Ok(());
        }
        let Some(rows) = table.first_row(&[column::DENSE_HISTORY])? else {
            return Ok(());
        };
        let length = rows.first_length(column::DENSE_HISTORY)?;
        if self.catalogue.fits(length) {
            return Ok(());
        }
        let items = self.catalogue.len();
        let problem = format!("has {length} entries for {items} items; give the items that belong to these sessions");
        Err(rows.wrong(0, column::DENSE_HISTORY, problem))
    }

    fn stored(&mut self, rows: &Rows<'_>) -> Result<Vec<Row>, PublishedError> {
        let mut history = rows.integer_lists(column::HISTORY)?.into_iter();
        let mut targets = rows.integer_lists(column::TARGETS)?.into_iter();
        let mut prompts = rows.texts(column::PROMPT)?.into_iter();
        let mut tokens = rows.token_lists(self.token_column)?.into_iter();
        let mut references = rows.texts(column::REFERENCE)?.into_iter();
        let mut stored = Vec::new();
        for index in rows.integers(column::INDEX)? {
            let tokens = tokens.next().unwrap_or_default();
            self.row_length = self.row_length.max(tokens.len());
            stored.push(Row {
                index,
                history: history.next().unwrap_or_default(),
                targets: targets.next().unwrap_or_default(),
                prompt: prompts.next().unwrap_or_default(),
                tokens,
                reference: references.next().unwrap_or_default(),
            });
        }
        Ok(stored)
    }

    fn understand(
        &mut self,
        rows: &Rows<'_>,
        stored: &[Row],
        split: &str,
        users: &mut Vec<User>,
    ) -> Result<(), DataError> {
        let sessions: Vec<_> = stored.par_iter().map(|row| self.session(row, split)).collect();
        for (row, session) in sessions.into_iter().enumerate() {
            let session = session
                .and_then(|session| self.share(&session).map(|()| session))
                .map_err(|refused| refused.at(rows, row))?;
            self.read += 1;
            match session.agreement {
                Agreement::Same => {}
                Agreement::OtherSpaces => self.other_spaces += 1,
                Agreement::Other => self.other_tokens += 1,
            }
            users.push(session.user);
        }
        Ok(())
    }

    /// What all sessions must have in common.
    fn share(&mut self, session: &Session) -> Result<(), Refused> {
        let history = session.user.history.len();
        match self.history {
            Some(first) if first != history => {
                let problem = format!("has {history} items, the first session has {first}");
                return Err(Refused::because(column::HISTORY, problem));
            }
            _ => self.history = Some(history),
        }
        match &self.instruction {
            Some(first) if *first != session.instruction => {
                let problem = format!(
                    "asks {:?}, the first session asks {first:?}; a set has one instruction",
                    session.instruction
                );
                Err(Refused::because(column::PROMPT, problem))
            }
            Some(_) => Ok(()),
            None => {
                self.instruction = Some(session.instruction.clone());
                Ok(())
            }
        }
    }

    fn session(&self, row: &Row, split: &str) -> Result<Session, Refused> {
        let past = self.places(column::HISTORY, &row.history)?;
        let targets = self.places(column::TARGETS, &row.targets)?;
        if let Some(target) = row.targets.iter().find(|target| row.history.contains(target)) {
            let problem = format!("has item {target}, which is in {}", column::HISTORY);
            return Err(Refused::because(column::TARGETS, problem));
        }
        let texts: Vec<&str> = past.iter().map(|place| self.catalogue.text(*place)).collect();
        if texts.last() != Some(&row.reference.as_str()) {
            let problem = "is not the text of the history's last item; give the items that belong to these sessions";
            return Err(Refused::because(column::REFERENCE, problem));
        }
        let (prompt, tokens, agreement) = self.prompt(row)?;
        let found = history(&prompt, &texts).map_err(|place| {
            let (item, place) = (row.history[place], place + 1);
            let problem = format!(
                "has no text of item {item} with a rating and a review, the history's item number {place}; give the items that belong to these sessions"
            );
            Refused::because(column::PROMPT, problem)
        })?;
        let user = User {
            id: format!("{split}-{}", row.index),
            history: past,
            later: targets.clone(),
            targets,
            ratings: found.ratings,
            reviews: found.reviews,
            prompt,
            prompt_tokens: tokens,
            tied_target_time: false,
        };
        Ok(Session {
            user,
            instruction: found.instruction,
            agreement,
        })
    }

    /// The prompt without turn markers, and its tokens.
    fn prompt(&self, row: &Row) -> Result<(String, Vec<u32>, Agreement), Refused> {
        let own = self.tokenizer.map(PromptTokenizer::frame);
        let prompt = without_markers(&row.prompt, own).ok_or_else(|| {
            let problem = "begins and ends neither as Gemma's turns do, nor as those of Llama 3 or of this run's model";
            Refused::because(column::PROMPT, problem)
        })?;
        let Some(tokenizer) = self.tokenizer else {
            return Ok((prompt.to_owned(), Vec::new(), Agreement::Same));
        };
        let tokenized = tokenizer.tokens(prompt, &row.tokens)?;
        let text = tokenized.text.unwrap_or_else(|| prompt.to_owned());
        Ok((text, tokenized.tokens, tokenized.agreement))
    }

    fn places(&self, column: &'static str, indices: &[i64]) -> Result<Vec<u32>, Refused> {
        if indices.is_empty() {
            return Err(Refused::because(column, "is empty, expected at least one item"));
        }
        let place = |index: &i64| self.catalogue.place(*index);
        let places: Result<_, _> = indices.iter().map(place).collect();
        places.map_err(|problem| Refused::because(column, problem))
    }

    /// Says where the stored ids are not those of the texts.
    pub(super) fn tell(&self, folder: &Path) {
        let (folder, read) = (folder.display(), self.read);
        if self.other_spaces > 0 {
            let count = self.other_spaces;
            eprintln!(
                "note: {folder}: {count} of {read} prompts differ from their token ids in spaces alone; the ids are kept"
            );
        }
        if self.other_tokens > 0 {
            let count = self.other_tokens;
            eprintln!(
                "note: {folder}: {count} of {read} prompts have other token ids under this language model's tokenizer; their texts were tokenized anew"
            );
        }
    }

    /// The rules that the sessions show; the others are those of the publication.
    pub(super) fn rules(&mut self, template: TemplateForm) -> Rules {
        Rules {
            instruction: self.instruction.take().unwrap_or_default(),
            history: self.history.unwrap_or_default(),
            max_item_tokens: self.catalogue.row_length(),
            max_prompt_tokens: self.row_length,
            template,
            ..Rules::default()
        }
    }
}
