//! The page of all items: how popular each is, how often it is recommended, and how recommendations spread over the catalogue.

pub mod known;
pub mod rankings;
pub mod shown;
pub mod table;

mod page;
mod spread;

pub use page::ItemsPage;
pub use rankings::Exposures;
