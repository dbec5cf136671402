//! Which users' texts have the words of a query: the report's text indexes.

use std::ops::Range;
use std::sync::Arc;

use eval_core::report::{IndexFile, TextIndex, users_in_all, users_in_any};

use crate::filter::{Word, Words};
use crate::load::{LoadError, Source};

/// What of the users' texts a report can search at a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Searchable {
    /// The indexes: of histories, of profiles.
    pub indexes: Vec<TextIndex>,
    /// What a reader should know; empty where everything can be searched.
    pub note: &'static str,
}

impl Searchable {
    /// The indexes of a report for its checkpoint number `checkpoint`.
    pub fn of(source: &Source, checkpoint: usize) -> Self {
        let manifest = source.manifest();
        let profiles = manifest
            .checkpoints
            .get(checkpoint)
            .and_then(|found| found.profile_index.clone());
        Self::new(manifest.history_index.clone(), profiles)
    }

    fn new(histories: Option<TextIndex>, profiles: Option<TextIndex>) -> Self {
        let note = match (&histories, &profiles) {
            (Some(_), Some(_)) => "",
            (Some(_), None) => {
                "The report has no index of this checkpoint's profiles: words are looked for in histories only."
            }
            (None, Some(_)) => "The report has no index of histories: words are looked for in profiles only.",
            (None, None) => "The report has no text index, so words in quotes cannot be looked for: they match nobody.",
        };
        Self {
            indexes: histories.into_iter().chain(profiles).collect(),
            note,
        }
    }

    /// The users whose histories or profiles have all of the words, ascending.
    ///
    /// # Errors
    /// A file of an index that is missing or broken.
    pub async fn users_with(&self, source: &Source, words: &Words) -> Result<Vec<u32>, LoadError> {
        let mut of_words = Vec::new();
        for word in &words.0 {
            let mut of_files = Vec::new();
            for index in &self.indexes {
                for file in files(index, word) {
                    of_files.push(users_in(&read(source, index, file).await?, word));
                }
            }
            of_words.push(users_in_any(of_files.iter().map(Vec::as_slice)));
        }
        Ok(users_in_all(of_words.iter().map(Vec::as_slice)))
    }
}

/// The places of the files of an index that may hold a word.
fn files(index: &TextIndex, word: &Word) -> Range<usize> {
    match word.is_prefix {
        true => index.files_for_prefix(&word.word),
        false => index.files_for_word(&word.word),
    }
}

/// The users that a file has for a word.
fn users_in(file: &IndexFile, word: &Word) -> Vec<u32> {
    match word.is_prefix {
        true => file.with_prefix(&word.word),
        false => file.lookup(&word.word).to_vec(),
    }
}

async fn read(source: &Source, index: &TextIndex, file: usize) -> Result<IndexFile, LoadError> {
    let name = &index.files[file].file;
    let bytes = source.bytes(name).await?;
    let parsed = IndexFile::parse(&bytes, source.manifest().users.count);
    let checked = parsed.and_then(|parsed| parsed.check(index, file).map(|()| parsed));
    checked.map_err(|error| LoadError::Invalid {
        url: name.clone(),
        source: Arc::new(error),
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::report::IndexBuilder;

    use super::*;

    fn found(texts: &[(u32, &str)], query: &str) -> Vec<u32> {
        let mut builder = IndexBuilder::default();
        texts.iter().for_each(|(user, text)| builder.add(*user, text));
        let index_files = builder.into_files();
        let index = TextIndex::of_files("words", &index_files);
        let words = Words::parse(query).unwrap();
        let of_word = |word: &Word| {
            let of_files: Vec<Vec<u32>> = files(&index, word)
                .map(|file| users_in(&index_files[file], word))
                .collect();
            users_in_any(of_files.iter().map(Vec::as_slice))
        };
        let of_words: Vec<Vec<u32>> = words.0.iter().map(of_word).collect();
        users_in_all(of_words.iter().map(Vec::as_slice))
    }

    #[test]
    fn whole_words_and_prefixes_are_found_and_all_words_are_needed() {
        let texts = [
            (0, "The sailor's boat"),
            (3, "sailing boats"),
            (7, "sail a BOAT"),
            (7, "horror"),
        ];
        assert_eq!(found(&texts, "sail"), [7]);
        assert_eq!(found(&texts, "sail*"), [0, 3, 7]);
        assert_eq!(found(&texts, "boat sail*"), [0, 7]);
        assert_eq!(found(&texts, "Boat horror"), [7], "from two texts of the user");
        assert_eq!(found(&texts, "comedy"), [0; 0]);
    }

    #[test]
    fn what_cannot_be_searched_is_said() {
        let index = || Some(TextIndex::default());
        assert_eq!(Searchable::new(index(), index()).note, "");
        assert!(Searchable::new(index(), None).note.contains("histories only"));
        assert!(Searchable::new(None, index()).note.contains("profiles only"));
        let nothing = Searchable::new(None, None);
        assert!(nothing.note.contains("no text index") && nothing.indexes.is_empty());
    }
}
