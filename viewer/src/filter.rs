//! The filter language of the users' table: `rank<=20 and delta<0 and "horror"`.
//!
//! A condition compares a column with a number (`<`, `<=`, `>`, `>=`, `=`, `!=`) or is words in quotes, which are looked for
//! in the user's history and profiles: all of them have to be there, in any order, and a word that ends with `*` stands for
//! all words that begin so. Conditions are joined by `and`, `or` and `not`, of which `not` binds most and `or` least, and
//! grouped by parentheses. A comparison with a number that is not known is false, whichever it is.

mod complete;
mod tokens;

pub use complete::{Completion, complete};
pub use tokens::FilterError;

use std::collections::BTreeMap;

use eval_core::report::words;

use crate::order::sorted;
use crate::table::{Column, UsersTable};
use tokens::{Token, TokenKind, closest_column, tokens};

/// How deep parentheses and `not` may be nested; an address can hold any filter, and the stack is small in a browser.
const DEEPEST: usize = 50;

/// A filter that was understood.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// `None` keeps every user.
    condition: Option<Condition>,
}

#[derive(Clone, Debug, PartialEq)]
enum Condition {
    Compare(Column, Comparison, f64),
    Words(Words),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// How a column is compared with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Comparison {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
    /// `=` or `==`
    Equal,
    /// `!=`
    Other,
}

impl Comparison {
    /// Every comparison, as it is written.
    pub const ALL: [(&'static str, Self); 6] = [
        ("<=", Self::AtMost),
        ("<", Self::Less),
        (">=", Self::AtLeast),
        (">", Self::More),
        ("=", Self::Equal),
        ("!=", Self::Other),
    ];

    fn holds(self, value: f64, number: f64) -> bool {
        match self {
            Self::Less => value < number,
            Self::AtMost => value <= number,
            Self::More => value > number,
            Self::AtLeast => value >= number,
            Self::Equal => value == number,
            Self::Other => value != number,
        }
    }
}

/// Words that a user's texts must all have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Words(pub Vec<Word>);

/// A word of a text, as [`words`] cuts texts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word {
    /// The word.
    pub word: String,
    /// Whether it stands for all words that begin so.
    pub is_prefix: bool,
}

impl Words {
    /// The words of what someone typed; a `*` right behind a word makes it a prefix. `None` where there is no word.
    pub fn parse(text: &str) -> Option<Self> {
        let mut found = Vec::new();
        for part in text.split_inclusive('*') {
            found.extend(words(part).map(|word| Word { word, is_prefix: false }));
            let before = part.strip_suffix('*').and_then(|before| before.chars().next_back());
            if before.is_some_and(char::is_alphanumeric)
                && let Some(last) = found.last_mut()
            {
                last.is_prefix = true;
            }
        }
        (!found.is_empty()).then_some(Self(found))
    }
}

/// For words in quotes, the numbers of the users whose texts have them, ascending.
pub type WordUsers = BTreeMap<Words, Vec<u32>>;

impl Filter {
    /// Reads a filter; an empty one keeps every user.
    ///
    /// # Errors
    /// [`FilterError`] with the place where something else was expected.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        let tokens = tokens(text)?;
        if tokens.is_empty() {
            return Ok(Self::default());
        }
        let mut parser = Parser {
            text,
            tokens: &tokens,
            depth: 0,
        };
        let condition = parser.any()?;
        match parser.tokens.first() {
            None => Ok(Self {
                condition: Some(condition),
            }),
            Some(_) => Err(parser.expected("and, or, or the end")),
        }
    }

    /// The words in quotes, each once: what [`Filter::matching`] wants to know the users of.
    pub fn words(&self) -> Vec<&Words> {
        let mut found = Vec::new();
        if let Some(condition) = &self.condition {
            condition.collect_words(&mut found);
        }
        let mut found = sorted(&found, Ord::cmp);
        found.dedup();
        found
    }

    /// Whether it compares a column.
    pub fn compares(&self, column: Column) -> bool {
        self.condition
            .as_ref()
            .is_some_and(|condition| condition.compares(column))
    }

    /// The users for whom the filter holds, ascending. Words that `word_users` does not list are in no user's texts.
    pub fn matching(&self, table: &UsersTable, word_users: &WordUsers) -> Vec<u32> {
        let users = 0..table.len() as u32;
        match &self.condition {
            None => users.collect(),
            Some(condition) => {
                let holds = condition.holds(table, word_users);
                users
                    .zip(holds)
                    .filter_map(|(user, holds)| holds.then_some(user))
                    .collect()
            }
        }
    }
}

impl Condition {
    /// Whether it holds, for each user: column by column, which is quicker than user by user.
    fn holds(&self, table: &UsersTable, word_users: &WordUsers) -> Vec<bool> {
        match self {
            Self::Compare(column, comparison, number) => {
                let holds = |value: &Option<f64>| value.is_some_and(|value| comparison.holds(value, *number));
                table.column(*column).iter().map(holds).collect()
            }
            Self::Words(words) => {
                let mut holds = vec![false; table.len()];
                for &user in word_users.get(words).into_iter().flatten() {
                    if let Some(place) = holds.get_mut(user as usize) {
                        *place = true;
                    }
                }
                holds
            }
            Self::Not(condition) => {
                let mut holds = condition.holds(table, word_users);
                holds.iter_mut().for_each(|place| *place = !*place);
                holds
            }
            Self::All(conditions) => joined(conditions, table, word_users, |a, b| a & b),
            Self::Any(conditions) => joined(conditions, table, word_users, |a, b| a | b),
        }
    }

    fn collect_words<'a>(&'a self, found: &mut Vec<&'a Words>) {
        match self {
            Self::Compare(..) => {}
            Self::Words(words) => found.push(words),
            Self::Not(condition) => condition.collect_words(found),
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().for_each(|condition| condition.collect_words(found));
            }
        }
    }

    fn compares(&self, column: Column) -> bool {
        match self {
            Self::Compare(compared, ..) => *compared == column,
            Self::Words(_) => false,
            Self::Not(condition) => condition.compares(column),
            Self::All(conditions) | Self::Any(conditions) => {
                conditions.iter().any(|condition| condition.compares(column))
            }
        }
    }
}

fn joined(
    conditions: &[Condition],
    table: &UsersTable,
    word_users: &WordUsers,
    join: fn(bool, bool) -> bool,
) -> Vec<bool> {
    let mut all = conditions.iter().map(|condition| condition.holds(table, word_users));
    let mut holds = all.next().unwrap_or_default();
    for other in all {
        holds
            .iter_mut()
            .zip(other)
            .for_each(|(place, other)| *place = join(*place, other));
    }
    holds
}

/// Reads tokens from the front.
struct Parser<'a> {
    text: &'a str,
    tokens: &'a [Token],
    depth: usize,
}

impl Parser<'_> {
    fn any(&mut self) -> Result<Condition, FilterError> {
        self.list(&TokenKind::Or, Self::all, Condition::Any)
    }

    fn all(&mut self) -> Result<Condition, FilterError> {
        self.list(&TokenKind::And, Self::one, Condition::All)
    }

    /// One or more parts with `between` between them.
    fn list(
        &mut self,
        between: &TokenKind,
        part: fn(&mut Self) -> Result<Condition, FilterError>,
        join: fn(Vec<Condition>) -> Condition,
    ) -> Result<Condition, FilterError> {
        let first = part(self)?;
        let mut parts = vec![first];
        while self.take_if(between) {
            parts.push(part(self)?);
        }
        match parts.len() {
            1 => Ok(parts.swap_remove(0)),
            _ => Ok(join(parts)),
        }
    }

    fn one(&mut self) -> Result<Condition, FilterError> {
        if self.depth == DEEPEST {
            return Err(self.expected(&format!("at most {DEEPEST} parentheses and nots within each other")));
        }
        self.depth += 1;
        let condition = self.one_below();
        self.depth -= 1;
        condition
    }

    fn one_below(&mut self) -> Result<Condition, FilterError> {
        if self.take_if(&TokenKind::Not) {
            return Ok(Condition::Not(Box::new(self.one()?)));
        }
        if self.take_if(&TokenKind::Open) {
            let condition = self.any()?;
            return match self.take_if(&TokenKind::Close) {
                true => Ok(condition),
                false => Err(self.expected("and, or, or a closing parenthesis")),
            };
        }
        match self.tokens.first().map(|token| &token.kind) {
            Some(TokenKind::Quoted(text)) => match Words::parse(text) {
                Some(words) => {
                    self.skip();
                    Ok(Condition::Words(words))
                }
                None => Err(self.expected("a word of letters or digits in the quotes")),
            },
            Some(TokenKind::Name(name)) => match Column::named(name) {
                Some(column) => {
                    self.skip();
                    self.comparison(column)
                }
                None => {
                    let closest = closest_column(name);
                    Err(self.expected("a column or words in quotes").with_closest(closest))
                }
            },
            _ => Err(self.expected("a column, words in quotes, not, or a parenthesis")),
        }
    }

    fn comparison(&mut self, column: Column) -> Result<Condition, FilterError> {
        let Some(&TokenKind::Compare(comparison)) = self.tokens.first().map(|token| &token.kind) else {
            return Err(self.expected(&format!("<, <=, >, >=, = or != after {}", column.name())));
        };
        self.skip();
        let Some(&TokenKind::Number(number)) = self.tokens.first().map(|token| &token.kind) else {
            return Err(self.expected(&format!("a number to compare {} with", column.name())));
        };
        self.skip();
        Ok(Condition::Compare(column, comparison, number))
    }

    fn skip(&mut self) {
        self.tokens = self.tokens.get(1..).unwrap_or_default();
    }

    fn take_if(&mut self, kind: &TokenKind) -> bool {
        let is_next = self.tokens.first().is_some_and(|token| token.kind == *kind);
        if is_next {
            self.skip();
        }
        is_next
    }

    /// Something else was expected where the next token is.
    fn expected(&self, expected: &str) -> FilterError {
        match self.tokens.first() {
            Some(token) => FilterError::new(self.text, token.start, &self.text[token.start..token.end], expected),
            None => FilterError::at_end(self.text, expected),
        }
    }
}

#[cfg(test)]
mod tests;
