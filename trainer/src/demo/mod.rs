//! A small world to try everything on: made-up films and people, and tokenizers for their words.
//!
//! Nothing here is real, and everything that is written says so.

mod aspects;
mod random;
mod raw_files;
mod text;
mod tokenizer;
mod world;

pub use aspects::{Aspect, VALUES};
pub use random::Random;
pub use raw_files::RawFiles;
pub use text::{TITLES, description, profile, review, titles};
pub use tokenizer::{INSTRUCTION, write_embedder_tokenizer, write_lm_tokenizer};
pub use world::{DECISIVE, Film, Person, Review, World, WorldSize};
