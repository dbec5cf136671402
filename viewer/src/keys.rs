//! Shortcuts: `g` and then a letter goes to a page, `?` shows what there is.

use crate::address::Page;

/// How long after `g` the letter may come, in milliseconds.
const PATIENCE_MS: f64 = 1500.0;

/// What a key asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Go to a page of the same run.
    Go(Page),
    /// Show the list of shortcuts.
    Help,
}

/// Shortcuts of every page and what they do, for the help.
pub const SHORTCUTS: &[(&str, &str)] = &[
    ("g o", "go to the overview"),
    ("g u", "go to the users"),
    ("g i", "go to the items"),
    ("g m", "go to the map"),
    ("g c", "compare two checkpoints"),
    ("g l", "go to the live check"),
    ("Ctrl K or ⌘ K", "find a page, user, item or command"),
    ("← →", "in a chart: go from point to point"),
    ("+ −", "in a chart: look closer at the point, or from further away"),
    ("0", "in a chart: show all of it"),
    ("?", "show this list"),
];

/// Which keys came before.
#[derive(Clone, Copy, Debug, Default)]
pub struct Keys {
    /// When `g` was pressed, if it is to be followed by a letter.
    began_ms: Option<f64>,
}

impl Keys {
    /// Takes the key that was pressed at a time in milliseconds; says what it asks for.
    pub fn press(&mut self, key: &str, now_ms: f64) -> Option<Command> {
        let follows = self.began_ms.take().is_some_and(|began| now_ms - began <= PATIENCE_MS);
        match key {
            "o" if follows => Some(Command::Go(Page::Overview)),
            "u" if follows => Some(Command::Go(Page::Users)),
            "i" if follows => Some(Command::Go(Page::Items)),
            "m" if follows => Some(Command::Go(Page::Map)),
            "c" if follows => Some(Command::Go(Page::Compare)),
            "l" if follows => Some(Command::Go(Page::Check(0))),
            "g" => {
                self.began_ms = Some(now_ms);
                None
            }
            "?" => Some(Command::Help),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn g_and_a_letter_go_to_a_page() {
        let mut keys = Keys::default();
        assert_eq!(keys.press("g", 0.0), None);
        assert_eq!(keys.press("u", 900.0), Some(Command::Go(Page::Users)));
        assert_eq!(keys.press("u", 950.0), None, "one g is for one letter");
        assert_eq!(keys.press("g", 1000.0), None);
        assert_eq!(keys.press("o", 1100.0), Some(Command::Go(Page::Overview)));
    }

    #[test]
    fn a_letter_that_comes_late_or_after_another_means_nothing() {
        let mut keys = Keys::default();
        keys.press("g", 0.0);
        assert_eq!(keys.press("o", 1501.0), None);
        keys.press("g", 2000.0);
        assert_eq!(keys.press("x", 2100.0), None);
        assert_eq!(keys.press("o", 2200.0), None);
        assert_eq!(keys.press("?", 2300.0), Some(Command::Help));
    }
}
