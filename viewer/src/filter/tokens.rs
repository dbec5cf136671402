//! The words and signs of a filter, and what is said of one that was not understood.

use thiserror::Error;

use super::Comparison;
use crate::table::Column;

/// The least likeness of a name and a column for which the column is proposed.
const LEAST_LIKENESS: f64 = 0.7;

/// A filter that was not understood.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("at character {place}: expected {expected}, found {found}{}", .closest.map_or_else(String::new, |name| format!(". Did you mean {name}?")))]
pub struct FilterError {
    /// The place in the text, in characters counted from 1.
    pub place: usize,
    /// What could have stood there.
    pub expected: String,
    /// What stands there, as it is shown.
    pub found: String,
    /// The column that an unknown name most likely meant.
    pub closest: Option<&'static str>,
}

impl FilterError {
    /// `found` stands in `text` from byte `start` on.
    pub(super) fn new(text: &str, start: usize, found: &str, expected: &str) -> Self {
        Self {
            place: text[..start].chars().count() + 1,
            expected: expected.to_owned(),
            found: found.to_owned(),
            closest: None,
        }
    }

    /// Nothing more stands in `text`.
    pub(super) fn at_end(text: &str, expected: &str) -> Self {
        Self::new(text, text.len(), "the end", expected)
    }

    pub(super) fn with_closest(self, closest: Option<Column>) -> Self {
        Self {
            closest: closest.map(Column::name),
            ..self
        }
    }
}

/// The column whose name is most like an unknown one.
pub(super) fn closest_column(name: &str) -> Option<Column> {
    let name = name.to_lowercase();
    let likeness = |column: Column| strsim::jaro_winkler(&name, column.name());
    let alike = Column::ALL.into_iter().map(|column| (likeness(column), column));
    alike
        .filter(|(likeness, _)| *likeness > LEAST_LIKENESS)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, column)| column)
}

/// A word or a sign, and where it stands: bytes `start..end`.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Token {
    pub(super) kind: TokenKind,
    pub(super) start: usize,
    pub(super) end: usize,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum TokenKind {
    And,
    Or,
    Not,
    Open,
    Close,
    Compare(Comparison),
    Number(f64),
    /// What stands between quotes.
    Quoted(String),
    /// Any other word.
    Name(String),
}

/// Cuts a filter into its words and signs.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, FilterError> {
    let mut found = Vec::new();
    let mut start = 0;
    while let Some(letter) = text[start..].chars().next() {
        if letter.is_whitespace() {
            start += letter.len_utf8();
            continue;
        }
        let (kind, length) = token(text, start, letter)?;
        let end = start + length;
        found.push(Token { kind, start, end });
        start = end;
    }
    Ok(found)
}

/// The token that begins at byte `start` with `letter`, and its length in bytes.
fn token(text: &str, start: usize, letter: char) -> Result<(TokenKind, usize), FilterError> {
    let rest = &text[start..];
    match letter {
        '(' => return Ok((TokenKind::Open, 1)),
        ')' => return Ok((TokenKind::Close, 1)),
        '"' | '“' | '”' => return quoted(text, start, letter),
        _ => {}
    }
    // `==` is what many would type.
    let comparisons = std::iter::once(("==", Comparison::Equal)).chain(Comparison::ALL);
    for (sign, comparison) in comparisons {
        if rest.starts_with(sign) {
            return Ok((TokenKind::Compare(comparison), sign.len()));
        }
    }
    if letter.is_ascii_digit() || matches!(letter, '-' | '+' | '.') {
        return number(text, start);
    }
    if !is_of_name(letter) {
        let expected = "a column, a number, words in quotes, a comparison, and, or, not, or a parenthesis";
        return Err(FilterError::new(text, start, &letter.to_string(), expected));
    }
    let word = &rest[..length_while(rest, is_of_name)];
    let kind = match word.to_lowercase().as_str() {
        "and" => TokenKind::And,
        "or" => TokenKind::Or,
        "not" => TokenKind::Not,
        _ => TokenKind::Name(word.to_owned()),
    };
    Ok((kind, word.len()))
}

/// Typographic quotes are what phones put in.
fn quoted(text: &str, start: usize, quote: char) -> Result<(TokenKind, usize), FilterError> {
    let inner = &text[start + quote.len_utf8()..];
    let Some((content, closing)) = inner
        .char_indices()
        .find(|(_, letter)| matches!(letter, '"' | '“' | '”'))
    else {
        return Err(FilterError::at_end(text, "a closing quote"));
    };
    let length = quote.len_utf8() + content + closing.len_utf8();
    Ok((TokenKind::Quoted(inner[..content].to_owned()), length))
}

fn number(text: &str, start: usize) -> Result<(TokenKind, usize), FilterError> {
    let rest = &text[start..];
    // A sign may also follow the `e` of an exponent.
    let mut before = 'e';
    let length = length_while(rest, |letter| {
        let belongs =
            is_of_name(letter) || letter == '.' || (matches!(letter, '-' | '+') && matches!(before, 'e' | 'E'));
        before = letter;
        belongs
    });
    let written = &rest[..length];
    match written.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok((TokenKind::Number(number), length)),
        _ => Err(FilterError::new(text, start, written, "a number such as 20 or -0.5")),
    }
}

/// Whether a letter may stand in a name.
pub(super) fn is_of_name(letter: char) -> bool {
    letter.is_alphanumeric() || letter == '_'
}

fn length_while(text: &str, mut belongs: impl FnMut(char) -> bool) -> usize {
    text.find(|letter| !belongs(letter)).unwrap_or(text.len())
}
