use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{hit, map, mrr, mrr_first, ndcg, ndcg_exp, precision, recall};
use crate::{Cutoff, Error, ErrorKind, TargetRanks};

/// What is measured; the functions of [`metrics`](super) by name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Measure {
    /// [`recall`].
    Recall,
    /// [`precision`].
    Precision,
    /// [`hit`].
    Hit,
    /// [`mrr`]: all hits.
    Mrr,
    /// [`mrr_first`].
    MrrFirst,
    /// [`ndcg`]: linear gain.
    Ndcg,
    /// [`ndcg_exp`]: exponential gain.
    NdcgExp,
    /// [`map`].
    Map,
}

impl Measure {
    /// Every measure, in the order of reports.
    pub const ALL: [Self; 8] = [
        Self::Recall,
        Self::Precision,
        Self::Hit,
        Self::Mrr,
        Self::MrrFirst,
        Self::Ndcg,
        Self::NdcgExp,
        Self::Map,
    ];

    /// The name before the `@`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Recall => "recall",
            Self::Precision => "precision",
            Self::Hit => "hit",
            Self::Mrr => "mrr",
            Self::MrrFirst => "mrr_first",
            Self::Ndcg => "ndcg",
            Self::NdcgExp => "ndcg_exp",
            Self::Map => "map",
        }
    }

    fn needs_cutoff(self) -> bool {
        matches!(self, Self::Recall | Self::Precision | Self::Hit)
    }
}

/// A measure at a cutoff, written `ndcg@10`, or over the whole catalogue, written `ndcg`.
///
/// ```
/// use eval_core::{metrics::Metric, TargetRanks};
/// let metric: Metric = "precision@5".parse()?;
/// assert_eq!(metric.of(&TargetRanks::new(&[2])?), Some(0.2));
/// assert_eq!(metric.to_string(), "precision@5");
/// assert!("precision".parse::<Metric>().is_err()); // of how many places?
/// # Ok::<(), eval_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Metric {
    measure: Measure,
    cutoff: Option<Cutoff>,
}

impl Metric {
    /// `measure` at `cutoff`.
    pub fn at(measure: Measure, cutoff: Cutoff) -> Self {
        Self {
            measure,
            cutoff: Some(cutoff),
        }
    }

    /// Every measure at each of `cutoffs`, cutoff by cutoff.
    pub fn all_at(cutoffs: &[Cutoff]) -> Vec<Self> {
        cutoffs
            .iter()
            .flat_map(|&cutoff| Measure::ALL.map(|measure| Self::at(measure, cutoff)))
            .collect()
    }

    /// What is measured.
    pub fn measure(self) -> Measure {
        self.measure
    }

    /// The cutoff; `None` means the whole catalogue.
    pub fn cutoff(self) -> Option<Cutoff> {
        self.cutoff
    }

    /// The metric of one user; `None` for a user without a target.
    pub fn of(self, ranks: &TargetRanks) -> Option<f64> {
        match (self.measure, self.cutoff) {
            (Measure::Recall, cutoff) => recall(ranks, cutoff?),
            (Measure::Precision, cutoff) => precision(ranks, cutoff?),
            (Measure::Hit, cutoff) => hit(ranks, cutoff?),
            (Measure::Mrr, cutoff) => mrr(ranks, cutoff),
            (Measure::MrrFirst, cutoff) => mrr_first(ranks, cutoff),
            (Measure::Ndcg, cutoff) => ndcg(ranks, cutoff),
            (Measure::NdcgExp, cutoff) => ndcg_exp(ranks, cutoff),
            (Measure::Map, cutoff) => map(ranks, cutoff),
        }
    }
}

impl FromStr for Metric {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let (name, cutoff) = match text.split_once('@') {
            Some((name, cutoff)) => (name, Some(cutoff.parse()?)),
            None => (text, None),
        };
        let measure = Measure::ALL.into_iter().find(|measure| measure.name() == name);
        match measure {
            None => Err(ErrorKind::UnknownMetric { found: text.to_owned() }.into()),
            Some(measure) if cutoff.is_none() && measure.needs_cutoff() => {
                Err(ErrorKind::CutoffMissing { name: measure.name() }.into())
            }
            Some(measure) => Ok(Self { measure, cutoff }),
        }
    }
}

impl fmt::Display for Metric {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.cutoff {
            Some(cutoff) => write!(f, "{}@{cutoff}", self.measure.name()),
            None => f.write_str(self.measure.name()),
        }
    }
}

impl TryFrom<String> for Metric {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<Metric> for String {
    fn from(metric: Metric) -> Self {
        metric.to_string()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_name_reads_back() {
        for metric in Metric::all_at(&[Cutoff::new(5).unwrap(), Cutoff::new(20).unwrap()]) {
            assert_eq!(metric.to_string().parse::<Metric>().unwrap(), metric);
        }
        assert_eq!("ndcg".parse::<Metric>().unwrap().cutoff(), None);
    }

    #[test]
    fn bad_names_say_what_was_expected() {
        let message = |text: &str| text.parse::<Metric>().unwrap_err().to_string();
        assert!(
            message("dcg@5").contains("expected one of recall"),
            "{}",
            message("dcg@5")
        );
        assert!(message("ndcg@0").contains("at least 1"));
        assert!(message("ndcg@ten").contains("\"ten\""));
        assert!(message("recall").contains("recall@10"));
    }
}
