//! What the items' table is set to, as the page's address has it.

use eval_core::Cutoff;
use eval_core::report::Manifest;

use super::rankings::{Counted, Lists, chosen, with_exposure};
use super::table::Column;
use crate::address::Parameters;
use crate::grid::read_sort;

/// Names of the parameters.
pub mod parameter {
    /// The checkpoint, by name.
    pub const CHECKPOINT: &str = "checkpoint";
    /// Whose top lists are counted.
    pub const LISTS: &str = "of";
    /// How long a top list is.
    pub const CUTOFF: &str = "cutoff";
    /// The column that rows are sorted by, with a `-` before it for descending order.
    pub const SORT: &str = "sort";
    /// Words that titles must have.
    pub const FIND: &str = "find";
}

/// What the items' table is set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The checkpoint's number; `None` where the report counts no recommendations.
    pub checkpoint: Option<usize>,
    /// Whose top lists are counted.
    pub lists: Lists,
    /// How long a top list is, if that is said.
    pub cutoff: Option<Cutoff>,
    /// The column that rows are sorted by.
    pub sort: Column,
    /// Whether the largest comes first.
    pub descending: bool,
    /// Words that titles must have, in lower case.
    pub find: Vec<String>,
}

impl Shown {
    /// Reads the address.
    ///
    /// # Errors
    /// In words for the page: what it names is not in the report.
    pub fn read(parameters: &Parameters, manifest: &Manifest) -> Result<Self, String> {
        let known = with_exposure(manifest);
        let checkpoint = chosen(
            parameters.get(parameter::CHECKPOINT),
            &known,
            "counts of recommendations",
            manifest,
        )?;
        let usual = match checkpoint {
            Some(_) => (Column::Recommended, true),
            None => (Column::Popularity, true),
        };
        let (sort, descending) = match parameters.get(parameter::SORT).map(read_sort) {
            None => usual,
            Some((name, descending)) => (column_named(name)?, descending),
        };
        let cutoff = parameters.get(parameter::CUTOFF).and_then(|cutoff| cutoff.parse().ok());
        let find = parameters.get(parameter::FIND).unwrap_or_default().to_lowercase();
        Ok(Self {
            checkpoint,
            lists: Lists::parse(parameters.get(parameter::LISTS).unwrap_or_default()),
            cutoff: cutoff.and_then(|cutoff| Cutoff::new(cutoff).ok()),
            sort,
            descending,
            find: find.split_whitespace().map(str::to_owned).collect(),
        })
    }

    /// The cutoff among those that are counted: the one that is said, or else the largest.
    pub fn cutoff_of(&self, counted: &Counted) -> Option<Cutoff> {
        let cutoffs = counted.cutoffs();
        let said = self.cutoff.filter(|cutoff| cutoffs.contains(cutoff));
        said.or(cutoffs.last().copied())
    }
}

fn column_named(name: &str) -> Result<Column, String> {
    let found = Column::ALL.into_iter().find(|column| column.name() == name);
    found.ok_or_else(|| {
        let known = Column::ALL.map(Column::name);
        format!(
            "The table has no column {name:?}: expected one of {}.",
            known.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::report::Checkpoint;

    use super::super::rankings::samples::{counted, cutoff};
    use super::*;

    fn read(query: &str, exposure: Option<String>) -> Result<Shown, String> {
        let manifest = Manifest {
            checkpoints: vec![Checkpoint {
                name: "end".into(),
                exposure,
                ..Checkpoint::default()
            }],
            ..Manifest::default()
        };
        Shown::read(&Parameters::parse(query), &manifest)
    }

    #[test]
    fn what_is_recommended_most_comes_first_unless_told_or_unknown() {
        let with = || Some("exposure.json".to_owned());
        let shown = read("", with()).unwrap();
        assert_eq!(
            (shown.sort, shown.descending, shown.checkpoint),
            (Column::Recommended, true, Some(0))
        );
        let shown = read("", None).unwrap();
        assert_eq!(
            (shown.sort, shown.descending, shown.checkpoint),
            (Column::Popularity, true, None)
        );
        let shown = read("sort=title&find=The%20ÉTÉ&of=reference&cutoff=1", with()).unwrap();
        assert_eq!((shown.sort, shown.descending), (Column::Title, false));
        assert_eq!(
            (shown.find, shown.lists),
            (vec!["the".to_owned(), "été".to_owned()], Lists::Reference)
        );
        assert!(read("sort=name", with()).unwrap_err().contains("no column \"name\""));
        assert!(
            read("checkpoint=start", with())
                .unwrap_err()
                .contains("expected one of end")
        );
    }

    #[test]
    fn a_cutoff_that_is_not_counted_is_the_largest() {
        for (query, expected) in [("cutoff=1", 1), ("cutoff=3", 2), ("cutoff=0", 2), ("", 2)] {
            let shown = read(query, None).unwrap();
            assert_eq!(shown.cutoff_of(&counted()), Some(cutoff(expected)), "{query}");
        }
        assert_eq!(read("", None).unwrap().cutoff_of(&Counted::default()), None);
    }
}
