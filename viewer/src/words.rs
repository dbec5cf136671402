//! The difference of two texts, word by word: a longest common subsequence of their words.
//!
//! Written by hand because it is short and a line-oriented crate would not keep each text's own white space.

/// A part of the difference. In order, what is not removed is the new text, letter by letter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// Where it comes from.
    pub change: Change,
    /// Whole words with the white space behind them.
    pub text: String,
}

/// Where a part of a difference comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Both texts have these words; the white space is the new one's.
    Same,
    /// Only the old text has them.
    Removed,
    /// Only the new text has them.
    Added,
}

/// The largest table of pairs of words that is compared; beyond it, all that differs counts as removed and added. Four
/// thousand words a text, far more than a profile has.
const MOST_PAIRS: usize = 16_000_000;

/// What became of `old` in `new`, as few words as possible being removed and added. Between words that stay, those that are
/// removed come before those that are added.
pub fn difference(old: &str, new: &str) -> Vec<Span> {
    let (old, new) = (pieces(old), pieces(new));
    let before = old.iter().zip(&new).take_while(same).count();
    let (old_rest, new_rest) = (&old[before..], &new[before..]);
    let after = old_rest
        .iter()
        .rev()
        .zip(new_rest.iter().rev())
        .take_while(same)
        .count();
    let (old_middle, _) = old_rest.split_at(old_rest.len() - after);
    let (new_middle, new_after) = new_rest.split_at(new_rest.len() - after);

    let mut spans = Spans::default();
    spans.extend(Change::Same, &new[..before]);
    middle(old_middle, new_middle, &mut spans);
    spans.extend(Change::Same, new_after);
    spans.0
}

fn same((old, new): &(&Piece<'_>, &Piece<'_>)) -> bool {
    old.word == new.word
}

/// A word and the white space behind it. The first may be white space alone.
struct Piece<'a> {
    word: &'a str,
    text: &'a str,
}

/// Every letter of `text` is in one piece.
fn pieces(text: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let word = rest.find(char::is_whitespace).unwrap_or(rest.len());
        let space = rest[word..].find(|letter: char| !letter.is_whitespace());
        let end = space.map_or(rest.len(), |space| word + space);
        pieces.push(Piece {
            word: &rest[..word],
            text: &rest[..end],
        });
        rest = &rest[end..];
    }
    pieces
}

/// Spans in the making: neighbours of the same kind are joined.
#[derive(Default)]
struct Spans(Vec<Span>);

impl Spans {
    fn extend(&mut self, change: Change, pieces: &[Piece<'_>]) {
        for piece in pieces {
            match self.0.last_mut().filter(|last| last.change == change) {
                Some(last) => last.text.push_str(piece.text),
                None => self.0.push(Span {
                    change,
                    text: piece.text.to_owned(),
                }),
            }
        }
    }
}

/// Texts that differ in their first and last word.
fn middle(old: &[Piece<'_>], new: &[Piece<'_>], spans: &mut Spans) {
    if old.len().saturating_mul(new.len()) > MOST_PAIRS {
        spans.extend(Change::Removed, old);
        spans.extend(Change::Added, new);
        return;
    }
    let common = common_lengths(old, new);
    let columns = new.len() + 1;
    // What is added waits until everything that is removed before the next common word is out.
    let (mut i, mut j, mut waiting) = (0, 0, 0);
    while i < old.len() || j < new.len() {
        let is_common = i < old.len() && j < new.len() && old[i].word == new[j].word;
        if is_common {
            spans.extend(Change::Added, &new[waiting..j]);
            spans.extend(Change::Same, &new[j..=j]);
            (i, j, waiting) = (i + 1, j + 1, j + 1);
        } else if i < old.len() && (j == new.len() || common[(i + 1) * columns + j] >= common[i * columns + j + 1]) {
            spans.extend(Change::Removed, &old[i..=i]);
            i += 1;
        } else {
            j += 1;
        }
    }
    spans.extend(Change::Added, &new[waiting..]);
}

/// At `i * (new.len() + 1) + j`, how many words `old[i..]` and `new[j..]` have in common, in order.
fn common_lengths(old: &[Piece<'_>], new: &[Piece<'_>]) -> Vec<u16> {
    let columns = new.len() + 1;
    let mut common = vec![0u16; (old.len() + 1) * columns];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            let below = (i + 1) * columns + j;
            common[i * columns + j] = match old[i].word == new[j].word {
                true => common[below + 1].saturating_add(1),
                false => common[below].max(common[i * columns + j + 1]),
            };
        }
    }
    common
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `[-removed-]{+added+}`, as other tools write it.
    fn written(old: &str, new: &str) -> String {
        let spans = difference(old, new);
        let parts = spans.iter().map(|span| match span.change {
            Change::Same => span.text.clone(),
            Change::Removed => format!("[-{}-]", span.text),
            Change::Added => format!("{{+{}+}}", span.text),
        });
        parts.collect()
    }

    #[test]
    fn equal_texts_are_one_span_and_empty_ones_none() {
        assert_eq!(written("likes old films", "likes old films"), "likes old films");
        assert_eq!(difference("", ""), []);
    }

    #[test]
    fn a_changed_word_is_removed_and_added_in_its_place() {
        assert_eq!(
            written("likes old horror films", "likes new horror films"),
            "likes [-old -]{+new +}horror films"
        );
    }

    #[test]
    fn words_in_a_row_are_one_span() {
        assert_eq!(written("a b c d", "a x y d"), "a [-b c -]{+x y +}d");
        assert_eq!(written("a d", "a b c d"), "a {+b c +}d");
        assert_eq!(written("", "all new"), "{+all new+}");
        assert_eq!(written("all old", ""), "[-all old-]");
    }

    #[test]
    fn as_much_as_possible_stays() {
        // The classic pair: ABCBDAB and BDCABA have four in common.
        let spans = difference("A B C B D A B", "B D C A B A");
        let count = |change| -> usize {
            let of = spans.iter().filter(|span| span.change == change);
            of.map(|span| span.text.split_whitespace().count()).sum()
        };
        assert_eq!(
            (count(Change::Same), count(Change::Removed), count(Change::Added)),
            (4, 3, 2)
        );
    }

    #[test]
    fn white_space_is_kept_and_does_not_make_words_differ() {
        assert_eq!(written("  a\tb", "a\n\n b "), "[-  -]a\n\n b ");
        let pairs = [
            ("\u{a0}one  two\r\nthree", " one two\n\nfour three\t"),
            ("x", "\n"),
            ("أحب 🎬 films", "أحب  films 🎬\u{202e}"),
        ];
        for (old, new) in pairs {
            let kept = difference(old, new)
                .into_iter()
                .filter(|span| span.change != Change::Removed);
            assert_eq!(kept.map(|span| span.text).collect::<String>(), new);
        }
    }

    #[test]
    fn removed_and_common_words_are_the_old_text() {
        let (old, new) = ("one two three four five six", "zero two five three six seven");
        let kept = difference(old, new)
            .into_iter()
            .filter(|span| span.change != Change::Added);
        let words: String = kept.map(|span| span.text).collect();
        assert_eq!(words.split_whitespace().collect::<Vec<_>>().join(" "), old);
    }

    #[test]
    fn texts_too_long_to_compare_keep_their_common_ends() {
        let long = |word: &str| vec![word; 5_000].join(" ");
        let (old, new) = (format!("same {} end", long("a")), format!("same {} end", long("b")));
        let spans = difference(&old, &new);
        let changes: Vec<_> = spans.iter().map(|span| span.change).collect();
        assert_eq!(changes, [Change::Same, Change::Removed, Change::Added, Change::Same]);
        assert_eq!(spans[1].text.split_whitespace().count(), 5_000);
    }
}
