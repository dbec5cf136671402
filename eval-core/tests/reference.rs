//! Metrics, ranks, intervals, tests and exposure against NumPy and SciPy; the vectors are made by
//! `tests/reference/metrics_reference.py` and `exposure_reference.py`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;

use eval_core::exposure::{coverage, gini, lorenz};
use eval_core::metrics::Metric;
use eval_core::scores::{rank_by_scores, top_by_scores};
use eval_core::significance::{Bootstrap, mean, paired_randomisation};
use eval_core::{Cutoff, TargetRanks};
use serde::Deserialize;

#[derive(Deserialize)]
struct Recorded {
    rankings: Vec<Ranking>,
    intervals: Vec<Interval>,
    paired: Vec<Paired>,
}

#[derive(Deserialize)]
struct Ranking {
    scores: Vec<f64>,
    masked: Vec<u32>,
    targets: Vec<u32>,
    grades: Vec<u32>,
    ranks: Vec<u32>,
    tied: Vec<u32>,
    top: Vec<u32>,
    metrics: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Interval {
    values: Vec<f64>,
    ci95: [f64; 2],
    standard_error: f64,
}

#[derive(Deserialize)]
struct Paired {
    first: Vec<f64>,
    second: Vec<f64>,
    mean_difference: f64,
    p_value: f64,
    exact: bool,
}

fn recorded() -> Recorded {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/metrics.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

#[test]
fn ranks_and_top_lists_are_those_of_a_stable_sort() {
    for case in recorded().rankings {
        let ranked = rank_by_scores(&case.scores, &case.masked, &case.targets).unwrap();
        assert_eq!(ranked.iter().map(|target| target.rank).collect::<Vec<_>>(), case.ranks);
        assert_eq!(ranked.iter().map(|target| target.tied).collect::<Vec<_>>(), case.tied);
        let top = top_by_scores(&case.scores, &case.masked, Cutoff::new(10).unwrap()).unwrap();
        assert_eq!(top.iter().map(|scored| scored.item).collect::<Vec<_>>(), case.top);
    }
}

#[test]
fn metrics_are_those_of_the_definitions() {
    for case in recorded().rankings {
        let graded = case.ranks.iter().copied().zip(case.grades.iter().copied());
        let ranks = TargetRanks::graded(graded).unwrap();
        assert_eq!(case.metrics.len(), 5 + 6 * 8);
        for (name, expected) in &case.metrics {
            let value = name.parse::<Metric>().unwrap().of(&ranks).unwrap();
            assert!((value - expected).abs() < 1e-14, "{name}: {value}, expected {expected}");
        }
    }
}

#[test]
fn bootstrap_intervals_agree_with_scipy_as_closely_as_their_draws_allow() {
    for case in recorded().intervals {
        let bootstrap = Bootstrap {
            resamples: 20_000,
            ..Bootstrap::default()
        };
        let ours = bootstrap.interval(&case.values);
        for (ours, theirs) in ours.into_iter().zip(case.ci95) {
            // A 2.5 % quantile of 20,000 draws is itself off by about 0.02 standard errors.
            assert!(
                (ours - theirs).abs() < 0.1 * case.standard_error,
                "{ours} {theirs} {}",
                mean(&case.values)
            );
        }
    }
}

#[test]
fn exact_sign_flips_give_the_p_of_scipy_and_drawn_ones_come_near() {
    for case in recorded().paired {
        let test = paired_randomisation(&case.first, &case.second, 100_000, 11).unwrap();
        assert!((test.mean_difference - case.mean_difference).abs() < 1e-14);
        assert_eq!(test.exact, case.exact);
        let allowed = if case.exact { 1e-14 } else { 0.01 };
        assert!(
            (test.p_value - case.p_value).abs() < allowed,
            "{} {}",
            test.p_value,
            case.p_value
        );
    }
}

#[derive(Deserialize)]
struct Exposure {
    counts: Vec<u32>,
    gini: f64,
    coverage: f64,
    lorenz: Vec<[f64; 2]>,
}

#[derive(Deserialize)]
struct Exposures {
    cases: Vec<Exposure>,
}

#[test]
fn exposure_is_that_of_numpy() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fixtures/exposure.json");
    let recorded: Exposures = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert_eq!(recorded.cases.len(), 4);
    for case in recorded.cases {
        let found = gini(&case.counts);
        assert!((found - case.gini).abs() < 1e-12, "{found} and {}", case.gini);
        assert_eq!(coverage(&case.counts), case.coverage);
        let curve = lorenz(&case.counts, case.lorenz.len());
        assert_eq!(curve.len(), case.lorenz.len());
        // serde_json may read a number one bit from the one that was written.
        let values = curve.iter().flatten().zip(case.lorenz.iter().flatten());
        values.for_each(|(found, recorded)| assert!((found - recorded).abs() < 1e-15, "{found} and {recorded}"));
    }
}
