//! What the page says of a report: its manifest as lines and tables of text.

use eval_core::Cutoff;
use eval_core::metrics::{Metric, Summary};
use eval_core::report::{Checkpoint, Manifest, Model};

/// A manifest, ready to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overview {
    /// The run's name.
    pub run: String,
    /// What was trained on what, as names and values.
    pub facts: Vec<(&'static str, String)>,
    /// A table for each cutoff.
    pub tables: Vec<Table>,
}

/// The metrics at one cutoff: a row for each way to rank, a column for each measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Such as `first 10 places`.
    pub caption: String,
    /// Names of metrics, such as `ndcg@10`.
    pub columns: Vec<String>,
    /// The rows, checkpoints before baselines.
    pub rows: Vec<Row>,
}

/// One way to rank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was ranked with.
    pub name: String,
    /// A cell for each column; `None` where the metric was not computed.
    pub cells: Vec<Option<Cell>>,
}

/// A metric's mean over users and its 95 % interval, to four places.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The mean.
    pub mean: String,
    /// The interval's ends.
    pub interval: String,
}

impl Overview {
    /// Everything that is shown of `manifest`.
    pub fn new(manifest: &Manifest) -> Self {
        let rows = ranked(manifest);
        let tables = cutoffs(&rows)
            .into_iter()
            .map(|cutoff| Table::new(cutoff, &rows))
            .collect();
        Self {
            run: manifest.run.clone(),
            facts: facts(manifest),
            tables,
        }
    }
}

impl Table {
    fn new(cutoff: Option<Cutoff>, rows: &[(String, &Summary)]) -> Self {
        let columns = distinct(
            rows.iter()
                .flat_map(|(_, summary)| metrics(summary))
                .filter(|m| m.cutoff() == cutoff),
        );
        let caption = match cutoff {
            Some(cutoff) => format!("first {cutoff} places"),
            None => "whole catalogue".to_owned(),
        };
        let row = |(name, summary): &(String, &Summary)| Row {
            name: name.clone(),
            cells: columns.iter().map(|&metric| Cell::new(summary, metric)).collect(),
        };
        Self {
            caption,
            rows: rows.iter().map(row).collect(),
            columns: columns.iter().map(Metric::to_string).collect(),
        }
    }
}

impl Cell {
    fn new(summary: &Summary, metric: Metric) -> Option<Self> {
        let found = summary.get(metric)?;
        let [low, high] = found.ci95;
        Some(Self {
            mean: format!("{:.4}", found.mean),
            interval: format!("{low:.4} to {high:.4}"),
        })
    }
}

fn facts(manifest: &Manifest) -> Vec<(&'static str, String)> {
    let data = &manifest.dataset;
    let last = manifest.checkpoints.last();
    let users = format!(
        "{} to train on, {} val, {} test",
        data.train_users, data.val_users, data.test_users
    );
    let all = [
        ("Dataset", format!("{}, split {}", data.name, data.split)),
        ("Items", data.items.to_string()),
        ("Users", users),
        ("Language model", described(&manifest.language_model)),
        ("Embedder", described(&manifest.embedder)),
        ("Checkpoints", manifest.checkpoints.len().to_string()),
        (
            "Profiles a user",
            last.map_or_else(String::new, |checkpoint| checkpoint.profiles_per_user.to_string()),
        ),
        ("Written", manifest.created.clone()),
        ("By", manifest.generator.clone()),
    ];
    all.into_iter().filter(|(_, value)| !value.is_empty()).collect()
}

fn described(model: &Model) -> String {
    let Model {
        name,
        architecture,
        parameters,
        trained_parameters,
    } = model;
    if name.is_empty() {
        return String::new();
    }
    format!("{name} ({architecture}; {trained_parameters} of {parameters} parameters trained)")
}

/// Every way to rank that the report knows, named.
fn ranked(manifest: &Manifest) -> Vec<(String, &Summary)> {
    let of_checkpoint = |checkpoint: &'_ Checkpoint| format!("{}, update {}", checkpoint.name, checkpoint.update);
    let mut rows = Vec::new();
    for checkpoint in &manifest.checkpoints {
        rows.push((of_checkpoint(checkpoint), &checkpoint.generated));
        if let Some(reference) = &checkpoint.reference {
            rows.push((format!("{}, reference profiles", of_checkpoint(checkpoint)), reference));
        }
    }
    rows.extend(
        manifest
            .baselines
            .iter()
            .map(|baseline| (format!("baseline {}", baseline.name), &baseline.metrics)),
    );
    rows
}

fn cutoffs(rows: &[(String, &Summary)]) -> Vec<Option<Cutoff>> {
    distinct(
        rows.iter()
            .flat_map(|(_, summary)| metrics(summary))
            .map(Metric::cutoff),
    )
}

fn metrics(summary: &Summary) -> impl Iterator<Item = Metric> {
    summary.metrics.iter().map(|(metric, _)| *metric)
}

/// The values without repetitions, in the order in which they come first.
fn distinct<T: PartialEq>(values: impl Iterator<Item = T>) -> Vec<T> {
    values.fold(Vec::new(), |mut kept, value| {
        if !kept.contains(&value) {
            kept.push(value);
        }
        kept
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::metrics::MetricSummary;
    use eval_core::report::Baseline;

    use super::*;

    fn summary(metrics: &[(&str, f64)]) -> Summary {
        let metrics = metrics.iter().map(|&(name, mean)| {
            (
                name.parse().unwrap(),
                MetricSummary {
                    mean,
                    ci95: [mean - 0.01, mean + 0.02],
                    n: 3,
                },
            )
        });
        Summary {
            users: 3,
            users_without_target: 0,
            metrics: metrics.collect(),
        }
    }

    fn manifest() -> Manifest {
        let checkpoint = Checkpoint {
            name: "first".into(),
            update: 1,
            generated: summary(&[("ndcg@5", 0.25), ("ndcg@10", 0.3), ("recall@10", 0.5)]),
            reference: Some(summary(&[("ndcg@10", 0.2)])),
            ..Checkpoint::default()
        };
        let baseline = Baseline {
            name: "popular".into(),
            metrics: summary(&[("ndcg", 0.12345)]),
            ..Baseline::default()
        };
        Manifest {
            run: "a run".into(),
            checkpoints: vec![checkpoint],
            baselines: vec![baseline],
            ..Manifest::default()
        }
    }

    #[test]
    fn there_is_a_table_for_each_cutoff_and_one_for_the_whole_catalogue() {
        let overview = Overview::new(&manifest());
        let captions: Vec<_> = overview.tables.iter().map(|table| table.caption.as_str()).collect();
        assert_eq!(captions, ["first 5 places", "first 10 places", "whole catalogue"]);
        assert_eq!(overview.tables[1].columns, ["ndcg@10", "recall@10"]);
    }

    #[test]
    fn checkpoints_their_references_and_baselines_each_have_a_row() {
        let table = Overview::new(&manifest()).tables.swap_remove(1);
        let names: Vec<_> = table.rows.iter().map(|row| row.name.as_str()).collect();
        assert_eq!(
            names,
            [
                "first, update 1",
                "first, update 1, reference profiles",
                "baseline popular"
            ]
        );
        let cell = table.rows[0].cells[0].as_ref().unwrap();
        assert_eq!(
            (cell.mean.as_str(), cell.interval.as_str()),
            ("0.3000", "0.2900 to 0.3200")
        );
        assert_eq!(
            table.rows[1].cells[1], None,
            "a metric that was not computed has no number"
        );
    }

    #[test]
    fn facts_that_the_manifest_leaves_empty_are_left_out() {
        let names: Vec<_> = Overview::new(&manifest())
            .facts
            .into_iter()
            .map(|(name, _)| name)
            .collect();
        assert!(!names.contains(&"Written") && !names.contains(&"Embedder") && names.contains(&"Checkpoints"));
    }
}
