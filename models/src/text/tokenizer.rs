//! A tokenizer read from a Hugging Face folder.

use std::path::Path;

use rayon::prelude::*;
use tokenizers::utils::truncation::TruncationDirection;

use super::{TextError, special::SpecialNames};

/// Whether the tokens that the tokenizer's post-processor adds (BOS, CLS, SEP …) surround the text.
///
/// A special token that is written out in the text itself is recognised in both cases, as transformers does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialTokens {
    /// Add them.
    Add,
    /// The text alone.
    None,
}

/// Which part of a text survives a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Start,
    End,
}

/// Text to token ids and back. The file's own truncation and padding are switched off: limits are the caller's.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    bos: Option<u32>,
    eos: Option<u32>,
    pad: Option<u32>,
    generation_eos: Vec<u32>,
    vocabulary_size: usize,
    /// How many tokens the post-processor adds to one text.
    added: usize,
}

impl Tokenizer {
    /// Reads `tokenizer.json` of `folder`, and beside it `tokenizer_config.json`, `special_tokens_map.json` and
    /// `generation_config.json` where they exist.
    ///
    /// # Errors
    /// [`TextError::Read`], [`TextError::Json`], [`TextError::Field`] or [`TextError::Tokenizer`], naming the file.
    pub fn open(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join("tokenizer.json");
        let bytes = std::fs::read(&path).map_err(|source| TextError::Read {
            path: path.clone(),
            source,
        })?;
        let unusable = |error: tokenizers::Error| TextError::Tokenizer {
            path: path.clone(),
            message: error.to_string(),
        };
        let mut inner = tokenizers::Tokenizer::from_bytes(&bytes).map_err(unusable)?;
        inner.with_truncation(None).map_err(unusable)?;
        let padding = inner.get_padding().map(|padding| padding.pad_id);
        inner.with_padding(None);

        let names = SpecialNames::read(folder)?;
        let id = |name: &Option<String>| name.as_deref().and_then(|name| inner.token_to_id(name));
        let (bos, eos, pad) = (id(&names.bos), id(&names.eos), id(&names.pad));
        let largest = inner.get_vocab(true).into_values().max();
        let added = added_tokens(&inner).map_err(unusable)?;
        Ok(Self {
            bos,
            eos: eos.or_else(|| names.generation_eos.first().copied()),
            pad: pad.or(padding),
            generation_eos: names.generation_eos,
            vocabulary_size: largest.map_or(0, |id| id as usize + 1),
            added,
            inner,
        })
    }

    /// The token ids of `text`, whole.
    ///
    /// # Errors
    /// [`TextError::Encode`] where the tokenizer's model refuses the text.
    pub fn encode(&self, text: &str, special: SpecialTokens) -> Result<Vec<u32>, TextError> {
        self.inner
            .encode_fast(text, special == SpecialTokens::Add)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| refused(text, &error))
    }

    /// [`encode`](Self::encode) of every text, in parallel, in the order of `texts`.
    ///
    /// # Errors
    /// As [`encode`](Self::encode), for the first text that fails.
    pub fn encode_batch<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        special: SpecialTokens,
    ) -> Result<Vec<Vec<u32>>, TextError> {
        texts
            .par_iter()
            .map(|text| self.encode(text.as_ref(), special))
            .collect()
    }

    /// At most `limit` token ids of `text` with its special tokens around it: what is too long loses its end, and
    /// CLS … SEP (or BOS … EOS) stay, as transformers truncates.
    ///
    /// # Errors
    /// [`TextError::LimitTooSmall`] where the special tokens alone fill `limit`; [`TextError::Encode`].
    pub fn encode_limited(&self, text: &str, limit: usize) -> Result<Vec<u32>, TextError> {
        self.encode_cut(text, limit, Keep::Start)
    }

    /// As [`encode_limited`](Self::encode_limited), but what is too long loses its start: CLS, the last tokens, SEP.
    ///
    /// # Errors
    /// As [`encode_limited`](Self::encode_limited).
    pub fn encode_limited_to_end(&self, text: &str, limit: usize) -> Result<Vec<u32>, TextError> {
        self.encode_cut(text, limit, Keep::End)
    }

    /// [`encode_limited`](Self::encode_limited) of every text, in parallel, in the order of `texts`.
    ///
    /// # Errors
    /// As [`encode_limited`](Self::encode_limited), for the first text that fails.
    pub fn encode_batch_limited<T: AsRef<str> + Sync>(
        &self,
        texts: &[T],
        limit: usize,
    ) -> Result<Vec<Vec<u32>>, TextError> {
        texts
            .par_iter()
            .map(|text| self.encode_limited(text.as_ref(), limit))
            .collect()
    }

    fn encode_cut(&self, text: &str, limit: usize, keep: Keep) -> Result<Vec<u32>, TextError> {
        if limit <= self.added {
            return Err(TextError::LimitTooSmall {
                limit,
                special: self.added,
            });
        }
        let direction = match keep {
            Keep::Start => TruncationDirection::Right,
            Keep::End => TruncationDirection::Left,
        };
        let mut encoding = self
            .inner
            .encode_fast(text, false)
            .map_err(|error| refused(text, &error))?;
        encoding.truncate(limit - self.added, 0, direction);
        // The cut-off remainder would be post-processed too, and nobody reads it.
        encoding.take_overflowing();
        self.inner
            .post_process(encoding, None, true)
            .map(|encoding| encoding.get_ids().to_vec())
            .map_err(|error| refused(text, &error))
    }

    /// The text of `ids`, special tokens dropped.
    ///
    /// # Errors
    /// [`TextError::Decode`] where the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        self.inner.decode(ids, true).map_err(|error| TextError::Decode {
            tokens: ids.len(),
            message: error.to_string(),
        })
    }

    /// The token that begins a text, where the tokenizer has one.
    pub fn bos(&self) -> Option<u32> {
        self.bos
    }

    /// The tokenizer's `eos_token`; where its files name none, the first one of generation_config.json.
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// The token that fills up a batch. It may equal [`eos`](Self::eos): mask by position, never by this id.
    pub fn pad(&self) -> Option<u32> {
        self.pad
    }

    /// Every end token that generation_config.json lists. Chat models often end a turn with another one than
    /// [`eos`](Self::eos).
    pub fn generation_eos(&self) -> &[u32] {
        &self.generation_eos
    }

    /// The largest token id + 1, added tokens included: an embedding table must have at least this many rows.
    pub fn vocabulary_size(&self) -> usize {
        self.vocabulary_size
    }

    /// The id of a token by its exact text.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }
}

/// How many tokens surround an empty text.
fn added_tokens(inner: &tokenizers::Tokenizer) -> tokenizers::Result<usize> {
    Ok(inner.encode_fast("", true)?.len() - inner.encode_fast("", false)?.len())
}

fn refused(text: &str, error: &tokenizers::Error) -> TextError {
    TextError::Encode {
        start: text.chars().take(40).collect(),
        message: error.to_string(),
    }
}
