//! The metric table: a checkpoint's generated profiles against everything else that the report has.

use eval_core::Cutoff;
use eval_core::metrics::{Metric, Summary};
use eval_core::report::{Checkpoint, Manifest};
use eval_core::significance::PairedTest;

use super::{distinct, metrics_of};

use crate::order::sorted;

/// Below this p-value a difference is shown as one.
const SIGNIFICANT: f64 = 0.05;

/// The metrics at one cutoff: a row for each way to rank, a column for each measure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Such as `first 10 places`.
    pub caption: String,
    /// Names of metrics, such as `ndcg@10`.
    pub columns: Vec<String>,
    /// The rows, the checkpoint's generated profiles first.
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

/// A metric's mean over users, its 95 % interval, and how the generated profiles differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The mean, to four places.
    pub mean: String,
    /// The interval's ends.
    pub interval: String,
    /// Whether no other row has a higher mean.
    pub highest: bool,
    /// The generated profiles less this row; `None` in their own row, and where no test was made.
    pub difference: Option<Difference>,
}

/// The generated profiles less another row, over the same users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Such as `+0.0312`.
    pub mean: String,
    /// Such as `p = 0.0312`.
    pub p: String,
    /// What to make of it.
    pub verdict: Verdict,
}

/// What a paired test says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The generated profiles are better, p < 0.05.
    Better,
    /// The generated profiles are worse, p < 0.05.
    Worse,
    /// Neither.
    Open,
}

/// A way to rank, its metrics, and the name under which the checkpoint's comparisons have it.
struct Ranked<'a> {
    name: String,
    with: Option<&'a str>,
    summary: &'a Summary,
}

/// A table for each cutoff, the largest first, and one for the whole catalogue; of checkpoint number `checkpoint`, or of the
/// baselines alone where there is none.
pub fn tables(manifest: &Manifest, checkpoint: Option<usize>) -> Vec<Table> {
    let checkpoint = checkpoint.and_then(|place| manifest.checkpoints.get(place));
    let ranked = ranked(manifest, checkpoint);
    let cutoffs = distinct(
        ranked
            .iter()
            .flat_map(|row| metrics_of(row.summary))
            .map(Metric::cutoff),
    );
    let table = |cutoff| Table::new(cutoff, &ranked, checkpoint);
    // `None`, the whole catalogue, comes last.
    sorted(&cutoffs, |a, b| b.cmp(a)).into_iter().map(table).collect()
}

fn ranked<'a>(manifest: &'a Manifest, checkpoint: Option<&'a Checkpoint>) -> Vec<Ranked<'a>> {
    let mut rows = Vec::new();
    if let Some(checkpoint) = checkpoint {
        rows.push(Ranked {
            name: "Generated profiles".to_owned(),
            with: None,
            summary: &checkpoint.generated,
        });
        rows.extend(checkpoint.reference.as_ref().map(|summary| Ranked {
            name: "Reference profiles".to_owned(),
            with: Some("reference"),
            summary,
        }));
        let first = manifest
            .checkpoints
            .first()
            .filter(|first| first.name != checkpoint.name);
        rows.extend(first.map(|first| Ranked {
            name: format!("Generated at first, {}", first.name),
            with: Some(&first.name),
            summary: &first.generated,
        }));
    }
    rows.extend(manifest.baselines.iter().map(|baseline| Ranked {
        name: format!("Baseline {}", baseline.name),
        with: Some(&baseline.name),
        summary: &baseline.metrics,
    }));
    rows
}

impl Table {
    fn new(cutoff: Option<Cutoff>, ranked: &[Ranked<'_>], checkpoint: Option<&Checkpoint>) -> Self {
        let metrics = ranked.iter().flat_map(|row| metrics_of(row.summary));
        let columns = distinct(metrics.filter(|metric| metric.cutoff() == cutoff));
        let caption = match cutoff {
            Some(cutoff) => format!("first {cutoff} places"),
            None => "whole catalogue".to_owned(),
        };
        let row = |ranked_row: &Ranked<'_>| Row {
            name: ranked_row.name.clone(),
            cells: columns
                .iter()
                .map(|&metric| Cell::new(ranked_row, metric, highest(ranked, metric), checkpoint))
                .collect(),
        };
        Self {
            caption,
            rows: ranked.iter().map(row).collect(),
            columns: columns.iter().map(Metric::to_string).collect(),
        }
    }
}

fn highest(ranked: &[Ranked<'_>], metric: Metric) -> f64 {
    let means = ranked.iter().filter_map(|row| Some(row.summary.get(metric)?.mean));
    means.fold(f64::NEG_INFINITY, f64::max)
}

impl Cell {
    fn new(row: &Ranked<'_>, metric: Metric, highest: f64, checkpoint: Option<&Checkpoint>) -> Option<Self> {
        let found = row.summary.get(metric)?;
        let [low, high] = found.ci95;
        let comparisons = checkpoint.iter().flat_map(|checkpoint| &checkpoint.comparisons);
        let mut made = comparisons.filter(|made| Some(made.with.as_str()) == row.with && made.metric == metric);
        Some(Self {
            mean: format!("{:.4}", found.mean),
            interval: format!("{low:.4} to {high:.4}"),
            highest: found.mean >= highest,
            difference: made.next().map(|made| Difference::new(&made.test)),
        })
    }
}

impl Difference {
    /// What a test says, in words.
    pub fn new(test: &PairedTest) -> Self {
        let size = format!("{:.4}", test.mean_difference.abs());
        let is_nought = size.bytes().all(|byte| matches!(byte, b'0' | b'.'));
        let sign = match test.mean_difference {
            _ if is_nought => "",
            difference if difference < 0.0 => "−",
            _ => "+",
        };
        let p = match test.p_value {
            p if p < 0.0001 => "p < 0.0001".to_owned(),
            p => format!("p = {p:.4}"),
        };
        let verdict = match test.mean_difference {
            _ if test.p_value >= SIGNIFICANT => Verdict::Open,
            difference if difference > 0.0 => Verdict::Better,
            difference if difference < 0.0 => Verdict::Worse,
            _ => Verdict::Open,
        };
        Self {
            mean: format!("{sign}{size}"),
            p,
            verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::samples::manifest;
    use super::*;

    #[test]
    fn there_is_a_table_for_each_cutoff_and_one_for_the_whole_catalogue() {
        let tables = tables(&manifest(), Some(1));
        let captions: Vec<_> = tables.iter().map(|table| table.caption.as_str()).collect();
        assert_eq!(captions, ["first 10 places", "first 5 places", "whole catalogue"]);
        assert_eq!(tables[0].columns, ["ndcg@10", "recall@10"]);
    }

    #[test]
    fn generated_profiles_stand_against_reference_first_checkpoint_and_baselines() {
        let table = tables(&manifest(), Some(1)).swap_remove(0);
        let names: Vec<_> = table.rows.iter().map(|row| row.name.as_str()).collect();
        let expected = [
            "Generated profiles",
            "Reference profiles",
            "Generated at first, first",
            "Baseline popular",
        ];
        assert_eq!(names, expected);
        let ndcg: Vec<_> = table.rows.iter().map(|row| row.cells[0].clone().unwrap()).collect();
        assert_eq!(
            (ndcg[0].mean.as_str(), ndcg[0].interval.as_str()),
            ("0.4000", "0.3900 to 0.4200")
        );
        assert_eq!(ndcg[0].difference, None);
        let difference = |row: usize| {
            let Difference { mean, p, verdict } = ndcg[row].difference.clone().unwrap();
            (mean, p, verdict)
        };
        assert_eq!(difference(1), ("−0.0500".into(), "p = 0.0100".into(), Verdict::Worse));
        assert_eq!(difference(2), ("+0.1000".into(), "p = 0.0400".into(), Verdict::Better));
        assert_eq!(difference(3), ("+0.3500".into(), "p < 0.0001".into(), Verdict::Better));
        assert_eq!(
            ndcg.iter().map(|cell| cell.highest).collect::<Vec<_>>(),
            [false, true, false, false]
        );
        assert_eq!(
            table.rows[1].cells[1], None,
            "a metric that was not computed has no number"
        );
    }

    #[test]
    fn the_first_checkpoint_is_not_set_against_itself_and_an_unsure_difference_is_open() {
        let table = tables(&manifest(), Some(0)).swap_remove(0);
        assert_eq!(table.rows.len(), 3);
        let difference = table.rows[1].cells[0].as_ref().unwrap().difference.clone().unwrap();
        assert_eq!(
            (difference.mean.as_str(), difference.verdict),
            ("+0.1000", Verdict::Open)
        );
    }

    #[test]
    fn without_a_checkpoint_the_baselines_are_shown() {
        let tables = tables(&manifest(), None);
        assert!(tables.iter().all(|table| table.rows.len() == 1));
    }

    #[test]
    fn a_difference_that_rounds_to_nought_has_no_sign() {
        let test = PairedTest {
            mean_difference: -0.000_01,
            p_value: 0.9,
            n: 3,
            exact: true,
        };
        assert_eq!(Difference::new(&test).mean, "0.0000");
    }
}
