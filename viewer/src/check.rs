//! The page that ranks a user's items again from the stored vectors, with another mask or another cutoff, beside what is recorded.

mod outcome;
mod page;
mod settings;

pub use outcome::{Place, differences, measures, places};
pub use page::CheckPage;
pub use settings::{Mask, chosen_checkpoint, cutoff, vector_place};
