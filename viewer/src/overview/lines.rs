//! Learning curves: a metric over checkpoints, and what training logged.

use eval_core::metrics::{Metric, Summary};
use eval_core::report::{Checkpoint, Curve, Manifest};

use crate::chart::{Line, Point};

/// Colours of generated profiles, of reference profiles and of baselines.
pub(crate) const GENERATED: usize = 0;
pub(crate) const REFERENCE: usize = 1;
const BASELINE: usize = 2;

/// A metric by update: generated and reference profiles, and the best baseline as a straight line.
pub fn metric_lines(manifest: &Manifest, metric: Metric) -> Vec<Line> {
    let point = |checkpoint: &Checkpoint, summary: Option<&Summary>| {
        let found = summary?.get(metric)?;
        Some(Point {
            x: checkpoint.update as f64,
            y: found.mean,
            interval: Some(found.ci95),
        })
    };
    let points = |of: fn(&Checkpoint) -> Option<&Summary>| -> Vec<Point> {
        let checkpoints = manifest.checkpoints.iter();
        checkpoints
            .filter_map(|checkpoint| point(checkpoint, of(checkpoint)))
            .collect()
    };
    let line = |name: &str, series, points| Line {
        name: name.to_owned(),
        series,
        class: "",
        points,
    };
    let mut lines = vec![
        line("generated", GENERATED, points(|checkpoint| Some(&checkpoint.generated))),
        line(
            "reference",
            REFERENCE,
            points(|checkpoint| checkpoint.reference.as_ref()),
        ),
    ];
    lines.extend(best_baseline(manifest, metric));
    lines.retain(|line| !line.points.is_empty());
    lines
}

fn best_baseline(manifest: &Manifest, metric: Metric) -> Option<Line> {
    let baselines = manifest.baselines.iter();
    let known = baselines.filter_map(|baseline| Some((&baseline.name, baseline.metrics.get(metric)?.mean)));
    let (name, mean) = known.max_by(|(_, a), (_, b)| a.total_cmp(b))?;
    let points = manifest.checkpoints.iter().map(|checkpoint| Point {
        x: checkpoint.update as f64,
        y: mean,
        interval: None,
    });
    Some(Line {
        name: format!("{name}, the best baseline"),
        series: BASELINE,
        class: "dashed",
        points: points.collect(),
    })
}

/// What training logged under one name: as recorded, and smoothed behind `weight` if that is above 0.
pub fn training_lines(curve: &Curve, weight: f64) -> Vec<Line> {
    let line = |name: &str, class, values: &[f64]| Line {
        name: name.to_owned(),
        series: GENERATED,
        class,
        points: curve
            .steps
            .iter()
            .zip(values)
            .map(|(&step, &value)| Point {
                x: step as f64,
                y: value,
                interval: None,
            })
            .collect(),
    };
    match weight > 0.0 {
        false => vec![line("recorded", "", &curve.values)],
        true => vec![
            line("recorded", "faint-line", &curve.values),
            line("smoothed", "", &smoothed(&curve.values, weight)),
        ],
    }
}

/// The exponential moving average with `weight` on the past, in `0.0..1.0`, divided by the sum of its weights so that it does
/// not begin at nought (Kingma & Ba, 2015, section 3). What is not finite stays, and does not count.
pub fn smoothed(values: &[f64], weight: f64) -> Vec<f64> {
    let (mut sum, mut weights) = (0.0, 0.0);
    let average = |&value: &f64| {
        if !value.is_finite() {
            return value;
        }
        sum = weight * sum + (1.0 - weight) * value;
        weights = weight * weights + (1.0 - weight);
        sum / weights
    };
    values.iter().map(average).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::samples::manifest;
    use super::*;

    #[test]
    fn a_metric_has_a_line_for_each_kind_of_profile_and_for_the_best_baseline() {
        let lines = metric_lines(&manifest(), "ndcg@10".parse().unwrap());
        let names: Vec<_> = lines.iter().map(|line| line.name.as_str()).collect();
        assert_eq!(names, ["generated", "reference", "popular, the best baseline"]);
        let end = lines[0].points[1];
        assert_eq!(
            (end.x, end.y, end.interval),
            (41.0, 0.4, Some([0.39, 0.42000000000000004]))
        );
        assert!(lines[2].points.iter().all(|point| point.y == 0.05));
        let recall = metric_lines(&manifest(), "recall@10".parse().unwrap());
        assert_eq!(recall.len(), 1, "a line without points is none");
    }

    #[test]
    fn smoothing_keeps_constants_and_weighs_the_past() {
        assert_eq!(smoothed(&[2.0, 2.0, 2.0], 0.9), [2.0, 2.0, 2.0]);
        // 1; (0.5·0.5 + 0.5·3)/(0.5·0.5 + 0.5) = 7/3.
        let smooth = smoothed(&[1.0, 3.0], 0.5);
        assert!((smooth[0] - 1.0).abs() < 1e-12 && (smooth[1] - 7.0 / 3.0).abs() < 1e-12);
        assert_eq!(smoothed(&[1.0, 5.0], 0.0), [1.0, 5.0]);
        let gap = smoothed(&[1.0, f64::NAN, 1.0], 0.5);
        assert!(gap[1].is_nan() && gap[2] == 1.0);
    }

    #[test]
    fn a_smoothed_curve_keeps_what_was_recorded_behind_it() {
        let curve = Curve {
            name: "loss".into(),
            steps: vec![1, 5],
            values: vec![2.0, 1.0],
        };
        let plain = training_lines(&curve, 0.0);
        assert_eq!((plain.len(), plain[0].points[1].x, plain[0].points[1].y), (1, 5.0, 1.0));
        let both = training_lines(&curve, 0.6);
        assert_eq!((both[0].class, both[0].points[1].y), ("faint-line", 1.0));
        assert_eq!(both[1].points[0].y, 2.0);
    }
}
