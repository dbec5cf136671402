//! Exact retrieval: every item is scored, and scores are the same bits in a browser and on a server.
//!
//! Under [`Similarity::Cosine`] the query is first divided by its length, then `score = dot(query, item) / length(item)`;
//! under [`Similarity::Dot`] it is the dot product. Dot products run over 16 lanes that are added in a fixed order, without
//! fused multiply-adds; lengths are summed in f64. Neither the number of threads nor the processor's vector width changes
//! a score. How scores become ranks is told by [`scores`](crate::scores): ties by ascending item index, masked items absent.

mod half_rows;
mod kernel;
mod store;

pub use store::{EmbeddingStore, F16Parts};

use crate::scores::{RankedTarget, ScoredItem, rank_by_scores, top_by_scores};
use crate::{Cutoff, Error, ErrorKind, parallel};

/// How a query and an item are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Similarity {
    /// Cosine of the angle; a vector of zeros is an error.
    Cosine,
    /// Dot product.
    Dot,
}

/// What one query must leave out, and what it looks for.
#[derive(Clone, Copy, Debug, Default)]
pub struct Query<'a> {
    /// Items that are not in the ranking: the user's history. In any order; repeats do no harm.
    pub masked: &'a [u32],
    /// Items whose ranks are wanted. One that is masked is an error.
    pub targets: &'a [u32],
}

/// What was found for one query.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// The targets' places, in the order of [`Query::targets`].
    pub targets: Vec<RankedTarget>,
    /// The best unmasked items, best first.
    pub top: Vec<ScoredItem>,
}

/// Ranks the rows of an [`EmbeddingStore`] for queries.
///
/// ```
/// use eval_core::retrieval::{EmbeddingStore, Query, Retriever, Similarity};
/// use eval_core::Cutoff;
/// let items = EmbeddingStore::from_f32(vec![1.0, 0.0, 0.0, 2.0, 3.0, 3.0], 2)?;
/// let retriever = Retriever::new(items, Similarity::Cosine)?;
/// let queries = EmbeddingStore::from_f32(vec![1.0, 0.1], 2)?;
/// let found = retriever.search(&queries, &[Query { masked: &[0], targets: &[1] }], Some(Cutoff::new(5)?))?;
/// assert_eq!(found[0].targets[0].rank, 2);
/// assert_eq!(found[0].top.iter().map(|scored| scored.item).collect::<Vec<_>>(), [2, 1]);
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Retriever {
    items: EmbeddingStore,
    /// Of each item, under cosine.
    lengths: Option<Vec<f64>>,
}

/// Queries that share one pass over the items: their scores are held at once, 4 · items bytes each.
const QUERY_BLOCK: usize = 64;

/// Items that one thread scores at a time: with 1,024 dimensions their rows fill 256 KiB.
const ITEM_BLOCK: usize = 64;

/// What comparing by `similarity` needs to know of the items: their lengths under cosine.
fn lengths(items: &EmbeddingStore, similarity: Similarity) -> Result<Option<Vec<f64>>, Error> {
    if similarity == Similarity::Dot {
        return Ok(None);
    }
    let lengths = parallel::map(items.rows(), |row| kernel::length(&items.row(row)));
    match lengths.iter().position(|&length| length == 0.0) {
        Some(row) => Err(ErrorKind::ZeroVector { what: "item", row }.into()),
        None => Ok(Some(lengths)),
    }
}

impl Retriever {
    /// A retriever over `items`, `[items, dims]`.
    ///
    /// # Errors
    /// [`ErrorKind::ZeroVector`] under cosine.
    pub fn new(items: EmbeddingStore, similarity: Similarity) -> Result<Self, Error> {
        let lengths = lengths(&items, similarity)?;
        Ok(Self { items, lengths })
    }

    /// Compares by another similarity from now on; the vectors stay where they are.
    ///
    /// # Errors
    /// As [`Retriever::new`]; then nothing has changed.
    pub fn set_similarity(&mut self, similarity: Similarity) -> Result<(), Error> {
        let is_new = self.lengths.is_some() != (similarity == Similarity::Cosine);
        if is_new {
            self.lengths = lengths(&self.items, similarity)?;
        }
        Ok(())
    }

    /// The items' vectors.
    pub fn items(&self) -> &EmbeddingStore {
        &self.items
    }

    /// The targets' places for every row of `queries`, `[queries, dims]`, each with its `wanted`.
    ///
    /// # Errors
    /// Those of [`Retriever::search`].
    pub fn rank(&self, queries: &EmbeddingStore, wanted: &[Query<'_>]) -> Result<Vec<Vec<RankedTarget>>, Error> {
        let found = self.search(queries, wanted, None)?;
        Ok(found.into_iter().map(|found| found.targets).collect())
    }

    /// The targets' places and, with a `cutoff`, the best items, for every row of `queries`, `[queries, dims]`.
    ///
    /// # Errors
    /// Widths or lengths that differ; a query of zeros under cosine; and, with the query's row, a score that overflows, an
    /// item beyond the catalogue or a masked target.
    pub fn search(
        &self,
        queries: &EmbeddingStore,
        wanted: &[Query<'_>],
        cutoff: Option<Cutoff>,
    ) -> Result<Vec<Found>, Error> {
        if queries.rows() != wanted.len() {
            let (expected, found) = (queries.rows(), wanted.len());
            return Err(ErrorKind::LengthsDiffer {
                what: "masks and targets, one a query",
                expected,
                found,
            }
            .into());
        }
        let mut all = Vec::with_capacity(wanted.len());
        for first in (0..wanted.len()).step_by(QUERY_BLOCK) {
            let count = QUERY_BLOCK.min(wanted.len() - first);
            let blocks = self.score_blocks(queries, first, count)?;
            let found = parallel::map(count, |query| {
                let scores = self.gather(&blocks, query, count);
                let found = found_in(&scores, &wanted[first + query], cutoff);
                found.map_err(|source| {
                    Error::from(ErrorKind::InQuery {
                        query: first + query,
                        source,
                    })
                })
            });
            for found in found {
                all.push(found?);
            }
        }
        Ok(all)
    }

    /// The score of every item for one row of `queries`, masked or not.
    ///
    /// # Errors
    /// Widths that differ, a row beyond `queries`, a query of zeros under cosine.
    pub fn scores(&self, queries: &EmbeddingStore, query: usize) -> Result<Vec<f32>, Error> {
        if query >= queries.rows() {
            let (expected, found) = (query + 1, queries.rows());
            return Err(ErrorKind::LengthsDiffer {
                what: "queries at least",
                expected,
                found,
            }
            .into());
        }
        Ok(self.gather(&self.score_blocks(queries, query, 1)?, 0, 1))
    }

    /// The scores of queries `first..first + count`, a buffer `[count, items of the block]` for each block of items.
    fn score_blocks(&self, queries: &EmbeddingStore, first: usize, count: usize) -> Result<Vec<Vec<f32>>, Error> {
        if queries.dims() != self.items.dims() {
            return Err(ErrorKind::DimsDiffer {
                items: self.items.dims(),
                queries: queries.dims(),
            }
            .into());
        }
        let stride = kernel::stride(queries.dims());
        let mut directions = vec![0.0; count * stride];
        queries.unpack(first, count, stride, &mut directions);
        if self.lengths.is_some() {
            for (row, query) in (first..).zip(directions.chunks_exact_mut(stride)) {
                normalise(row, query)?;
            }
        }
        let blocks = self.items.rows().div_ceil(ITEM_BLOCK);
        Ok(parallel::map(blocks, |block| {
            self.score_block(&directions, stride, block * ITEM_BLOCK)
        }))
    }

    fn score_block(&self, directions: &[f32], stride: usize, first: usize) -> Vec<f32> {
        let rows = ITEM_BLOCK.min(self.items.rows() - first);
        let mut scores = vec![0.0; directions.len() / stride * rows];
        let one_query = directions.len() == stride;
        match (
            self.items.as_unpacked(first, rows, stride),
            self.items.as_f16(first, rows),
        ) {
            (Some(items), _) => kernel::dot_products(directions, items, stride, &mut scores),
            (None, Some(items)) if one_query => {
                half_rows::dot_products(directions, items, self.items.dims(), &mut scores);
            }
            _ => {
                let mut items = vec![0.0; rows * stride];
                self.items.unpack(first, rows, stride, &mut items);
                kernel::dot_products(directions, &items, stride, &mut scores);
            }
        }
        if let Some(lengths) = &self.lengths {
            for scores in scores.chunks_exact_mut(rows) {
                for (score, length) in scores.iter_mut().zip(&lengths[first..]) {
                    *score = (f64::from(*score) / length) as f32;
                }
            }
        }
        scores
    }

    /// One query's scores, put together from the blocks.
    fn gather(&self, blocks: &[Vec<f32>], query: usize, count: usize) -> Vec<f32> {
        let mut scores = Vec::with_capacity(self.items.rows());
        for block in blocks {
            let rows = block.len() / count;
            scores.extend_from_slice(&block[query * rows..(query + 1) * rows]);
        }
        scores
    }
}

fn normalise(row: usize, query: &mut [f32]) -> Result<(), Error> {
    let length = kernel::length(query);
    if length == 0.0 {
        return Err(ErrorKind::ZeroVector { what: "query", row }.into());
    }
    query
        .iter_mut()
        .for_each(|value| *value = (f64::from(*value) / length) as f32);
    Ok(())
}

fn found_in(scores: &[f32], wanted: &Query<'_>, cutoff: Option<Cutoff>) -> Result<Found, Error> {
    Ok(Found {
        targets: rank_by_scores(scores, wanted.masked, wanted.targets)?,
        top: match cutoff {
            Some(cutoff) => top_by_scores(scores, wanted.masked, cutoff)?,
            None => Vec::new(),
        },
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::random::Stream;

    fn store(rows: usize, dims: usize, seed: u64) -> EmbeddingStore {
        let stream = Stream::new(seed, 0);
        let values = (0..rows * dims).map(|i| stream.bits(i as u64) as i32 as f32 / 2f32.powi(31));
        EmbeddingStore::from_f32(values.collect(), dims).unwrap()
    }

    #[test]
    fn scores_are_cosines_to_float_accuracy() {
        let (items, queries) = (store(150, 37, 1), store(3, 37, 2));
        let retriever = Retriever::new(items.clone(), Similarity::Cosine).unwrap();
        for query in 0..3 {
            for (item, score) in retriever.scores(&queries, query).unwrap().into_iter().enumerate() {
                let (a, b) = (queries.row(query), items.row(item));
                let product =
                    |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
                let cosine = product(&a, &b) / (product(&a, &a) * product(&b, &b)).sqrt();
                assert!((cosine - f64::from(score)).abs() < 1e-6, "{cosine} {score}");
            }
        }
    }

    #[test]
    fn the_dot_product_keeps_lengths() {
        let items = EmbeddingStore::from_f32(vec![1.0, 0.0, 4.0, 3.0], 2).unwrap();
        let retriever = Retriever::new(items, Similarity::Dot).unwrap();
        let queries = EmbeddingStore::from_f32(vec![2.0, 0.0], 2).unwrap();
        assert_eq!(retriever.scores(&queries, 0).unwrap(), [2.0, 8.0]);
    }

    #[test]
    fn many_queries_at_once_find_what_each_finds_alone() {
        let (items, queries) = (store(201, 48, 3), store(70, 48, 4));
        let retriever = Retriever::new(items, Similarity::Cosine).unwrap();
        let targets: Vec<[u32; 2]> = (0..70).map(|i| [i * 2, i * 2 + 1]).collect();
        let masks: Vec<[u32; 3]> = (0..70).map(|i| [i * 2 + 2, 200, 200]).collect();
        let wanted: Vec<Query> = masks
            .iter()
            .zip(&targets)
            .map(|(masked, targets)| Query { masked, targets })
            .collect();
        let cutoff = Some(Cutoff::new(10).unwrap());
        let together = retriever.search(&queries, &wanted, cutoff).unwrap();
        for (row, found) in together.iter().enumerate() {
            let alone = EmbeddingStore::from_f32(queries.row(row).into_owned(), 48).unwrap();
            assert_eq!(retriever.search(&alone, &wanted[row..=row], cutoff).unwrap()[0], *found);
            assert!(found.top.iter().all(|scored| !masks[row].contains(&scored.item)));
            let first = found.top[0];
            let again = retriever
                .rank(
                    &alone,
                    &[Query {
                        masked: wanted[row].masked,
                        targets: &[first.item],
                    }],
                )
                .unwrap();
            assert_eq!(again[0][0].rank, 1);
        }
    }

    #[test]
    fn an_f16_store_ranks_as_its_f32_copy_does() {
        let half = store(100, 20, 5).to_f16().unwrap();
        let full: Vec<f32> = (0..100).flat_map(|row| half.row(row).into_owned()).collect();
        let full = EmbeddingStore::from_f32(full, 20).unwrap();
        let queries = store(2, 20, 6);
        let scores = |items| {
            Retriever::new(items, Similarity::Cosine)
                .unwrap()
                .scores(&queries, 1)
                .unwrap()
        };
        assert_eq!(scores(half), scores(full));
    }

    #[test]
    fn duplicate_items_tie_and_the_lower_index_wins() {
        let items = EmbeddingStore::from_f32([0.3, 0.7, 0.1].repeat(5), 3).unwrap();
        let retriever = Retriever::new(items, Similarity::Cosine).unwrap();
        let queries = EmbeddingStore::from_f32(vec![0.2, 0.2, 0.9], 3).unwrap();
        let ranked = retriever
            .rank(
                &queries,
                &[Query {
                    masked: &[0],
                    targets: &[3],
                }],
            )
            .unwrap();
        let target = ranked[0][0];
        assert_eq!(
            (target.rank, target.above, target.tied, target.expected_rank()),
            (3, 0, 3, 2.5)
        );
    }

    #[test]
    fn errors_name_the_row() {
        let zero = EmbeddingStore::from_f32(vec![1.0, 1.0, 0.0, 0.0], 2).unwrap();
        let error = Retriever::new(zero.clone(), Similarity::Cosine).unwrap_err();
        assert!(error.to_string().starts_with("item row 1 is all zeros"), "{error}");

        let retriever = Retriever::new(store(4, 2, 7), Similarity::Cosine).unwrap();
        let error = retriever.rank(&zero, &[Query::default(); 2]).unwrap_err();
        assert!(error.to_string().starts_with("query row 1 is all zeros"), "{error}");

        let masked = [
            Query::default(),
            Query {
                masked: &[3],
                targets: &[3],
            },
        ];
        let error = retriever.rank(&store(2, 2, 8), &masked).unwrap_err();
        assert!(
            error.to_string().starts_with("query row 1: target 3 is masked"),
            "{error}"
        );
    }

    #[test]
    fn widths_and_counts_must_agree() {
        let retriever = Retriever::new(store(4, 2, 7), Similarity::Dot).unwrap();
        assert!(matches!(
            retriever.scores(&store(1, 3, 1), 0).unwrap_err().kind(),
            ErrorKind::DimsDiffer { .. }
        ));
        assert!(matches!(
            retriever.scores(&store(1, 2, 1), 1).unwrap_err().kind(),
            ErrorKind::LengthsDiffer { .. }
        ));
        assert!(matches!(
            retriever.rank(&store(1, 2, 1), &[]).unwrap_err().kind(),
            ErrorKind::LengthsDiffer { .. }
        ));
    }

    #[test]
    fn a_dot_product_that_overflows_is_an_error() {
        let items = EmbeddingStore::from_f32(vec![1.0, 3e38], 1).unwrap();
        let retriever = Retriever::new(items, Similarity::Dot).unwrap();
        let queries = EmbeddingStore::from_f32(vec![3e38], 1).unwrap();
        let error = retriever
            .rank(
                &queries,
                &[Query {
                    masked: &[],
                    targets: &[0],
                }],
            )
            .unwrap_err();
        assert_eq!(
            error.to_string(),
            "query row 0: item 1 has the score inf: every score must be finite"
        );
    }
}
