//! What the overview says of a report: facts, the metric table of a checkpoint, learning curves and the targets' ranks.

mod facts;
mod lines;
mod page;
mod ranks;
mod table;

pub use facts::facts;
pub(crate) use lines::GENERATED;
pub use lines::{metric_lines, smoothed, training_lines};
pub(crate) use page::OverviewPage;
pub use ranks::Ranks;
pub use table::{Cell, Difference, Row, Table, Verdict, tables};

use eval_core::metrics::{Measure, Metric, Summary};
use eval_core::report::{Checkpoint, Manifest};

/// The metrics that a checkpoint or a baseline of the report has, in the order in which they come first.
pub fn all_metrics(manifest: &Manifest) -> Vec<Metric> {
    let checkpoints = manifest.checkpoints.iter();
    let of_checkpoints =
        checkpoints.flat_map(|checkpoint| [Some(&checkpoint.generated), checkpoint.reference.as_ref()]);
    let of_baselines = manifest.baselines.iter().map(|baseline| Some(&baseline.metrics));
    distinct(of_checkpoints.chain(of_baselines).flatten().flat_map(metrics_of))
}

/// The metric by which checkpoints are better or worse: NDCG at the largest cutoff, or the first metric where there is none.
pub fn leading_metric(manifest: &Manifest) -> Option<Metric> {
    let metrics = all_metrics(manifest);
    let ndcg = metrics
        .iter()
        .filter(|metric| metric.measure() == Measure::Ndcg && metric.cutoff().is_some());
    ndcg.max_by_key(|metric| metric.cutoff()).or(metrics.first()).copied()
}

/// The place of the best checkpoint: the one with the highest mean of the leading metric, of equal ones the first.
pub fn best_checkpoint(manifest: &Manifest) -> Option<usize> {
    let metric = leading_metric(manifest)?;
    let mean = |checkpoint: &Checkpoint| Some(checkpoint.generated.get(metric)?.mean);
    let means = manifest.checkpoints.iter().map(mean).enumerate();
    let known = means.filter_map(|(place, mean)| Some((place, mean?)));
    let best = known.fold(None, |best: Option<(usize, f64)>, (place, mean)| match best {
        Some((_, highest)) if highest >= mean => best,
        _ => Some((place, mean)),
    });
    best.map(|(place, _)| place)
        .or_else(|| manifest.checkpoints.len().checked_sub(1))
}

/// The place of the checkpoint of that name; the best without a name, or for a name that the report does not have.
pub fn chosen_checkpoint(manifest: &Manifest, name: Option<&str>) -> Option<usize> {
    let named = name.and_then(|name| {
        manifest
            .checkpoints
            .iter()
            .position(|checkpoint| checkpoint.name == name)
    });
    named.or_else(|| best_checkpoint(manifest))
}

pub(crate) fn metrics_of(summary: &Summary) -> impl Iterator<Item = Metric> {
    summary.metrics.iter().map(|(metric, _)| *metric)
}

/// The values without repetitions, in the order in which they come first.
pub(crate) fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut kept, value| {
        if !kept.contains(&value) {
            kept.push(value);
        }
        kept
    })
}

/// Reports for tests, worked out by hand.
#[cfg(test)]
pub(crate) mod samples {
    #![allow(clippy::unwrap_used)]

    use eval_core::metrics::{MetricSummary, Summary};
    use eval_core::report::{Baseline, Checkpoint, Comparison, Manifest};
    use eval_core::significance::PairedTest;

    /// Metrics whose intervals reach from 0.01 below to 0.02 above their means.
    pub(crate) fn summary(metrics: &[(&str, f64)]) -> Summary {
        let metrics = metrics.iter().map(|&(name, mean)| {
            let found = MetricSummary {
                mean,
                ci95: [mean - 0.01, mean + 0.02],
                n: 3,
            };
            (name.parse().unwrap(), found)
        });
        Summary {
            users: 3,
            users_without_target: 0,
            metrics: metrics.collect(),
        }
    }

    pub(crate) fn comparison(with: &str, metric: &str, mean_difference: f64, p_value: f64) -> Comparison {
        Comparison {
            with: with.into(),
            metric: metric.parse().unwrap(),
            test: PairedTest {
                mean_difference,
                p_value,
                n: 3,
                exact: true,
            },
        }
    }

    /// Two checkpoints, the second better at 10 places; one baseline.
    pub(crate) fn manifest() -> Manifest {
        let first = Checkpoint {
            name: "first".into(),
            update: 1,
            generated: summary(&[("ndcg@5", 0.25), ("ndcg@10", 0.3), ("recall@10", 0.5)]),
            reference: Some(summary(&[("ndcg@10", 0.2)])),
            comparisons: vec![comparison("reference", "ndcg@10", 0.1, 0.25)],
            ..Checkpoint::default()
        };
        let second = Checkpoint {
            name: "end".into(),
            update: 41,
            generated: summary(&[("ndcg@5", 0.2), ("ndcg@10", 0.4), ("recall@10", 0.5)]),
            reference: Some(summary(&[("ndcg@10", 0.45)])),
            comparisons: vec![
                comparison("reference", "ndcg@10", -0.05, 0.01),
                comparison("first", "ndcg@10", 0.1, 0.04),
                comparison("popular", "ndcg@10", 0.35, 0.000_02),
            ],
            ..Checkpoint::default()
        };
        let baseline = Baseline {
            name: "popular".into(),
            metrics: summary(&[("ndcg@10", 0.05), ("ndcg", 0.12345)]),
            ..Baseline::default()
        };
        Manifest {
            run: "a run".into(),
            checkpoints: vec![first, second],
            baselines: vec![baseline],
            ..Manifest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::samples::manifest;
    use super::*;

    #[test]
    fn the_best_checkpoint_has_the_highest_ndcg_at_the_largest_cutoff() {
        let mut manifest = manifest();
        assert_eq!(
            leading_metric(&manifest).map(|metric| metric.to_string()).as_deref(),
            Some("ndcg@10")
        );
        assert_eq!(best_checkpoint(&manifest), Some(1));
        manifest.checkpoints[1].generated = manifest.checkpoints[0].generated.clone();
        assert_eq!(best_checkpoint(&manifest), Some(0), "of equal ones the first");
        manifest.checkpoints.clear();
        assert_eq!(best_checkpoint(&manifest), None);
    }

    #[test]
    fn a_checkpoint_is_chosen_by_name_and_else_the_best() {
        let manifest = manifest();
        assert_eq!(chosen_checkpoint(&manifest, Some("first")), Some(0));
        assert_eq!(chosen_checkpoint(&manifest, None), Some(1));
        assert_eq!(chosen_checkpoint(&manifest, Some("gone")), Some(1));
    }
}
