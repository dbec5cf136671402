//! Long computations beside the page: the same module a second time, in a worker, so that the page stays awake.
//!
//! The page sends the compiled module and then requests ([`Request`]) with bytes beside them, and the worker answers each
//! ([`Reply`]). What it holds, the items' vectors, it alone holds: bytes are handed over and not copied. Where a browser has no
//! workers the page computes by itself.

pub mod engine;

mod link;
mod serve;
mod vectors;

pub use engine::{Reply, Request};
pub use link::Worker;
pub use serve::serve;
pub use vectors::{Vectors, VectorsState, bytes_of, row_of};
