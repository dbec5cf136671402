//! From a published prompt back to the history: what was asked, and each item's rating and review.

use super::PAD;

/// What stands before and after a prompt, where a language model's turn begins.
pub(super) type Frame<'a> = (&'a str, &'a str);

/// Gemma's turn as the published scripts write it.
const GEMMA: Frame<'static> = ("<start_of_turn>user\n", "<end_of_turn>\n<start_of_turn>model");

/// Llama 3's turn, decoded from its tokens.
const LLAMA: Frame<'static> = (
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n",
    "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n",
);

/// The prompt without padding and turn markers: those of `own`, else Gemma's or Llama's.
pub(super) fn without_markers<'text>(text: &'text str, own: Option<Frame<'_>>) -> Option<&'text str> {
    let text = text.trim_start_matches(PAD);
    let frames = own.into_iter().chain([GEMMA, LLAMA]);
    frames
        .into_iter()
        .find_map(|(before, after)| text.strip_prefix(before)?.strip_suffix(after))
}

/// What a prompt is made of.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct History {
    pub(super) instruction: String,
    /// A rating an item.
    pub(super) ratings: Vec<f32>,
    /// A review an item.
    pub(super) reviews: Vec<String>,
}

/// Takes a prompt apart, in which the texts of the history's `items` stand in their order, each followed by a review.
///
/// Spaces are not compared: a text that went through a tokenizer and back may have lost some (transformers writes ` .` as
/// `.` and `do n't` as `don't`).
///
/// # Errors
/// The place in the history, from 0, of the item that is not found, or whose rating is no number.
pub(super) fn history(prompt: &str, items: &[&str]) -> Result<History, usize> {
    let squeezed = Squeezed::new(prompt);
    let mut found = Vec::with_capacity(items.len());
    let mut from = 0;
    for (place, item) in items.iter().enumerate() {
        let wanted = Squeezed::new(&format!("{item}\nReview from the user: (rating: ")).text;
        let start = squeezed.text[from..].find(&wanted).ok_or(place)? + from;
        from = start + wanted.len();
        found.push((squeezed.place(start), squeezed.place(from)));
    }
    let starts = found.iter().map(|(start, _)| *start);
    let ends: Vec<usize> = starts.clone().skip(1).chain([prompt.len()]).collect();
    let mut history = History {
        instruction: before_gap(&prompt[..starts.clone().next().unwrap_or(prompt.len())]).to_owned(),
        ratings: Vec::new(),
        reviews: Vec::new(),
    };
    for (place, ((_, rated), end)) in found.iter().zip(ends).enumerate() {
        let (rating, review) = prompt[*rated..end].split_once(')').ok_or(place)?;
        let rating = rating.trim().parse::<f32>().ok().filter(|rating| rating.is_finite());
        history.ratings.push(rating.ok_or(place)?);
        let review = review.strip_prefix(' ').unwrap_or(review);
        let last = place + 1 == items.len();
        history
            .reviews
            .push(if last { review } else { before_gap(review) }.to_owned());
    }
    Ok(history)
}

/// Without the blank line that parts entries.
fn before_gap(text: &str) -> &str {
    text.strip_suffix("\n\n").unwrap_or(text)
}

/// A text without spaces, and where its letters stood.
struct Squeezed {
    text: String,
    /// For every byte of `text` its place in the original, and the original's length at the end.
    places: Vec<usize>,
}

impl Squeezed {
    fn new(original: &str) -> Self {
        let mut squeezed = Self {
            text: String::with_capacity(original.len()),
            places: Vec::with_capacity(original.len() + 1),
        };
        for (place, letter) in original.char_indices() {
            if !letter.is_whitespace() {
                squeezed.text.push(letter);
                squeezed.places.extend(place..place + letter.len_utf8());
            }
        }
        squeezed.places.push(original.len());
        squeezed
    }

    fn place(&self, byte: usize) -> usize {
        self.places.get(byte).copied().unwrap_or_default()
    }
}

/// Whether two texts differ in spaces alone, if at all.
pub(super) fn same_but_for_spaces(one: &str, other: &str) -> bool {
    let letters = |text: &'_ str| {
        text.chars()
            .filter(|letter| !letter.is_whitespace())
            .collect::<String>()
    };
    letters(one) == letters(other)
}
