//! Text in and out of a Hugging Face folder: tokenizers and the forms in which a prompt is put to a language model.
//!
//! ```no_run
//! # use std::path::Path;
//! use models::text::{PromptTemplate, Tokenizer};
//!
//! let folder = Path::new("models/SmolLM2-135M-Instruct");
//! let tokenizer = Tokenizer::open(folder)?;
//! let template = PromptTemplate::chat(folder)?;
//! let prompt = template.encode(&tokenizer, "Which films would I like?")?;
//! println!("{}", tokenizer.decode(&prompt)?);
//! # Ok::<(), models::text::TextError>(())
//! ```

mod error;
mod json;
mod special;
mod template;
mod tokenizer;

pub use error::TextError;
pub use template::{ChatTemplate, PromptTemplate};
pub use tokenizer::{SpecialTokens, Tokenizer};
