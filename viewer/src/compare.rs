//! The page that compares two checkpoints user by user, of one run or of two.

mod page;
mod pairs;
mod scatter;
mod settings;

pub use page::ComparePage;
pub use pairs::{Compared, Matched, Side};
pub use scatter::Scatter;
pub use settings::{Named, recorded_test};
