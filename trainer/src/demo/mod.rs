//! A small world to try everything on: made-up films and people, and tiny models pretrained on such worlds.
//!
//! Nothing here is real, and everything that is written says so.

mod aspects;
mod assets;
mod pretrain;
mod random;
mod raw_files;
mod run;
mod text;
mod tokenizer;
mod world;

pub use aspects::{Aspect, VALUES};
pub use pretrain::{Pretraining, TRAINING_SEED};
pub use random::Random;
pub use raw_files::RawFiles;
use run::prepare_rules;
pub use run::{Demo, Example, Means, Scale, Summary, Told};
pub use text::{TITLES, description, profile, review, titles};
pub use tokenizer::{INSTRUCTION, write_embedder_tokenizer, write_lm_tokenizer};
pub use world::{DECISIVE, Film, Person, Review, World, WorldSize};
