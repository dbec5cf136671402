//! What the users' table is set to, as the page's address has it.

use eval_core::report::Manifest;

use crate::address::Parameters;
use crate::grid;
use crate::overview::best_checkpoint;
use crate::table::Column;

/// Names of the parameters.
pub mod parameter {
    /// The checkpoint, by name.
    pub const CHECKPOINT: &str = "checkpoint";
    /// The checkpoint that it is compared with, by name; empty for none.
    pub const AGAINST: &str = "against";
    /// The column that rows are sorted by, with a `-` before it for descending order.
    pub const SORT: &str = "sort";
    /// The filter.
    pub const FILTER: &str = "filter";
    /// The columns beside the user, with commas between them.
    pub const COLUMNS: &str = "columns";
}

/// The targets' popularity is shown unasked where the report tells it in one file, or the items lie in up to so many.
const FEW_ITEM_FILES: usize = 20;

/// What the users' table is set to.
#[derive(Clone, Debug, PartialEq)]
pub struct Shown {
    /// The checkpoint's number in the manifest.
    pub checkpoint: usize,
    /// The number of the checkpoint that it is compared with.
    pub against: Option<usize>,
    /// The column that rows are sorted by.
    pub sort: Column,
    /// Whether the largest comes first.
    pub descending: bool,
    /// The columns, in their own order; the user is always one.
    pub columns: Vec<Column>,
}

/// The checkpoints that have results for the users: numbers in the manifest.
pub fn with_results(manifest: &Manifest) -> Vec<usize> {
    let checkpoints = manifest.checkpoints.iter().enumerate();
    checkpoints
        .filter(|(_, checkpoint)| checkpoint.results.is_some())
        .map(|(number, _)| number)
        .collect()
}

/// The checkpoint with results that a parameter names; without a name the best checkpoint, or the last with results.
///
/// # Errors
/// In words for the page: there is no such checkpoint, or none that has results.
pub fn chosen_checkpoint(named: Option<&str>, manifest: &Manifest) -> Result<usize, String> {
    let with_results = with_results(manifest);
    let Some(&last) = with_results.last() else {
        return Err(match manifest.checkpoints.len() {
            0 => "The report has no checkpoint yet: the run was not evaluated so far.".to_owned(),
            _ => "The report keeps only the metrics of its checkpoints, and nothing about single users.".to_owned(),
        });
    };
    match named {
        None => {
            let best = best_checkpoint(manifest).filter(|best| with_results.contains(best));
            Ok(best.unwrap_or(last))
        }
        Some(name) => named_checkpoint(name, &with_results, manifest),
    }
}

fn named_checkpoint(name: &str, with_results: &[usize], manifest: &Manifest) -> Result<usize, String> {
    let name_of = |number: &usize| manifest.checkpoints[*number].name.as_str();
    let found = with_results.iter().copied().find(|number| name_of(number) == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = with_results.iter().map(name_of).collect();
        format!(
            "No checkpoint {name:?} has results about users: expected one of {}.",
            known.join(", ")
        )
    })
}

impl Shown {
    /// Reads the address. Without a checkpoint's name it is the best one, compared with the first.
    ///
    /// # Errors
    /// In words for the page: what it names is not in the report.
    pub fn read(parameters: &Parameters, manifest: &Manifest) -> Result<Self, String> {
        let checkpoint = chosen_checkpoint(parameters.get(parameter::CHECKPOINT), manifest)?;
        let with_results = with_results(manifest);
        let against = match parameters.get(parameter::AGAINST) {
            None => with_results.first().copied().filter(|&first| first != checkpoint),
            Some("") => None,
            Some(name) => Some(named_checkpoint(name, &with_results, manifest)?),
        };
        let (sort, descending) = read_sort(parameters.get(parameter::SORT))?;
        let columns = match parameters.get(parameter::COLUMNS) {
            None => usual_columns(manifest),
            Some(names) => names
                .split(',')
                .filter(|name| !name.is_empty())
                .map(column_named)
                .collect::<Result<_, _>>()?,
        };
        let is_shown = |column: &Column| *column == Column::User || columns.contains(column);
        Ok(Self {
            checkpoint,
            against,
            sort,
            descending,
            columns: Column::ALL.into_iter().filter(is_shown).collect(),
        })
    }

    /// The value of the parameter [`SORT`](parameter::SORT) after a click on a column's heading: ascending at first, then the
    /// other way round.
    pub fn sort_after_click(&self, column: Column) -> String {
        grid::sort_after_click(self.sort.name(), self.descending, column.name())
    }

    /// The value of [`COLUMNS`](parameter::COLUMNS) with a column in or out.
    pub fn columns_with(&self, column: Column, is_shown: bool) -> String {
        let others = Column::ALL.into_iter().filter(|&other| match other == column {
            true => is_shown,
            false => self.columns.contains(&other),
        });
        let names: Vec<&str> = others
            .filter(|&other| other != Column::User)
            .map(Column::name)
            .collect();
        names.join(",")
    }
}

fn usual_columns(manifest: &Manifest) -> Vec<Column> {
    let has_few_items = manifest.catalogue.is_some() || manifest.items.files.len() <= FEW_ITEM_FILES;
    let is_usual = |column: &Column| *column != Column::Popularity || has_few_items;
    Column::ALL.into_iter().filter(is_usual).collect()
}

fn read_sort(value: Option<&str>) -> Result<(Column, bool), String> {
    let (name, descending) = grid::read_sort(value.unwrap_or(Column::User.name()));
    Ok((column_named(name)?, descending))
}

fn column_named(name: &str) -> Result<Column, String> {
    Column::named(name).ok_or_else(|| {
        let known: Vec<&str> = Column::ALL.into_iter().map(Column::name).collect();
        format!(
            "The table has no column {name:?}: expected one of {}.",
            known.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::report::{Checkpoint, Chunks};

    use super::*;

    fn manifest() -> Manifest {
        let checkpoint = |name: &str, has_results: bool| Checkpoint {
            name: name.into(),
            results: has_results.then(|| Chunks::in_files("results", 4, 2)),
            ..Checkpoint::default()
        };
        Manifest {
            checkpoints: vec![
                checkpoint("start", true),
                checkpoint("middle", false),
                checkpoint("update 9", true),
            ],
            ..Manifest::default()
        }
    }

    fn read(query: &str) -> Result<Shown, String> {
        Shown::read(&Parameters::parse(query), &manifest())
    }

    #[test]
    fn the_best_or_last_checkpoint_is_compared_with_the_first_unless_told() {
        let shown = read("").unwrap();
        assert_eq!((shown.checkpoint, shown.against), (2, Some(0)));
        let shown = read("checkpoint=start").unwrap();
        assert_eq!((shown.checkpoint, shown.against), (0, None));
        let shown = read("checkpoint=start&against=update%209").unwrap();
        assert_eq!((shown.checkpoint, shown.against), (0, Some(2)));
        assert_eq!(read("against=").unwrap().against, None);
    }

    #[test]
    fn a_checkpoint_without_results_is_a_problem_that_names_those_with() {
        let problem = "No checkpoint \"middle\" has results about users: expected one of start, update 9.";
        assert_eq!(read("checkpoint=middle").unwrap_err(), problem);
        assert_eq!(read("against=middle").unwrap_err(), problem);
        let mut bare = manifest();
        bare.checkpoints
            .iter_mut()
            .for_each(|checkpoint| checkpoint.results = None);
        assert!(
            Shown::read(&Parameters::default(), &bare)
                .unwrap_err()
                .contains("only the metrics")
        );
        bare.checkpoints.clear();
        assert!(
            Shown::read(&Parameters::default(), &bare)
                .unwrap_err()
                .contains("no checkpoint yet")
        );
    }

    #[test]
    fn a_click_sorts_ascending_and_a_second_one_the_other_way() {
        let clicked = |query: &str, column| read(query).unwrap().sort_after_click(column);
        assert_eq!(clicked("", Column::Rank), "rank");
        assert_eq!(clicked("sort=rank", Column::Rank), "-rank");
        assert_eq!(clicked("sort=-rank", Column::Rank), "rank");
        assert_eq!(clicked("sort=-rank", Column::Delta), "delta");
        let shown = read("sort=-rank").unwrap();
        assert_eq!(
            (
                shown.sort_after_click(Column::Rank),
                shown.sort_after_click(Column::User)
            ),
            ("rank".to_owned(), "user".to_owned())
        );
        assert!(
            read("sort=name")
                .unwrap_err()
                .starts_with("The table has no column \"name\"")
        );
    }

    #[test]
    fn columns_keep_their_order_and_the_user_stays() {
        assert_eq!(read("").unwrap().columns, Column::ALL);
        let shown = read("columns=delta,rank").unwrap();
        assert_eq!(shown.columns, [Column::User, Column::Rank, Column::Delta]);
        assert_eq!(shown.columns_with(Column::Popularity, true), "rank,delta,popularity");
        assert_eq!(shown.columns_with(Column::Rank, false), "delta");
        assert_eq!(read("columns=").unwrap().columns, [Column::User]);
    }

    #[test]
    fn popularity_of_a_large_catalogue_is_shown_when_asked_for() {
        let mut manifest = manifest();
        manifest.items = Chunks::in_files("items", 21, 1);
        let has = |query: &str| {
            let shown = Shown::read(&Parameters::parse(query), &manifest).unwrap();
            shown.columns.contains(&Column::Popularity)
        };
        assert!(!has("") && has("columns=popularity"));
        let catalogue = Some("catalogue.json".into());
        let told = Shown::read(
            &Parameters::default(),
            &Manifest {
                catalogue,
                ..manifest.clone()
            },
        )
        .unwrap();
        assert!(told.columns.contains(&Column::Popularity), "one file tells it");
    }
}
