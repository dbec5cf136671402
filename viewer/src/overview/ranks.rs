//! How the targets' ranks are distributed: counts over bins that double in width.

use eval_core::report::{Found, ResultChunk};

use super::lines::{GENERATED, REFERENCE};
use crate::chart::{BarChart, Bars};

/// Counts of ranks; bin `b` has the ranks from 2ᵇ to 2ᵇ⁺¹ − 1.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Counts {
    bins: Vec<u64>,
    total: u64,
}

impl Counts {
    fn add(&mut self, found: &Found) {
        for target in &found.targets {
            let bin = target.rank.max(1).ilog2() as usize;
            if self.bins.len() <= bin {
                self.bins.resize(bin + 1, 0);
            }
            self.bins[bin] += 1;
            self.total += 1;
        }
    }

    fn bars(&self, name: &str, series: usize, groups: usize) -> Bars {
        let height = |bin: usize| {
            let count = self.bins.get(bin).copied().unwrap_or(0);
            let share = count as f64 / self.total.max(1) as f64;
            (share, format!("{:.1} % ({count} of {})", share * 100.0, self.total))
        };
        Bars {
            name: name.to_owned(),
            series,
            heights: (0..groups).map(height).collect(),
        }
    }
}

/// The ranks of targets, as far as the results are read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranks {
    generated: Counts,
    reference: Counts,
    /// Number of result files that were read.
    pub files_read: usize,
}

impl Ranks {
    /// Counts one more file; every generated profile counts.
    pub fn add(&mut self, chunk: &ResultChunk) {
        for result in &chunk.results {
            result.generated.iter().for_each(|found| self.generated.add(found));
            result.reference.iter().for_each(|found| self.reference.add(found));
        }
        self.files_read += 1;
    }

    /// Number of generated rankings' targets so far.
    pub fn targets(&self) -> u64 {
        self.generated.total
    }

    /// The distribution as bars.
    pub fn chart(&self) -> BarChart {
        let groups = self.generated.bins.len().max(self.reference.bins.len());
        let mut series = vec![self.generated.bars("generated", GENERATED, groups)];
        if self.reference.total > 0 {
            series.push(self.reference.bars("reference", REFERENCE, groups));
        }
        BarChart {
            x_name: "rank".to_owned(),
            groups: (0..groups).map(bin_name).collect(),
            series,
        }
    }
}

/// `1`, `2–3`, `4–7`, …
fn bin_name(bin: usize) -> String {
    let first = 1u64 << bin.min(62);
    match bin {
        0 => "1".to_owned(),
        _ => format!("{first}–{}", 2 * first - 1),
    }
}

#[cfg(test)]
mod tests {
    use eval_core::report::UserResult;
    use eval_core::scores::RankedTarget;

    use super::*;

    fn found(ranks: &[u32]) -> Found {
        Found {
            targets: ranks
                .iter()
                .map(|&rank| RankedTarget::from_counts(0, rank - 1, 0, 0))
                .collect(),
            ..Found::default()
        }
    }

    #[test]
    fn ranks_fall_into_bins_that_double() {
        let mut ranks = Ranks::default();
        ranks.add(&ResultChunk {
            first: 0,
            results: vec![
                UserResult {
                    generated: vec![found(&[1]), found(&[3])],
                    reference: Some(found(&[4])),
                },
                UserResult {
                    generated: vec![found(&[2]), found(&[8])],
                    reference: Some(found(&[7])),
                },
            ],
        });
        let chart = ranks.chart();
        assert_eq!(chart.groups, ["1", "2–3", "4–7", "8–15"]);
        let shares = |series: usize| {
            chart.series[series]
                .heights
                .iter()
                .map(|(share, _)| *share)
                .collect::<Vec<_>>()
        };
        assert_eq!(shares(0), [0.25, 0.5, 0.0, 0.25]);
        assert_eq!(shares(1), [0.0, 0.0, 1.0, 0.0]);
        assert_eq!(chart.series[0].heights[1].1, "50.0 % (2 of 4)");
        assert_eq!((ranks.files_read, ranks.targets()), (1, 4));
    }

    #[test]
    fn without_reference_rankings_there_is_one_series() {
        let mut ranks = Ranks::default();
        ranks.add(&ResultChunk {
            first: 0,
            results: vec![UserResult {
                generated: vec![found(&[100])],
                reference: None,
            }],
        });
        let chart = ranks.chart();
        assert_eq!((chart.series.len(), chart.groups.len()), (1, 7));
        assert_eq!(chart.groups[6], "64–127");
    }
}
