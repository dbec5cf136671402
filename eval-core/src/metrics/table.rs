use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Metric;
use crate::TargetRanks;
use crate::significance::{Bootstrap, mean};

/// Metrics of many users: a row a user, a column a metric.
///
/// ```
/// use eval_core::metrics::{Metric, MetricTable};
/// use eval_core::significance::Bootstrap;
/// use eval_core::{Cutoff, TargetRanks};
///
/// let recall: Metric = "recall@10".parse()?;
/// let mut table = MetricTable::new(vec![recall]);
/// for rank in [1, 50, 3, 2] {
///     table.push(&TargetRanks::new(&[rank])?);
/// }
/// table.push(&TargetRanks::default()); // a user without a target is counted apart
/// assert_eq!(table.column(recall), Some(&[1.0, 0.0, 1.0, 1.0][..]));
///
/// let summary = table.summary(&Bootstrap::default());
/// assert_eq!((summary.users, summary.users_without_target), (4, 1));
/// assert_eq!(summary.get(recall).unwrap().mean, 0.75);
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MetricTable {
    metrics: Vec<Metric>,
    /// One a metric, each with a value a user.
    columns: Vec<Vec<f64>>,
    users: usize,
    users_without_target: usize,
}

impl MetricTable {
    /// An empty table of these metrics; a metric named twice is kept once.
    pub fn new(metrics: Vec<Metric>) -> Self {
        let mut kept: Vec<Metric> = Vec::with_capacity(metrics.len());
        metrics.into_iter().for_each(|metric| {
            if !kept.contains(&metric) {
                kept.push(metric)
            }
        });
        Self {
            columns: vec![Vec::new(); kept.len()],
            metrics: kept,
            users: 0,
            users_without_target: 0,
        }
    }

    /// Adds one user with one ranking. A user without a target adds no row, is counted, and gives `false`.
    pub fn push(&mut self, ranks: &TargetRanks) -> bool {
        self.push_mean(std::slice::from_ref(ranks))
    }

    /// Adds one user who has several rankings, say one for each sampled profile: the row is their mean, so that the user
    /// still counts once and intervals are over users. No ranking, or one without targets, adds no row and gives `false`.
    pub fn push_mean(&mut self, rankings: &[TargetRanks]) -> bool {
        if rankings.is_empty() || rankings.iter().any(TargetRanks::is_empty) {
            self.users_without_target += 1;
            return false;
        }
        for (metric, column) in self.metrics.iter().zip(&mut self.columns) {
            let values: Vec<f64> = rankings.iter().filter_map(|ranks| metric.of(ranks)).collect();
            column.push(mean(&values));
        }
        self.users += 1;
        true
    }

    /// The metrics, in the order of their columns.
    pub fn metrics(&self) -> &[Metric] {
        &self.metrics
    }

    /// A metric of each user, in the order they were added; `None` for a metric that the table does not hold.
    pub fn column(&self, metric: Metric) -> Option<&[f64]> {
        let column = self.metrics.iter().position(|&other| other == metric)?;
        Some(&self.columns[column])
    }

    /// Number of users with a target, which is the number of rows.
    pub fn users(&self) -> usize {
        self.users
    }

    /// Number of users that were left out because they have no target.
    pub fn users_without_target(&self) -> usize {
        self.users_without_target
    }

    /// Means over users, with bootstrap intervals. All metrics see the same resamples of users.
    pub fn summary(&self, bootstrap: &Bootstrap) -> Summary {
        let intervals = bootstrap.intervals(&self.columns.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let summaries = self.columns.iter().zip(intervals).map(|(column, ci95)| MetricSummary {
            mean: mean(column),
            ci95,
            n: column.len(),
        });
        Summary {
            users: self.users,
            users_without_target: self.users_without_target,
            metrics: self.metrics.iter().copied().zip(summaries).collect(),
        }
    }
}

/// A metric over users.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct MetricSummary {
    /// Mean over the users; 0 when there are none.
    pub mean: f64,
    /// 95 % bootstrap percentile interval of the mean, `[low, high]`.
    pub ci95: [f64; 2],
    /// Number of users.
    pub n: usize,
}

/// What [`MetricTable::summary`] gives. As JSON, `metrics` is an object in the order of the columns:
/// `{"ndcg@10": {"mean": …, "ci95": […, …], "n": …}, …}`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// Number of users with a target.
    pub users: usize,
    /// Number of users without one, who are in no mean.
    pub users_without_target: usize,
    /// The metrics.
    #[serde(serialize_with = "as_object", deserialize_with = "from_object")]
    pub metrics: Vec<(Metric, MetricSummary)>,
}

impl Summary {
    /// One metric's summary; `None` where it was not computed.
    pub fn get(&self, metric: Metric) -> Option<&MetricSummary> {
        self.metrics
            .iter()
            .find(|(other, _)| *other == metric)
            .map(|(_, summary)| summary)
    }
}

fn as_object<S: Serializer>(metrics: &[(Metric, MetricSummary)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut object = serializer.serialize_map(Some(metrics.len()))?;
    metrics
        .iter()
        .try_for_each(|(metric, summary)| object.serialize_entry(metric, summary))?;
    object.end()
}

fn from_object<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<(Metric, MetricSummary)>, D::Error> {
    struct Object;
    impl<'de> Visitor<'de> for Object {
        type Value = Vec<(Metric, MetricSummary)>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object with metric names as keys")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
            let mut metrics = Vec::new();
            while let Some(entry) = entries.next_entry()? {
                metrics.push(entry);
            }
            Ok(metrics)
        }
    }
    deserializer.deserialize_map(Object)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::Cutoff;

    #[test]
    fn several_rankings_of_a_user_make_one_row() {
        let metric: Metric = "mrr_first@5".parse().unwrap();
        let mut table = MetricTable::new(vec![metric, metric]);
        assert!(table.push_mean(&[TargetRanks::new(&[1]).unwrap(), TargetRanks::new(&[2]).unwrap()]));
        assert!(!table.push_mean(&[]));
        assert_eq!(table.column(metric), Some(&[0.75][..]));
        assert_eq!(
            (table.metrics().len(), table.users(), table.users_without_target()),
            (1, 1, 1)
        );
    }

    #[test]
    fn a_summary_reads_back_from_its_json_and_keeps_its_order() {
        let mut table = MetricTable::new(Metric::all_at(&[Cutoff::new(10).unwrap(), Cutoff::new(5).unwrap()]));
        table.push(&TargetRanks::new(&[7, 2]).unwrap());
        table.push(&TargetRanks::new(&[1]).unwrap());
        let summary = table.summary(&Bootstrap::default());
        let json = serde_json::to_string(&summary).unwrap();
        assert!(json.find("recall@10").unwrap() < json.find("recall@5").unwrap());
        let read: Summary = serde_json::from_str(&json).unwrap();
        assert_eq!((read.users, read.metrics.len()), (2, 16));
        // serde_json may read a decimal one unit in the last place off.
        for ((metric, read), (expected, written)) in read.metrics.iter().zip(&summary.metrics) {
            assert_eq!((metric, read.n), (expected, written.n));
            assert!((read.mean - written.mean).abs() < 1e-15 && (read.ci95[0] - written.ci95[0]).abs() < 1e-15);
        }
    }

    #[test]
    fn a_table_without_users_has_means_of_zero_over_none() {
        let metric: Metric = "ndcg@5".parse().unwrap();
        let summary = MetricTable::new(vec![metric]).summary(&Bootstrap::default());
        assert_eq!(
            *summary.get(metric).unwrap(),
            MetricSummary {
                mean: 0.0,
                ci95: [0.0, 0.0],
                n: 0
            }
        );
    }
}
