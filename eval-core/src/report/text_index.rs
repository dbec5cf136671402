//! Which users' texts hold a word: an inverted index in files that load on demand.
//!
//! A text is cut into words by [`words`]. The index lists every word with the users whose texts have it, in ascending order
//! of the words' bytes, and is cut into files at word boundaries. The manifest holds each file's first word
//! ([`TextIndex`]), so a reader knows which file to load for a word: one for a word, mostly one for a prefix.
//!
//! ```
//! use eval_core::report::{IndexBuilder, IndexFile, TextIndex, words};
//!
//! let mut builder = IndexBuilder::default();
//! builder.add(0, "The sailor's boat");
//! builder.add(1, "A SAIL, a boat");
//! let files = builder.into_files();
//! let index = TextIndex::of_files("words", &files);
//!
//! let word = words("Boat?").next().unwrap_or_default();
//! let place = index.files_for_word(&word).next().unwrap_or_default();
//! let mut bytes = Vec::new(); // of the file index.files[place].file
//! files[place].write(&mut bytes)?;
//! let file = IndexFile::parse(&bytes, 2)?;
//! assert_eq!(file.lookup(&word), [0, 1]);
//! assert_eq!(file.lookup("sail"), [1]);
//! assert_eq!(file.with_prefix("sail"), [0, 1]);
//! # Ok::<(), eval_core::Error>(())
//! ```
//!
//! # Layout of a file
//!
//! The bytes `LTX1`; the number of words as a little-endian u32; then word by word: the length in bytes, the word in UTF-8, the
//! number of its users, the first user, and for each further one the number of users left out between it and the one
//! before. Numbers within words are in LEB128 (seven bits a byte, lowest first, the high bit set where another byte
//! follows), in as few bytes as they need.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io::Write;
use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::check::{expect, inconsistent};
use crate::{Error, ErrorKind};

/// What every file begins with.
const MAGIC: [u8; 4] = *b"LTX1";

/// Largest size of a file, in bytes, unless the users of a single word need more.
pub const INDEX_FILE_BYTES: usize = 64 * 1024;

/// The words of a text: maximal runs of letters and digits, in lower case, with a final sigma written like any other. An
/// apostrophe ends a word, so `sailor's` is `sailor` and `s`. No stemming, no stop words, no segmentation of scripts that write
/// without spaces. The words of a word are itself.
///
/// ```
/// # use eval_core::report::words;
/// let found: Vec<String> = words("The Matrix (1999), Part_2: don't!").collect();
/// assert_eq!(found, ["the", "matrix", "1999", "part", "2", "don", "t"]);
/// ```
pub fn words(text: &str) -> impl Iterator<Item = String> {
    text.split(|letter: char| !letter.is_alphanumeric())
        .filter(|run| !run.is_empty())
        .map(lower_case)
}

/// Letter by letter, so that the beginning of a word does not depend on what follows.
fn lower_case(run: &str) -> String {
    let letters = run.chars().flat_map(char::to_lowercase);
    // The dot that is left of a Turkish capital İ is no letter: it would cut the word in two the next time.
    let letters = letters.filter(|letter| letter.is_alphanumeric());
    letters.map(|letter| if letter == 'ς' { 'σ' } else { letter }).collect()
}

/// Where an index lies: a field of the manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextIndex {
    /// Its files, by ascending words.
    pub files: Vec<TextIndexFile>,
}

/// A file of an index.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TextIndexFile {
    /// The file, relative to the manifest.
    pub file: String,
    /// The first word in it.
    pub first: String,
}

impl TextIndex {
    /// Lists `files` under the names `{stem}-0.bin`, `{stem}-1.bin` and so on.
    pub fn of_files(stem: &str, files: &[IndexFile]) -> Self {
        let listed = files.iter().enumerate().map(|(number, file)| TextIndexFile {
            file: format!("{stem}-{number}.bin"),
            first: file.words.first().map_or(String::new(), |entry| entry.word.clone()),
        });
        Self {
            files: listed.collect(),
        }
    }

    /// The places in [`files`](Self::files) of the files that may hold `word`: one, or none where it comes before all words.
    pub fn files_for_word(&self, word: &str) -> Range<usize> {
        let end = self.files.partition_point(|file| file.first.as_str() <= word);
        end.saturating_sub(1)..end
    }

    /// The places in [`files`](Self::files) of the files that may hold words with `prefix`; all for an empty one.
    pub fn files_for_prefix(&self, prefix: &str) -> Range<usize> {
        let start = self.files_for_word(prefix).start;
        // Words with the prefix follow on words up to it, without a gap.
        let end = self
            .files
            .partition_point(|file| file.first.as_str() <= prefix || file.first.starts_with(prefix));
        start..end
    }
}

/// Collects the words of users' texts.
#[derive(Clone, Debug, Default)]
pub struct IndexBuilder {
    users: HashMap<String, Vec<u32>>,
}

impl IndexBuilder {
    /// Adds a text of a user, who may have several. Order plays no part.
    pub fn add(&mut self, user: u32, text: &str) {
        for word in words(text) {
            let users = self.users.entry(word).or_default();
            if users.last() != Some(&user) {
                users.push(user);
            }
        }
    }

    /// The index, in files of at most [`INDEX_FILE_BYTES`] unless a single word needs more; none where there is no word.
    pub fn into_files(self) -> Vec<IndexFile> {
        self.into_files_of(INDEX_FILE_BYTES)
    }

    fn into_files_of(self, most: usize) -> Vec<IndexFile> {
        let sorted = |(word, mut users): (String, Vec<u32>)| {
            users.sort_unstable();
            users.dedup();
            WordUsers { word, users }
        };
        let mut entries: Vec<WordUsers> = self.users.into_iter().map(sorted).collect();
        entries.sort_unstable_by(|a, b| a.word.cmp(&b.word));
        let mut files: Vec<IndexFile> = Vec::new();
        let mut size = 0;
        for entry in entries {
            let mut bytes = Vec::new();
            entry.encode(&mut bytes);
            match files.last_mut().filter(|_| size + bytes.len() <= most) {
                Some(file) => file.words.push(entry),
                None => {
                    size = MAGIC.len() + size_of::<u32>();
                    files.push(IndexFile { words: vec![entry] });
                }
            }
            size += bytes.len();
        }
        files
    }
}

/// A file of an index: words in ascending order of their bytes, each with its users.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IndexFile {
    words: Vec<WordUsers>,
}

/// A word and the users whose texts have it, ascending, at least one.
#[derive(Clone, Debug, PartialEq, Eq)]
struct WordUsers {
    word: String,
    users: Vec<u32>,
}

impl IndexFile {
    /// Reads a file about users with numbers below `users`.
    ///
    /// # Errors
    /// [`ErrorKind::TextIndex`] with the place of the first byte that is not as it should be.
    pub fn parse(bytes: &[u8], users: usize) -> Result<Self, Error> {
        let mut reader = Reader { bytes, place: 0 };
        if reader.take(MAGIC.len(), "the bytes LTX1")? != MAGIC {
            return wrong(0, "the bytes LTX1", "others: this is no text index");
        }
        let count = reader.take(size_of::<u32>(), "the number of words")?;
        let count = count.iter().rev().fold(0, |value, &byte| value << 8 | u32::from(byte));
        let mut words: Vec<WordUsers> = Vec::new();
        for _ in 0..count {
            let place = reader.place;
            let entry = reader.entry(users)?;
            let before = words.last().map_or("", |entry| entry.word.as_str());
            if entry.word.as_str() <= before {
                return wrong(place, format!("a word after {before:?}"), format!("{:?}", entry.word));
            }
            words.push(entry);
        }
        match reader.left() {
            0 => Ok(Self { words }),
            left => wrong(reader.place, "the end", format!("{left} bytes more")),
        }
    }

    /// Writes the file.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn write(&self, mut writer: impl Write) -> Result<(), Error> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&(self.words.len() as u32).to_le_bytes());
        self.words.iter().for_each(|entry| entry.encode(&mut bytes));
        Ok(writer.write_all(&bytes)?)
    }

    /// Whether this is file `file` of `index`: it begins with the word that is listed, and ends before the next file's.
    ///
    /// # Errors
    /// [`ErrorKind::Inconsistent`].
    pub fn check(&self, index: &TextIndex, file: usize) -> Result<(), Error> {
        let [first, last] = [self.words.first(), self.words.last()].map(|entry| entry.map(|entry| entry.word.as_str()));
        let listed = |file: usize| index.files.get(file).map(|listed| listed.first.as_str());
        expect(
            format!("first word of text index file {file}"),
            &format!("{:?}", listed(file)),
            &format!("{first:?}"),
        )?;
        match listed(file + 1) {
            Some(next) if last >= Some(next) => inconsistent(
                format!("last word of text index file {file}"),
                &format_args!("a word before {next:?}"),
                &format_args!("{last:?}"),
            ),
            _ => Ok(()),
        }
    }

    /// The users whose texts have `word`, ascending. It is compared as it is: [`words`] makes words of what someone types.
    pub fn lookup(&self, word: &str) -> &[u32] {
        let place = self.words.binary_search_by(|entry| entry.word.as_str().cmp(word));
        place.map_or(&[], |place| &self.words[place].users)
    }

    /// The users whose texts have a word that begins with `prefix`, ascending.
    pub fn with_prefix(&self, prefix: &str) -> Vec<u32> {
        let start = self.words.partition_point(|entry| entry.word.as_str() < prefix);
        let with = self.words[start..]
            .iter()
            .take_while(|entry| entry.word.starts_with(prefix));
        users_in_any(with.map(|entry| entry.users.as_slice()))
    }
}

/// The users that are in any of the lists, ascending: for a prefix whose words lie in several files.
pub fn users_in_any<'a>(lists: impl IntoIterator<Item = &'a [u32]>) -> Vec<u32> {
    let mut users: Vec<u32> = lists.into_iter().flatten().copied().collect();
    users.sort_unstable();
    users.dedup();
    users
}

/// The users that are in all of the ascending lists, ascending: for a query of several words. None where there is no list.
pub fn users_in_all<'a>(lists: impl IntoIterator<Item = &'a [u32]>) -> Vec<u32> {
    let mut lists = lists.into_iter();
    let mut users = lists.next().map(<[u32]>::to_vec).unwrap_or_default();
    for list in lists {
        users.retain(|user| list.binary_search(user).is_ok());
    }
    users
}

impl WordUsers {
    fn encode(&self, out: &mut Vec<u8>) {
        push_number(out, self.word.len() as u32);
        out.extend_from_slice(self.word.as_bytes());
        push_number(out, self.users.len() as u32);
        let mut next = 0;
        for &user in &self.users {
            push_number(out, user - next);
            next = user.saturating_add(1);
        }
    }
}

fn push_number(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Bytes that are read from the front.
struct Reader<'a> {
    bytes: &'a [u8],
    place: usize,
}

impl<'a> Reader<'a> {
    fn left(&self) -> usize {
        self.bytes.len() - self.place
    }

    fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Error> {
        let left = self.left();
        if count > left {
            return wrong(self.place, what, format!("the end after {left} of {count} bytes"));
        }
        let taken = &self.bytes[self.place..][..count];
        self.place += count;
        Ok(taken)
    }

    /// A number in LEB128.
    fn number(&mut self, what: &str) -> Result<u32, Error> {
        let place = self.place;
        let mut value = 0u64;
        for shift in (0..35).step_by(7) {
            let byte = self.take(1, what)?[0];
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return match u32::try_from(value) {
                    Ok(_) if byte == 0 && shift > 0 => wrong(place, what, "a number in more bytes than it needs"),
                    Ok(value) => Ok(value),
                    Err(_) => wrong(place, what, "a number beyond 32 bits"),
                };
            }
        }
        wrong(place, what, "a number beyond 32 bits")
    }

    fn entry(&mut self, users: usize) -> Result<WordUsers, Error> {
        let length = self.number("the length of a word")?;
        let place = self.place;
        let word = self.take(length as usize, "a word")?;
        let Ok(word) = std::str::from_utf8(word) else {
            return wrong(place, "a word in UTF-8", format!("{word:?}"));
        };
        let place = self.place;
        let count = self.number("the number of a word's users")? as usize;
        // A user takes a byte at least: this keeps a false number from asking for memory.
        if count == 0 || count > self.left() {
            let expected = format!("from 1 to {} users of {word:?}", self.left());
            return wrong(place, expected, count.to_string());
        }
        let (mut found, mut next) = (Vec::with_capacity(count), 0u64);
        for _ in 0..count {
            let place = self.place;
            let user = next + u64::from(self.number("a user")?);
            next = user + 1;
            match u32::try_from(user) {
                Ok(number) if user < users as u64 => found.push(number),
                _ => return wrong(place, format!("a user below {users}"), user.to_string()),
            }
        }
        Ok(WordUsers {
            word: word.to_owned(),
            users: found,
        })
    }
}

fn wrong<T>(place: usize, expected: impl Into<String>, found: impl Into<String>) -> Result<T, Error> {
    Err(ErrorKind::TextIndex {
        place,
        expected: expected.into(),
        found: found.into(),
    }
    .into())
}
