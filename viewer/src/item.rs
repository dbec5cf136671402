//! The page of one item: what it is, how often and to whom it is recommended, and which items are near it.

mod mentions;
mod near;
mod page;
mod users;

pub use page::ItemPage;
