//! Token ids of published texts: those of this run's tokenizers, beside the padded ids that are stored.

use std::path::Path;

use models::text::{PromptTemplate, SpecialTokens, TextError, Tokenizer};

use super::history::{Frame, same_but_for_spaces};
use crate::data::TemplateForm;

/// Stands for a prompt where the text around it is wanted.
const STANDING_IN: &str = "0";

/// How stored ids compare with those of a text under this run's tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    /// The same, but for the padding.
    Same,
    /// The stored ones are this tokenizer's and say the same with other spaces: the text went through a tokenizer and
    /// back, and lost some. The ids are what was trained on.
    OtherSpaces,
    /// Another tokenizer's.
    Other,
}

/// A prompt as it is put to the language model.
#[derive(Debug)]
pub(super) struct TokenizedPrompt {
    pub(super) tokens: Vec<u32>,
    /// The text that the tokens say, where it is not the published one.
    pub(super) text: Option<String>,
    pub(super) agreement: Agreement,
}

/// Makes the tokens of prompts.
pub(super) struct PromptTokenizer {
    tokenizer: Tokenizer,
    template: PromptTemplate,
    /// The rendered text around a prompt.
    frame: [String; 2],
    /// The same as decoding shows it, special tokens left out.
    decoded_frame: [String; 2],
}

impl PromptTokenizer {
    pub(super) fn open(lm: &Path, form: TemplateForm) -> Result<Self, TextError> {
        let tokenizer = Tokenizer::open(lm)?;
        let template = form.open(lm)?;
        let around = |text: &str| {
            let (before, after) = text.rsplit_once(STANDING_IN).unwrap_or_default();
            [before.to_owned(), after.to_owned()]
        };
        let decoded = tokenizer.decode(&template.encode(&tokenizer, STANDING_IN)?)?;
        Ok(Self {
            frame: around(&template.render(STANDING_IN)?),
            decoded_frame: around(&decoded),
            tokenizer,
            template,
        })
    }

    pub(super) fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The rendered text of a prompt.
    pub(super) fn form(&self) -> Result<String, TextError> {
        self.template.render("{prompt}")
    }

    /// What stands around a prompt.
    pub(super) fn frame(&self) -> Frame<'_> {
        (&self.frame[0], &self.frame[1])
    }

    /// The tokens of `prompt`, beside the left-padded ones that are `stored` with it.
    pub(super) fn tokens(&self, prompt: &str, stored: &[u32]) -> Result<TokenizedPrompt, TextError> {
        let tokens = self.template.encode(&self.tokenizer, prompt)?;
        let of_text = |tokens, agreement| TokenizedPrompt {
            tokens,
            text: None,
            agreement,
        };
        let stored = without_left_padding(stored, &tokens);
        if stored == tokens {
            return Ok(of_text(tokens, Agreement::Same));
        }
        if stored.iter().any(|id| *id as usize >= self.tokenizer.vocabulary_size()) {
            return Ok(of_text(tokens, Agreement::Other));
        }
        let said = self.tokenizer.decode(stored)?;
        if !same_but_for_spaces(&said, &self.tokenizer.decode(&tokens)?) {
            return Ok(of_text(tokens, Agreement::Other));
        }
        let [before, after] = &self.decoded_frame;
        let text = said.strip_prefix(before.as_str());
        let text = text.and_then(|text| text.strip_suffix(after.as_str()));
        Ok(TokenizedPrompt {
            tokens: stored.to_vec(),
            text: text.map(str::to_owned),
            agreement: Agreement::OtherSpaces,
        })
    }
}

/// The ids without the run of one id that fills the row's start. The pad is often an id that the tokenizer does not have,
/// or one that it has for something else, so that the start of `expected` tells where the text begins.
fn without_left_padding<'a>(stored: &'a [u32], expected: &[u32]) -> &'a [u32] {
    let run = |ids: &[u32]| ids.iter().take_while(|id| Some(*id) == ids.first()).count();
    if stored.first() == expected.first() {
        // Padded with the very token that begins the text, or not padded.
        return &stored[run(stored).saturating_sub(run(expected))..];
    }
    &stored[run(stored)..]
}

/// The tokens of an item's text under the embedder's tokenizer, and whether the right-padded `stored` ones are the same.
pub(super) fn item_tokens(embedder: &Tokenizer, text: &str, stored: &[u32]) -> Result<(Vec<u32>, bool), TextError> {
    let tokens = embedder.encode(text, SpecialTokens::Add)?;
    let same = stored.strip_prefix(tokens.as_slice()).is_some_and(|padding| {
        let all_alike = padding.iter().all(|id| Some(id) == padding.first());
        // A longer text could go on with a single token.
        all_alike && (padding.is_empty() || padding.first() != tokens.last())
    });
    Ok((tokens, same))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_is_the_run_before_the_first_token_whatever_its_id() {
        let expected = [2, 7, 7, 9];
        assert_eq!(without_left_padding(&[500, 500, 2, 7, 7, 9], &expected), expected);
        assert_eq!(without_left_padding(&[2, 7, 7, 9], &expected), expected);
        assert_eq!(without_left_padding(&[2, 2, 2, 7, 7, 9], &expected), expected);
        assert_eq!(without_left_padding(&[0, 2, 8, 8, 9], &expected), [2, 8, 8, 9]);
        assert_eq!(without_left_padding(&[2, 2, 2, 7], &[2, 2, 7]), [2, 2, 7]);
        assert_eq!(without_left_padding(&[], &expected), [0; 0]);
    }
}
