//! The text of a prompt: what the language model is asked, and from which history.

use super::number::python_float_of_single;

/// What the published films and TV run asks. It must fit the domain: `--instruction` for anything else.
pub const FILM_INSTRUCTION: &str = "The user has rated (out of 5.0) and reviewed following movies and TV shows arranged \
    chronologically from the oldest (top) to the newest (bottom). Please provide a high-level summary of the user \
    preference in detail.";

/// One entry of a history.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rated<'text> {
    pub(super) item_text: &'text str,
    pub(super) rating: f32,
    pub(super) review: &'text str,
}

/// The instruction, then each entry of the history, joined by blank lines; without turn markers.
pub(super) fn prompt<'text>(instruction: &str, history: impl Iterator<Item = Rated<'text>>) -> String {
    let mut prompt = instruction.to_owned();
    for Rated {
        item_text,
        rating,
        review,
    } in history
    {
        let rating = python_float_of_single(rating);
        prompt.push_str("\n\n");
        prompt.push_str(item_text);
        prompt.push_str(&format!("\nReview from the user: (rating: {rating}) {review}"));
    }
    prompt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_is_the_instruction_and_the_history_with_blank_lines_between() {
        let history = [
            Rated {
                item_text: "Title: A",
                rating: 4.0,
                review: "fine",
            },
            Rated {
                item_text: "Title: B",
                rating: 2.5,
                review: "",
            },
        ];
        let text = prompt("Say.", history.into_iter());
        assert_eq!(
            text,
            "Say.\n\nTitle: A\nReview from the user: (rating: 4.0) fine\n\nTitle: B\nReview from the user: (rating: 2.5) "
        );
    }

    #[test]
    fn the_film_instruction_is_one_line_as_published() {
        assert!(FILM_INSTRUCTION.starts_with("The user has rated (out of 5.0) and reviewed following movies"));
        assert!(
            FILM_INSTRUCTION
                .ends_with("(bottom). Please provide a high-level summary of the user preference in detail.")
        );
        assert!(!FILM_INSTRUCTION.contains("  ") && !FILM_INSTRUCTION.contains('\n'));
    }
}
