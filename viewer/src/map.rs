//! The map: items and profiles where their vectors lie along the two axes on which items differ most.

mod camera;
mod cells;
mod colours;
mod draw;
mod lasso;
mod page;
mod points;
mod stage;

pub use page::MapPage;
