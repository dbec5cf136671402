//! The page of all users: a table that sorts, filters and searches, of which only the visible rows are in the page.

pub mod loading;
pub mod search;
pub mod sequence;
pub mod shown;

mod filter_box;
mod page;
mod rows;
mod toolbar;

pub use page::UsersPage;
