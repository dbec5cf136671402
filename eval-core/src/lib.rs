//! What a ranking is worth: metrics, significance, exact retrieval and the report's schema.
//!
//! The same code runs natively and in the browser, and gives the same bits in both: sums have a fixed order, logarithms
//! are computed here instead of by the platform's library, and equal scores always rank by ascending item index.
//! Nothing opens a file or a socket; readers take [`Read`](std::io::Read) or [`BufRead`](std::io::BufRead).
//!
//! From vectors to a metric: rank every item for each query, history masked, then judge the targets' ranks.
//!
//! ```
//! use eval_core::metrics::{mrr, ndcg};
//! use eval_core::retrieval::{EmbeddingStore, Query, Retriever, Similarity};
//! use eval_core::{Cutoff, TargetRanks};
//!
//! // Four items and one profile, in two dimensions.
//! let items = EmbeddingStore::from_f32(vec![1.0, 0.0, 0.8, 0.6, 0.6, 0.8, 0.0, 1.0], 2)?;
//! let profiles = EmbeddingStore::from_f32(vec![2.0, 0.0], 2)?;
//! let retriever = Retriever::new(items, Similarity::Cosine)?;
//!
//! // Item 0 is the user's history, item 2 is the target: item 1 is nearer, so the target ranks second.
//! let ranked = retriever.rank(&profiles, &[Query { masked: &[0], targets: &[2] }])?;
//! assert_eq!(ranked[0][0].rank, 2);
//!
//! let ranks = TargetRanks::from_ranked(&ranked[0])?;
//! assert_eq!(ndcg(&ranks, Cutoff::new(10)?), Some(1.0 / 3f64.log2()));
//! assert_eq!(mrr(&ranks, None), Some(0.5)); // no cutoff: the whole catalogue
//! # Ok::<(), eval_core::Error>(())
//! ```
#![deny(missing_docs)]

mod cutoff;
mod error;
pub mod exposure;
mod log2;
pub mod metrics;
mod parallel;
pub mod projection;
mod random;
mod ranking;
pub mod report;
pub mod retrieval;
pub mod scores;
pub mod selfcheck;
pub mod significance;
pub mod trec;

pub use cutoff::Cutoff;
pub use error::{Error, ErrorKind};
pub use ranking::{MAX_GRADE, NOT_RANKED, Ranking, TargetRanks, Targets};
