//! A digest of what this crate computes, to compare platforms: a native build, a browser and any number of threads must
//! give the same one for the same seed. The tests and `langptune doctor` use it.

use half::f16;

use crate::metrics::{Metric, MetricTable};
use crate::random::Stream;
use crate::retrieval::{EmbeddingStore, Query, Retriever, Similarity};
use crate::significance::{Bootstrap, paired_randomisation};
use crate::{Cutoff, Error, TargetRanks};

/// The digest of seed 0.
///
/// ```
/// use eval_core::selfcheck::{DIGEST_OF_SEED_0, digest};
/// assert_eq!(digest(0)?, DIGEST_OF_SEED_0, "this platform computes other scores or metrics");
/// # Ok::<(), eval_core::Error>(())
/// ```
pub const DIGEST_OF_SEED_0: u64 = 0x2ba8_a2b9_f81f_3056;

const ITEMS: usize = 300;
const QUERIES: usize = 70;
/// No multiple of the lanes, so that padding takes part.
const DIMS: usize = 90;

/// A 64-bit hash (FNV-1a) of the bits of scores, ranks, top lists, metrics, intervals and p-values over generated vectors,
/// f32 and f16, by cosine and by dot product.
///
/// # Errors
/// None that a user can cause; those of the functions that it calls.
pub fn digest(seed: u64) -> Result<u64, Error> {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    let queries = EmbeddingStore::from_f32(generated(QUERIES, seed.wrapping_add(1)), DIMS)?;
    for similarity in [Similarity::Cosine, Similarity::Dot] {
        let values = generated(ITEMS, seed);
        let rounded = values.iter().map(|&value| f16::from_f32(value)).collect();
        for items in [
            EmbeddingStore::from_f32(values, DIMS)?,
            EmbeddingStore::from_f16(rounded, DIMS)?,
        ] {
            hash_retrieval(&mut hash, &Retriever::new(items, similarity)?, &queries, seed)?;
        }
    }
    Ok(hash.0)
}

/// `[rows, DIMS]` in −1..1; every tenth row repeats the one before, so that scores tie.
fn generated(rows: usize, seed: u64) -> Vec<f32> {
    let value = |row: usize, column: usize| {
        let row = if row % 10 == 9 { row - 1 } else { row };
        Stream::new(seed, row as u64).bits(column as u64) as i32 as f32 / 2f32.powi(31)
    };
    (0..rows * DIMS)
        .map(|place| value(place / DIMS, place % DIMS))
        .collect()
}

fn hash_retrieval(hash: &mut Fnv, retriever: &Retriever, queries: &EmbeddingStore, seed: u64) -> Result<(), Error> {
    // Item i % 4 is masked and two others are wanted, for query i.
    let masks: Vec<[u32; 2]> = (0..QUERIES as u32).map(|query| [query % 4, 299]).collect();
    let targets: Vec<[u32; 2]> = (0..QUERIES as u32).map(|query| [query + 8, 200 - query]).collect();
    let wanted: Vec<Query<'_>> = masks
        .iter()
        .zip(&targets)
        .map(|(masked, targets)| Query { masked, targets })
        .collect();
    for query in 0..QUERIES {
        retriever
            .scores(queries, query)?
            .iter()
            .for_each(|score| hash.add(u64::from(score.to_bits())));
    }
    let mut table = MetricTable::new(Metric::all_at(&[Cutoff::new(5)?, Cutoff::new(20)?, Cutoff::new(1000)?]));
    for found in retriever.search(queries, &wanted, Some(Cutoff::new(20)?))? {
        found.top.iter().for_each(|scored| hash.add(u64::from(scored.item)));
        for target in &found.targets {
            hash.add(u64::from(target.rank));
            hash.add(target.expected_rank().to_bits());
        }
        table.push(&TargetRanks::from_ranked(&found.targets)?);
    }
    let bootstrap = Bootstrap {
        resamples: 50,
        seed,
        ..Bootstrap::default()
    };
    for (_, summary) in table.summary(&bootstrap).metrics {
        [summary.mean, summary.ci95[0], summary.ci95[1]]
            .iter()
            .for_each(|value| hash.add(value.to_bits()));
    }
    let column = |name: &str| Ok::<_, Error>(table.column(name.parse()?).unwrap_or_default());
    let test = paired_randomisation(column("ndcg@1000")?, column("mrr@1000")?, 50, seed)?;
    hash.add(test.p_value.to_bits());
    Ok(())
}

/// FNV-1a over bytes.
struct Fnv(u64);

impl Fnv {
    fn add(&mut self, value: u64) {
        for byte in value.to_le_bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_digest_is_the_recorded_one() {
        assert_eq!(
            format!("{:#018x}", digest(0).unwrap()),
            format!("{DIGEST_OF_SEED_0:#018x}")
        );
    }

    #[test]
    fn another_seed_has_another_digest() {
        assert_ne!(digest(1).unwrap(), digest(2).unwrap());
    }

    #[cfg(not(target_arch = "wasm32"))]
    #[test]
    fn the_number_of_threads_does_not_change_the_digest() {
        let on = |threads| {
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .build()
                .unwrap()
                .install(|| digest(3).unwrap())
        };
        assert_eq!(on(1), on(5));
    }
}
