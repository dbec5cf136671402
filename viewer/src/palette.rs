//! The list of commands: every page, user, item, checkpoint, run, theme and what the page can save, found by a few letters.

mod dialog;

pub use dialog::Palette;

use std::sync::Arc;

use crate::address::{Page, Route};
use crate::order::places;
use crate::theme::Theme;

/// So many commands are shown at a time.
const SHOWN: usize = 40;

/// Pages that have no number, by the end of their address. Those that this viewer does not have are left out.
const PAGES: [&str; 6] = ["overview", "users", "items", "map", "compare", "check/0"];

/// What a command does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Goes to a page of the same run.
    Go(Page),
    /// Shows another checkpoint on the page.
    Checkpoint(String),
    /// Shows another run.
    Run(String),
    /// Changes the colours.
    Theme(Theme),
    /// Presses the button of that number on the page, of those that say what command they are.
    Press(u32),
    /// Shows the list of keys.
    Help,
}

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is about, such as `Page`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// What it does.
    pub action: Action,
}

impl Entry {
    /// A command.
    pub fn new(kind: &'static str, name: impl Into<String>, action: Action) -> Self {
        Self {
            kind,
            name: name.into(),
            action,
        }
    }
}

/// What can be chosen from.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// Commands that are always there, in their order.
    pub entries: Vec<Entry>,
    /// Number of users.
    pub users: usize,
    /// Titles of the items, by number.
    pub titles: Arc<Vec<String>>,
}

impl Choices {
    /// The commands that fit what was typed, the best first; of those that fit equally well, in their order. Users and items are
    /// too many to be shown before something is typed.
    pub fn found(&self, typed: &str) -> Vec<Entry> {
        let words = lower(typed);
        let words: Vec<&str> = words.split_whitespace().collect();
        let fixed = self.entries.iter().filter_map(|entry| {
            let score = score(&words, &format!("{} {}", entry.name, entry.kind))?;
            Some((score, entry.clone()))
        });
        let mut found: Vec<(i32, Entry)> = self.user(&words).into_iter().chain(fixed).collect();
        if !words.is_empty() {
            found.extend(self.items(&words));
        }
        let best = places(found.len(), &|a, b| found[b].0.cmp(&found[a].0));
        let best = best.into_iter().take(SHOWN);
        best.map(|place| found[place as usize].1.clone()).collect()
    }

    /// The user whose number was typed, alone or behind the word.
    fn user(&self, words: &[&str]) -> Option<(i32, Entry)> {
        let (number, before) = words.split_last()?;
        let number: usize = number.parse().ok()?;
        let is_meant = match before {
            [] => true,
            [word] => "user".starts_with(word),
            _ => false,
        };
        let entry = Entry::new("User", format!("User {number}"), Action::Go(Page::User(number)));
        (is_meant && number < self.users).then_some((i32::MAX, entry))
    }

    fn items<'a>(&'a self, words: &'a [&str]) -> impl Iterator<Item = (i32, Entry)> + 'a {
        let titles = self.titles.iter().enumerate();
        let titles = titles.filter(|(_, title)| !title.trim().is_empty());
        titles.filter_map(move |(number, title)| {
            // Behind a command that fits as well.
            let score = score(words, title)? - 1;
            Some((score, Entry::new("Item", title.clone(), Action::Go(item_page(number)?))))
        })
    }
}

/// The pages that this viewer has.
pub fn pages() -> Vec<Entry> {
    let pages = PAGES.into_iter().filter_map(page_at);
    pages
        .map(|page| Entry::new("Page", page.title(), Action::Go(page)))
        .collect()
}

/// The page of an item, in a viewer that has one.
fn item_page(item: usize) -> Option<Page> {
    page_at(&format!("items/{item}"))
}

fn page_at(address: &str) -> Option<Page> {
    let page = Route::parse(&format!("#//{address}")).page;
    (!matches!(page, Page::Unknown(_))).then_some(page)
}

fn lower(text: &str) -> String {
    text.chars().flat_map(char::to_lowercase).collect()
}

/// How well a name fits all words: 0 for no words, `None` if one does not fit. A word fits best at the beginning of one of the
/// name's words, then anywhere in it, then with its letters spread over the name; short names come first.
pub fn score(words: &[&str], name: &str) -> Option<i32> {
    if words.is_empty() {
        return Some(0);
    }
    let name = lower(name);
    let mut sum = 0;
    for word in words {
        sum += score_of_word(word, &name)?;
    }
    Some(sum - (name.chars().count() / 8).min(20) as i32)
}

fn score_of_word(word: &str, name: &str) -> Option<i32> {
    let begins_word = |place: usize| {
        let before = name[..place].chars().next_back();
        before.is_none_or(|letter| !letter.is_alphanumeric())
    };
    let mut places = name.match_indices(word).map(|(place, _)| place).peekable();
    if places.peek().is_some() {
        return Some(if places.any(begins_word) { 100 } else { 60 });
    }
    spread(word, name).map(|left_out| (40 - left_out).max(1))
}

/// How many letters of the name lie between the word's letters, taken from the left; `None` if they are not all there in their order.
fn spread(word: &str, name: &str) -> Option<i32> {
    let mut letters = name.chars();
    let mut left_out = 0;
    for (number, wanted) in word.chars().enumerate() {
        loop {
            match letters.next()? {
                letter if letter == wanted => break,
                _ if number > 0 => left_out += 1,
                _ => {}
            }
        }
    }
    Some(left_out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choices() -> Choices {
        let mut entries = pages();
        entries.push(Entry::new("Theme", "Dark colours", Action::Theme(Theme::Dark)));
        entries.push(Entry::new(
            "Checkpoint",
            "update-000080",
            Action::Checkpoint("update-000080".into()),
        ));
        let titles = ["Toy Story (1995)", "The Dark Half", "<b>Übermut</b> \u{202e}🎬"];
        Choices {
            entries,
            users: 30,
            titles: Arc::new(titles.map(str::to_owned).to_vec()),
        }
    }

    fn names(typed: &str) -> Vec<String> {
        let found = choices().found(typed);
        found.into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn without_letters_all_commands_are_shown_in_their_order() {
        let names = names("  ");
        assert_eq!(names[..2], ["Overview", "Users"]);
        assert_eq!(names.len(), choices().entries.len());
    }

    #[test]
    fn a_number_is_a_user_that_exists() {
        assert_eq!(names("29")[0], "User 29");
        assert_eq!(names("us 7")[0], "User 7");
        assert!(!names("30").contains(&"User 30".to_owned()));
        assert_eq!(names("80")[0], "update-000080");
    }

    #[test]
    fn the_beginning_of_a_word_comes_before_its_middle_and_letters_that_are_spread() {
        assert!(score(&["ov"], "Overview") > score(&["ov"], "Above"));
        assert!(score(&["ov"], "Above") > score(&["ov"], "o.k., very well"));
        assert_eq!(score(&["vo"], "Overview"), None);
        assert_eq!(names("ovw")[0], "Overview");
        assert_eq!(names("dark")[0], "Dark colours");
        assert_eq!(names("theme dark"), ["Dark colours"]);
    }

    #[test]
    fn a_name_of_any_letters_is_found_whatever_their_case() {
        assert!(score(&["ÜBER"].map(lower).each_ref().map(String::as_str), "<b>Übermut</b>").is_some());
        assert!(score(&["🎬"], "\u{202e}🎬").is_some());
        assert_eq!(score(&["x"], ""), None);
    }
}
