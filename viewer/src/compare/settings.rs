//! Which two checkpoints are compared, as the page's address has it.

use std::fmt::{self, Display};

use eval_core::metrics::Metric;
use eval_core::report::Checkpoint;
use eval_core::significance::PairedTest;

/// Names of the parameters.
pub mod parameter {
    /// The checkpoint that is compared with.
    pub const FIRST: &str = "a";
    /// The checkpoint that is compared, with its run and a slash before it where that is another one.
    pub const SECOND: &str = "b";
    /// The user whose profiles are shown.
    pub const USER: &str = "user";
    /// The profile that is shown of the user.
    pub const PROFILE: &str = "profile";
}

/// A checkpoint by name, of this run or of another one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// The other run's name; `None` for this one.
    pub run: Option<String>,
    /// The checkpoint's name; `None` for the best.
    pub checkpoint: Option<String>,
}

impl Named {
    /// Reads what [`Display`] writes. Runs may have slashes in their names, checkpoints have none.
    pub fn parse(text: &str) -> Self {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match text.rsplit_once('/') {
            Some((run, checkpoint)) => Self {
                run: some(run),
                checkpoint: some(checkpoint),
            },
            None => Self {
                run: None,
                checkpoint: some(text),
            },
        }
    }
}

impl Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(run) = &self.run {
            write!(f, "{run}/")?;
        }
        f.write_str(self.checkpoint.as_deref().unwrap_or_default())
    }
}

/// The test of second − first that the report records.
pub fn recorded_test(first: &Checkpoint, second: &Checkpoint, metric: Metric) -> Option<PairedTest> {
    let between = |ours: &Checkpoint, theirs: &Checkpoint| {
        let mut made = ours.comparisons.iter();
        let made = made.find(|made| made.with == theirs.name && made.metric == metric);
        made.map(|made| made.test)
    };
    let turned = || {
        between(first, second).map(|test| PairedTest {
            mean_difference: -test.mean_difference,
            ..test
        })
    };
    between(second, first).or_else(turned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::overview::samples::manifest;

    #[test]
    fn checkpoints_read_back_from_their_addresses() {
        for text in ["", "end", "other run/end", "other run/", "runs/of/mine/update-1"] {
            assert_eq!(Named::parse(text).to_string(), text);
        }
        let named = Named::parse("runs/mine/end");
        assert_eq!(
            (named.run.as_deref(), named.checkpoint.as_deref()),
            (Some("runs/mine"), Some("end"))
        );
    }

    #[test]
    fn a_recorded_test_is_found_in_either_direction() {
        let manifest = manifest();
        let [first, end] = [0, 1].map(|place| &manifest.checkpoints[place]);
        let metric: Metric = "ndcg@10".parse().unwrap();
        let difference = |a, b| recorded_test(a, b, metric).map(|test| test.mean_difference);
        assert_eq!(
            (difference(first, end), difference(end, first)),
            (Some(0.1), Some(-0.1))
        );
        assert!(recorded_test(first, end, "recall@10".parse().unwrap()).is_none());
    }
}
