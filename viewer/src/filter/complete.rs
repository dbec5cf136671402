//! What may come next in a filter.

use std::ops::Range;

use super::Comparison;
use super::tokens::{Token, TokenKind, is_of_name, tokens};
use crate::table::Column;

/// What may stand at the cursor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Completion {
    /// The bytes of the text that an option takes the place of: the beginning of a word, or nothing.
    pub replaced: Range<usize>,
    /// The options, in the order in which they are offered.
    pub options: Vec<&'static str>,
}

impl Completion {
    /// The text with an option in its place, and the byte behind it, where typing goes on.
    pub fn applied(&self, text: &str, option: &str) -> (String, usize) {
        let (before, after) = (&text[..self.replaced.start], &text[self.replaced.end..]);
        let mut done = before.to_owned();
        let touches = |a: Option<char>, b: Option<char>| a.zip(b).is_some_and(|(a, b)| is_of_name(a) && is_of_name(b));
        if touches(before.chars().next_back(), option.chars().next()) {
            done.push(' ');
        }
        done.push_str(option);
        if touches(option.chars().next_back(), after.chars().next()) {
            done.push(' ');
        }
        let cursor = done.len();
        done.push_str(after);
        (done, cursor)
    }
}

/// What a filter goes on with.
enum Next {
    Condition,
    Comparison,
    Number,
    /// `and`, `or`, or a parenthesis that closes one that is open.
    Join {
        is_open: bool,
    },
}

/// What may stand in `text` at byte `cursor`, judged by what comes before it. There is nothing to offer within quotes, where a
/// number belongs, and behind a mistake.
pub fn complete(text: &str, cursor: usize) -> Completion {
    let nothing = Completion {
        replaced: cursor..cursor,
        options: Vec::new(),
    };
    let Some(before) = text.get(..cursor) else {
        return nothing;
    };
    // A word that the cursor touches may go on, unless it is whole already.
    let start = before.trim_end_matches(is_of_name).len();
    let (known, begun) = match is_whole(&before[start..]) {
        true => (before, ""),
        false => before.split_at(start),
    };
    let Some(next) = tokens(known).ok().and_then(|tokens| next(&tokens)) else {
        return nothing;
    };
    let begun_lower = begun.to_lowercase();
    let options = options(&next)
        .into_iter()
        .filter(|option| option.starts_with(&begun_lower));
    Completion {
        replaced: cursor - begun.len()..cursor,
        options: options.collect(),
    }
}

/// Whether a word is complete: a column, `and`, `or`, `not`, or a number.
fn is_whole(word: &str) -> bool {
    let joins = ["and", "or", "not"];
    Column::named(word).is_some()
        || joins.iter().any(|join| word.eq_ignore_ascii_case(join))
        || word.starts_with(|letter: char| letter.is_ascii_digit())
}

fn options(next: &Next) -> Vec<&'static str> {
    match next {
        Next::Condition => {
            let columns = Column::ALL.into_iter().map(Column::name);
            columns.chain(["\"", "not", "("]).collect()
        }
        Next::Comparison => Comparison::ALL.into_iter().map(|(sign, _)| sign).collect(),
        Next::Number => Vec::new(),
        Next::Join { is_open: true } => vec!["and", "or", ")"],
        Next::Join { is_open: false } => vec!["and", "or"],
    }
}

/// What comes after these tokens; `None` where they make no sense.
fn next(tokens: &[Token]) -> Option<Next> {
    let mut next = Next::Condition;
    let mut open = 0usize;
    for token in tokens {
        next = match (&next, &token.kind) {
            (Next::Condition, TokenKind::Not) => Next::Condition,
            (Next::Condition, TokenKind::Open) => {
                open += 1;
                Next::Condition
            }
            (Next::Condition, TokenKind::Name(name)) if Column::named(name).is_some() => Next::Comparison,
            (Next::Condition, TokenKind::Quoted(_)) | (Next::Number, TokenKind::Number(_)) => {
                Next::Join { is_open: open > 0 }
            }
            (Next::Comparison, TokenKind::Compare(_)) => Next::Number,
            (Next::Join { .. }, TokenKind::And | TokenKind::Or) => Next::Condition,
            (Next::Join { is_open: true }, TokenKind::Close) => {
                open -= 1;
                Next::Join { is_open: open > 0 }
            }
            _ => return None,
        };
    }
    Some(next)
}
