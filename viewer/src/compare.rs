//! The page that compares two checkpoints user by user, of one run or of two.

mod both;
mod choices;
mod page;
mod pairs;
mod profiles;
mod reading;
mod scatter;
mod settings;
mod tests_table;

pub use page::ComparePage;
pub use pairs::{Compared, Matched, Side};
pub use scatter::Scatter;
pub use settings::{Named, recorded_test};
