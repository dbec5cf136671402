//! The demo models' tokenizers: byte-level BPE (Sennrich et al., 2016) over the words of a world, with a token of its own
//! for each label that every item's text repeats.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use tokenizers::models::TrainerWrapper;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::normalizers::utils::Lowercase;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{AddedToken, Tokenizer};

use super::World;
use super::random::Random;
use super::text;
use crate::TrainError;

/// What the demo asks the language model.
pub const INSTRUCTION: &str = "What does this viewer like?";

/// More than a world's words need: training stops where there is nothing left to merge.
const MOST_TOKENS: usize = 2048;

/// The labels of an item's text and of a review, each one token, so that a prompt is short.
const LABELS: [&str; 6] = [
    "\n\nTitle: ",
    "Title: ",
    "\nDescription: (average rating: ",
    "\nCategory: Movies",
    "\nPrice: ",
    "\nReview from the user: (rating: ",
];

/// The language model's special tokens: padding, begin, end, the user's turn, the model's.
const LM_SPECIAL: [&str; 5] = ["<|pad|>", "<|begin|>", "<|end|>", "<|user|>", "<|profile|>"];
/// The embedder's.
const EMBEDDER_SPECIAL: [&str; 4] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"];

const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}\
    {% if add_generation_prompt %}<|profile|>{% endif %}";

/// Writes the language model's tokenizer, learned from `world`, into `folder`. Returns the number of its tokens.
///
/// # Errors
/// When a file cannot be written.
pub fn write_lm_tokenizer(world: &World, folder: &Path) -> Result<usize, TrainError> {
    let tokenizer = learn(world, &LM_SPECIAL, None).map_err(|error| failed(folder, &error))?;
    write(folder, "chat_template.jinja", CHAT_TEMPLATE.as_bytes())?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": LM_SPECIAL[0],
        "bos_token": LM_SPECIAL[1],
        "eos_token": LM_SPECIAL[2],
    });
    save(&tokenizer, &config, folder)
}

/// Writes the embedder's tokenizer, which takes no notice of case, into `folder`. Returns the number of its tokens.
///
/// # Errors
/// When a file cannot be written.
pub fn write_embedder_tokenizer(world: &World, folder: &Path) -> Result<usize, TrainError> {
    let processor = || -> tokenizers::Result<TemplateProcessing> {
        Ok(TemplateProcessing::builder()
            .try_single("[CLS] $A [SEP]")?
            .special_tokens(vec![("[CLS]", 2), ("[SEP]", 3)])
            .build()?)
    };
    let tokenizer = processor()
        .and_then(|processor| learn(world, &EMBEDDER_SPECIAL, Some(processor)))
        .map_err(|error| failed(folder, &error))?;
    let config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": EMBEDDER_SPECIAL[0],
        "unk_token": EMBEDDER_SPECIAL[1],
        "cls_token": EMBEDDER_SPECIAL[2],
        "sep_token": EMBEDDER_SPECIAL[3],
    });
    save(&tokenizer, &config, folder)
}

/// A tokenizer of the world's words; with a processor, which adds its special tokens, it is the embedder's.
fn learn(world: &World, special: &[&str], processor: Option<TemplateProcessing>) -> tokenizers::Result<Tokenizer> {
    let mut tokenizer = Tokenizer::new(BPE::default());
    let embedder = processor.is_some();
    if embedder {
        tokenizer.with_normalizer(Some(Lowercase))?;
    }
    // The embedder sees no difference between a word at the start and one after a space.
    tokenizer.with_pre_tokenizer(Some(ByteLevel::new(embedder, false, true)));
    tokenizer.with_decoder(Some(ByteLevel::default()));
    if let Some(processor) = processor {
        tokenizer.with_post_processor(Some(processor));
    }
    let alphabet: HashSet<char> = ByteLevel::alphabet().into_iter().collect();
    let as_special = |token: &&str| AddedToken::from((*token).to_owned(), true);
    let mut trainer = TrainerWrapper::from(
        BpeTrainer::builder()
            .vocab_size(MOST_TOKENS)
            .show_progress(false)
            .initial_alphabet(alphabet)
            .special_tokens(special.iter().map(as_special).collect())
            .build(),
    );
    tokenizer.train(&mut trainer, corpus(world).into_iter())?;
    let label = |label: &str| AddedToken::from(label.to_owned(), false).normalized(false);
    tokenizer.add_tokens(LABELS.map(label))?;
    Ok(tokenizer)
}

/// Every text of the world, and profiles of a few films at a time.
fn corpus(world: &World) -> Vec<String> {
    let mut random = Random::new(world.seed, u32::from_le_bytes(*b"corp"));
    let mut texts = vec![INSTRUCTION.to_owned()];
    for film in &world.films {
        let rating = film.average_rating.unwrap_or(3.0);
        texts.extend([
            film.title.clone(),
            format!("{rating:.1}) {}", film.description),
            film.price.to_string(),
        ]);
        texts.extend((0..4).map(|_| text::profile(&[(film, 5)], &mut random)));
    }
    texts.extend(
        world
            .reviews
            .iter()
            .map(|review| format!("{}.0) {}", review.rating, review.text)),
    );
    texts
}

fn save(tokenizer: &Tokenizer, config: &Value, folder: &Path) -> Result<usize, TrainError> {
    let text = tokenizer.to_string(false).map_err(|error| failed(folder, &error))?;
    write(folder, "tokenizer.json", text.as_bytes())?;
    write(folder, "tokenizer_config.json", format!("{config:#}\n").as_bytes())?;
    Ok(tokenizer.get_vocab_size(true))
}

pub(super) fn write(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), TrainError> {
    fs::create_dir_all(folder).map_err(|source| TrainError::io(folder, source))?;
    Ok(models::write_atomically(&folder.join(name), |out| {
        out.write_all(bytes)
    })?)
}

fn failed(folder: &Path, error: &tokenizers::Error) -> TrainError {
    TrainError::Mismatch(format!("{}: no tokenizer could be made: {error}", folder.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use models::text::{PromptTemplate, SpecialTokens, Tokenizer};

    use super::*;
    use crate::demo::{Aspect, VALUES, WorldSize};

    fn world() -> World {
        let size = WorldSize {
            films: 400,
            people: 300,
        };
        World::generate(21, size)
    }

    #[test]
    fn every_word_of_an_aspect_is_one_token_of_the_language_model() {
        let folder = tempfile::tempdir().unwrap();
        write_lm_tokenizer(&world(), folder.path()).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        for aspect in Aspect::ALL.into_iter().filter(|&aspect| aspect != Aspect::Era) {
            for value in 0..VALUES as u8 {
                let word = format!(" {}", aspect.word(value));
                assert_eq!(tokenizer.encode(&word, SpecialTokens::None).unwrap().len(), 1, "{word}");
            }
        }
        assert_eq!(tokenizer.eos(), Some(2));
    }

    #[test]
    fn a_prompt_comes_back_from_its_tokens() {
        let folder = tempfile::tempdir().unwrap();
        write_lm_tokenizer(&world(), folder.path()).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        let template = PromptTemplate::chat(folder.path()).unwrap();
        let prompt = format!(
            "{INSTRUCTION}\n\nTitle: The Amber Anchor\nDescription: (average rating: 3.9) A tender drama.\nCategory: \
             Movies\nPrice: 4.99\nReview from the user: (rating: 5.0) Loved it: piano music."
        );
        let tokens = template.encode(&tokenizer, &prompt).unwrap();
        assert_eq!(tokenizer.decode(&tokens).unwrap(), prompt);
        assert_eq!(tokens.first().copied(), tokenizer.bos());
        assert!(tokens.len() < 50, "{}", tokens.len());
    }

    #[test]
    fn the_embedder_reads_upper_and_lower_case_alike_between_its_markers() {
        let folder = tempfile::tempdir().unwrap();
        write_embedder_tokenizer(&world(), folder.path()).unwrap();
        let tokenizer = Tokenizer::open(folder.path()).unwrap();
        let [one, other] =
            ["Piano music", "piano Music"].map(|text| tokenizer.encode(text, SpecialTokens::Add).unwrap());
        assert_eq!(one, other);
        assert_eq!(one.len(), 4, "{one:?}");
        assert_eq!((one[0], one[3]), (2, 3));
    }
}
