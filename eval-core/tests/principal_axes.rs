//! Principal components against NumPy; the vectors are made by `tests/reference/principal_axes.py`.
#![allow(clippy::unwrap_used)]

use eval_core::projection::PrincipalAxes;
use eval_core::retrieval::{EmbeddingStore, Similarity};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    dims: usize,
    cosine: bool,
    items: Vec<f32>,
    others: Vec<f32>,
    explained: [f64; 2],
    projected_items: Vec<[f32; 2]>,
    projected_others: Vec<[f32; 2]>,
}

#[test]
fn axes_and_projections_are_those_of_numpy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/principal_axes.json");
    let recorded: Recorded = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(recorded.cases.len(), 3);
    for case in recorded.cases {
        let similarity = if case.cosine {
            Similarity::Cosine
        } else {
            Similarity::Dot
        };
        let store = |values: &[f32]| {
            EmbeddingStore::from_f32(values.to_vec(), case.dims)
                .unwrap()
                .to_f16()
                .unwrap()
        };
        let (items, others) = (store(&case.items), store(&case.others));
        let axes = PrincipalAxes::fit(&items, similarity).unwrap();
        for (found, expected) in axes.explained().iter().zip(case.explained) {
            assert!((found - expected).abs() < 1e-9, "{found} and {expected}");
        }
        for (vectors, expected) in [(&items, &case.projected_items), (&others, &case.projected_others)] {
            let points = axes.project(vectors).unwrap();
            assert_eq!(points.len(), expected.len());
            for (found, expected) in points.iter().flatten().zip(expected.iter().flatten()) {
                assert!((found - expected).abs() < 1e-6, "{found} and {expected}");
            }
        }
    }
}
