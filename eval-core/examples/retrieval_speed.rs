//! Times exact retrieval: `cargo run --release -p eval-core --example retrieval_speed -- [ITEMS] [DIMS] [QUERIES]`.
//!
//! Prints the time of one query alone and of many at once, and multiply-adds per second, for f32 and f16 stores.
//! `docs/benchmarks.md` has what was seen. `RAYON_NUM_THREADS=1` times one thread.
#![allow(clippy::print_stdout)]

use std::time::Instant;

use eval_core::Error;
use eval_core::retrieval::{EmbeddingStore, Query, Retriever, Similarity};

fn main() -> Result<(), Error> {
    let mut sizes = std::env::args().skip(1).map(|size| size.parse().unwrap_or(1));
    let (items, dims) = (sizes.next().unwrap_or(100_000), sizes.next().unwrap_or(1024));
    let queries = sizes.next().unwrap_or(256);
    let full = generated(items, dims)?;
    for (width, store) in [("f16", full.to_f16()?), ("f32", full)] {
        let retriever = Retriever::new(store, Similarity::Cosine)?;
        for count in [1, queries] {
            let profiles = generated(count, dims)?;
            let wanted = vec![
                Query {
                    masked: &[1, 2, 3, 4],
                    targets: &[0]
                };
                count
            ];
            retriever.rank(&profiles, &wanted)?;
            let start = Instant::now();
            retriever.rank(&profiles, &wanted)?;
            let seconds = start.elapsed().as_secs_f64();
            let rate = items as f64 * dims as f64 * count as f64 / seconds / 1e9;
            println!("{width}, {items} items of {dims}, {count} queries: {seconds:.3} s, {rate:.1} G multiply-adds/s");
        }
    }
    Ok(())
}

/// Rows of pseudo-random values in -1..1 (a linear congruence; only the speed matters here).
fn generated(rows: usize, dims: usize) -> Result<EmbeddingStore, Error> {
    let mut state = rows as u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state as i32 as f32 / 2f32.powi(31)
    };
    EmbeddingStore::from_f32((0..rows * dims).map(|_| next()).collect(), dims)
}
