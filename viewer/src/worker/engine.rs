//! What is computed: rankings of stored vectors, and tests of columns of numbers.

use eval_core::report::Found;
use eval_core::retrieval::{EmbeddingStore, F16Parts, Query, Retriever, Similarity};
use eval_core::significance::{Bootstrap, PairedTest, mean, paired_randomisation};
use eval_core::{Cutoff, Error};
use serde::{Deserialize, Serialize};
use wasm_bindgen::prelude::wasm_bindgen;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Vectors of items will come, `[rows, dims]`; those from before are let go.
    Begin {
        /// The number of this reading: parts of an earlier one that come late are refused.
        reading: u32,
        /// Number of items.
        rows: usize,
        /// Values of a vector.
        dims: usize,
    },
    /// The next bytes of the vectors come along: f16, little-endian.
    Part {
        /// As in [`Request::Begin`].
        reading: u32,
    },
    /// All bytes of the vectors are there.
    End {
        /// As in [`Request::Begin`].
        reading: u32,
    },
    /// Ranks the items for a vector, whose bytes come along.
    Rank {
        /// Items that are left out.
        masked: Vec<u32>,
        /// Items whose ranks are wanted.
        targets: Vec<u32>,
        /// So many of the best items are wanted.
        places: Cutoff,
        /// How vectors are compared.
        similarity: Similarity,
    },
    /// Tests whether the means of two columns differ. They come along: all f64 of the first, little-endian, then those of the
    /// second.
    Test {
        /// Sign patterns to be drawn.
        permutations: usize,
        /// Seed of the draws.
        seed: u64,
    },
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// It is done.
    Done,
    /// The ranking.
    Ranked {
        /// What was found.
        found: Found,
        /// How long it took, in milliseconds.
        took_ms: f64,
    },
    /// The test of second − first.
    Tested {
        /// Mean of the first column.
        first: f64,
        /// Mean of the second column.
        second: f64,
        /// The paired test.
        test: PairedTest,
        /// 95 % bootstrap interval of the mean difference.
        ci95: [f64; 2],
    },
    /// Why it could not be done.
    Problem(String),
}

/// Answers requests, one after the other.
#[derive(Debug, Default)]
pub struct Engine {
    coming: Option<Coming>,
    items: Option<Retriever>,
}

/// Vectors of which some parts may still be missing.
#[derive(Debug)]
struct Coming {
    reading: u32,
    parts: F16Parts,
}

impl Engine {
    /// Does what is asked, with the bytes that came along.
    pub fn answer(&mut self, request: Request, bytes: &[u8]) -> Reply {
        self.try_answer(request, bytes).unwrap_or_else(Reply::Problem)
    }

    fn try_answer(&mut self, request: Request, bytes: &[u8]) -> Result<Reply, String> {
        match request {
            Request::Begin { reading, rows, dims } => {
                self.items = None;
                let parts = F16Parts::new(rows, dims);
                self.coming = Some(Coming { reading, parts });
                Ok(Reply::Done)
            }
            Request::Part { reading } => {
                self.coming(reading)?.parts.push(bytes);
                Ok(Reply::Done)
            }
            Request::End { reading } => {
                self.coming(reading)?;
                // Lengths are worked out by the first request that compares by cosine.
                let whole = |coming: Coming| Retriever::new(coming.parts.finish()?, Similarity::Dot);
                self.items = self.coming.take().map(whole).transpose().map_err(in_words)?;
                Ok(Reply::Done)
            }
            Request::Rank {
                masked,
                targets,
                places,
                similarity,
            } => {
                let items = self.items.as_mut().ok_or("The vectors are not there.")?;
                items.set_similarity(similarity).map_err(in_words)?;
                let begun_ms = now_ms();
                let found = rank(items, bytes, &masked, &targets, places).map_err(in_words)?;
                Ok(Reply::Ranked {
                    found,
                    took_ms: now_ms() - begun_ms,
                })
            }
            Request::Test { permutations, seed } => test(bytes, permutations, seed).map_err(in_words),
        }
    }

    fn coming(&mut self, reading: u32) -> Result<&mut Coming, String> {
        let coming = self.coming.as_mut().filter(|coming| coming.reading == reading);
        coming.ok_or_else(|| "Other vectors are being read.".to_owned())
    }
}

// As a function, for `map_err`.
#[expect(clippy::needless_pass_by_value, reason = "what `map_err` takes")]
fn in_words(error: Error) -> String {
    error.to_string()
}

fn rank(items: &Retriever, vector: &[u8], masked: &[u32], targets: &[u32], places: Cutoff) -> Result<Found, Error> {
    let query = EmbeddingStore::read_f16(vector, 1, items.items().dims())?;
    let found = items.search(&query, &[Query { masked, targets }], Some(places))?;
    Ok(found.first().map(|found| Found::new(None, found)).unwrap_or_default())
}

fn test(bytes: &[u8], permutations: usize, seed: u64) -> Result<Reply, Error> {
    let values: Vec<f64> = bytes
        .as_chunks()
        .0
        .iter()
        .map(|&value| f64::from_le_bytes(value))
        .collect();
    let (first, second) = values.split_at(values.len() / 2);
    let test = paired_randomisation(second, first, permutations, seed)?;
    let differences: Vec<f64> = second.iter().zip(first).map(|(second, first)| second - first).collect();
    let bootstrap = Bootstrap {
        seed,
        ..Bootstrap::default()
    };
    Ok(Reply::Tested {
        first: mean(first),
        second: mean(second),
        test,
        ci95: bootstrap.interval(&differences),
    })
}

/// The bytes of two columns, as [`Request::Test`] wants them.
pub fn columns(first: &[f64], second: &[f64]) -> Vec<u8> {
    first
        .iter()
        .chain(second)
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

#[wasm_bindgen]
extern "C" {
    #[wasm_bindgen(js_namespace = performance, js_name = now)]
    fn performance_now() -> f64;
}

/// A clock of the browser, in milliseconds; 0 outside of one.
fn now_ms() -> f64 {
    match cfg!(target_arch = "wasm32") {
        true => performance_now(),
        false => 0.0,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    /// Items at 0°, 90° and 45°.
    fn bytes() -> Vec<u8> {
        let items = EmbeddingStore::from_f32(vec![1.0, 0.0, 0.0, 2.0, 3.0, 3.0], 2).unwrap();
        let mut bytes = Vec::new();
        items.write_f16(&mut bytes).unwrap();
        bytes
    }

    fn begin(reading: u32) -> Request {
        Request::Begin {
            reading,
            rows: 3,
            dims: 2,
        }
    }

    fn rank(masked: &[u32]) -> Request {
        Request::Rank {
            masked: masked.to_vec(),
            targets: vec![1],
            places: Cutoff::new(2).unwrap(),
            similarity: Similarity::Cosine,
        }
    }

    #[test]
    fn vectors_come_in_parts_and_are_ranked() {
        let (mut engine, bytes) = (Engine::default(), bytes());
        assert_eq!(engine.answer(begin(1), &[]), Reply::Done);
        assert_eq!(engine.answer(Request::Part { reading: 1 }, &bytes[..5]), Reply::Done);
        assert_eq!(engine.answer(Request::Part { reading: 1 }, &bytes[5..]), Reply::Done);
        assert_eq!(engine.answer(Request::End { reading: 1 }, &[]), Reply::Done);
        let east = &bytes[..4];
        let found = |reply| match reply {
            Reply::Ranked { found, .. } => (found.top_items, found.targets[0].rank),
            other => panic!("{other:?}"),
        };
        assert_eq!(found(engine.answer(rank(&[]), east)), (vec![0, 2], 3));
        assert_eq!(found(engine.answer(rank(&[0]), east)), (vec![2, 1], 2));
        let by_dot = Request::Rank {
            masked: Vec::new(),
            targets: vec![1],
            places: Cutoff::new(2).unwrap(),
            similarity: Similarity::Dot,
        };
        assert_eq!(
            found(engine.answer(by_dot, east)),
            (vec![2, 0], 3),
            "the longest is the first"
        );
        assert_eq!(found(engine.answer(rank(&[]), east)), (vec![0, 2], 3), "and back");
    }

    #[test]
    fn what_is_missing_late_or_wrong_is_a_problem() {
        let mut engine = Engine::default();
        let problem = |reply| match reply {
            Reply::Problem(problem) => problem,
            other => panic!("{other:?}"),
        };
        assert_eq!(problem(engine.answer(rank(&[]), &[])), "The vectors are not there.");
        engine.answer(begin(1), &[]);
        engine.answer(begin(2), &[]);
        assert!(problem(engine.answer(Request::Part { reading: 1 }, &[1])).starts_with("Other vectors"));
        let short = problem(engine.answer(Request::End { reading: 2 }, &[]));
        assert_eq!(short, "expected 12 bytes of f16 embeddings, found 0");
    }

    #[test]
    fn columns_are_compared_as_they_are() {
        let bytes = columns(&[0.1, 0.2, 0.3], &[0.5, 0.7, 0.9]);
        let request = Request::Test {
            permutations: 100,
            seed: 0,
        };
        let Reply::Tested { first, test, ci95, .. } = Engine::default().answer(request, &bytes) else {
            panic!("not tested");
        };
        assert_eq!(first, mean(&[0.1, 0.2, 0.3]));
        assert_eq!((test.p_value, test.n, test.exact), (0.25, 3, true));
        assert!(ci95[0] < test.mean_difference && test.mean_difference < ci95[1]);
    }

    #[test]
    fn requests_and_replies_read_back() {
        let requests = [begin(7), Request::End { reading: 7 }, rank(&[3])];
        for request in requests {
            let text = serde_json::to_string(&request).unwrap();
            assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), request);
        }
        let found = Found {
            top_items: vec![2],
            top_scores: vec![0.1],
            ..Found::default()
        };
        let reply = Reply::Ranked { found, took_ms: 0.5 };
        let text = serde_json::to_string(&reply).unwrap();
        assert_eq!(serde_json::from_str::<Reply>(&text).unwrap(), reply);
    }
}
