//! The table of users: a column for each number that is known of a user, and the order of its rows.
//!
//! Numbers lie column by column, and a sort moves row numbers only, so that tens of thousands of users sort at once. A
//! number that is not known yet, or that a user does not have, is `None`; nothing is ever NaN.

use std::collections::BTreeMap;
use std::sync::Arc;

use eval_core::TargetRanks;
use eval_core::metrics::mrr_first;
use eval_core::report::{Catalogue, Found, ItemChunk, ResultChunk, UserChunk, UserResult};

use crate::export::{Cell, Sheet};
use crate::grid::sorted;

/// A column of numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Column {
    /// The user's number in the report.
    User,
    /// The rank of the user's best-ranked target, counted from 1: the mean over the user's profiles.
    Rank,
    /// The reciprocal of that rank, `mrr_first` over the whole catalogue: the mean over the user's profiles.
    ReciprocalRank,
    /// The rank less the one at the checkpoint that it is compared with: below 0 where it got better.
    Delta,
    /// Words of a profile, between white space: the mean over the user's profiles.
    ProfileLength,
    /// Items in the history.
    HistoryLength,
    /// Interactions of the train split with the target: the mean over the user's targets.
    Popularity,
}

impl Column {
    /// Every column, in the order in which they are shown.
    pub const ALL: [Self; 7] = [
        Self::User,
        Self::Rank,
        Self::ReciprocalRank,
        Self::Delta,
        Self::ProfileLength,
        Self::HistoryLength,
        Self::Popularity,
    ];

    /// The name in filters, addresses and exports.
    pub fn name(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Rank => "rank",
            Self::ReciprocalRank => "reciprocal_rank",
            Self::Delta => "delta",
            Self::ProfileLength => "profile_length",
            Self::HistoryLength => "history_length",
            Self::Popularity => "popularity",
        }
    }

    /// The column with a name, whatever the case of its letters.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|column| column.name().eq_ignore_ascii_case(name))
    }

    /// What stands above it.
    pub fn heading(self) -> &'static str {
        match self {
            Self::User => "User",
            Self::Rank => "Target rank",
            Self::ReciprocalRank => "Reciprocal rank",
            Self::Delta => "Change of rank",
            Self::ProfileLength => "Profile, words",
            Self::HistoryLength => "History, items",
            Self::Popularity => "Target popularity",
        }
    }

    /// What it means, for a tip.
    pub fn explanation(self) -> &'static str {
        match self {
            Self::User => "Number and id in the report",
            Self::Rank => "Rank of the best-ranked target, mean over the user's profiles",
            Self::ReciprocalRank => "1 / rank of the best-ranked target, mean over the user's profiles",
            Self::Delta => "Rank less the rank at the other checkpoint: below 0 is better",
            Self::ProfileLength => "Words between white space, mean over the user's profiles",
            Self::HistoryLength => "Items in the history",
            Self::Popularity => "Interactions with the target in the train split, mean over the user's targets",
        }
    }

    /// A number of this column as it is shown; a dash for none.
    pub fn shown(self, value: Option<f64>) -> String {
        let Some(value) = value else {
            return "–".to_owned();
        };
        let whole = value.fract() == 0.0;
        match self {
            Self::ReciprocalRank => format!("{value:.4}"),
            Self::Delta if value == 0.0 => "0".to_owned(),
            Self::Delta if whole => format!("{value:+}"),
            Self::Delta => format!("{value:+.1}"),
            _ if whole => value.to_string(),
            _ => format!("{value:.1}"),
        }
    }
}

/// The users of a report at a checkpoint. Files are added as they arrive, in any order.
#[derive(Clone, Debug, Default)]
pub struct UsersTable {
    ids: Vec<String>,
    targets: Vec<Vec<u32>>,
    /// In the order of [`Column::ALL`].
    columns: [Vec<Option<f64>>; Column::ALL.len()],
    /// Ranks at the checkpoint that is compared with.
    other_ranks: Vec<Option<f64>>,
    /// Interactions with the targets whose items are known.
    interactions: BTreeMap<u32, u64>,
    /// The same of all items, where the report has that in a file.
    catalogue: Option<Arc<Catalogue>>,
    /// Whether the report leaves histories out, so that their lengths say nothing.
    lacks_histories: bool,
}

impl UsersTable {
    /// A table of `users` users of whom nothing is known yet.
    pub fn new(users: usize) -> Self {
        let mut table = Self {
            ids: vec![String::new(); users],
            targets: vec![Vec::new(); users],
            columns: std::array::from_fn(|_| vec![None; users]),
            other_ranks: vec![None; users],
            interactions: BTreeMap::new(),
            catalogue: None,
            lacks_histories: false,
        };
        table.columns[Column::User as usize] = (0..users).map(|user| Some(user as f64)).collect();
        table
    }

    /// The table of a report that leaves histories out.
    pub fn without_histories(mut self) -> Self {
        self.lacks_histories = true;
        self
    }

    /// Number of users.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is no user.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// A user's id; empty as long as it is not known.
    pub fn id(&self, user: u32) -> &str {
        self.ids.get(user as usize).map_or("", String::as_str)
    }

    /// A column, one value a user.
    pub fn column(&self, column: Column) -> &[Option<f64>] {
        &self.columns[column as usize]
    }

    /// A user's number in a column.
    pub fn value(&self, column: Column, user: u32) -> Option<f64> {
        self.column(column).get(user as usize).copied().flatten()
    }

    /// The targets of all users that are known, ascending.
    pub fn target_items(&self) -> Vec<u32> {
        let mut items: Vec<u32> = self.targets.iter().flatten().copied().collect();
        items.sort_unstable();
        items.dedup();
        items
    }

    /// Adds a file of users. Users beyond the table are left out.
    pub fn add_users(&mut self, chunk: &UserChunk) {
        for (place, user) in (chunk.first..self.len()).zip(&chunk.users) {
            self.ids[place].clone_from(&user.id);
            self.targets[place].clone_from(&user.targets);
            let length = (!self.lacks_histories).then_some(user.history.len() as f64);
            self.set(Column::HistoryLength, place, length);
            self.set_popularity(place);
        }
    }

    /// Adds a file of the checkpoint's results.
    pub fn add_results(&mut self, chunk: &ResultChunk) {
        for (place, result) in (chunk.first..self.len()).zip(&chunk.results) {
            self.set(Column::Rank, place, mean_rank(result));
            self.set(Column::ReciprocalRank, place, mean_reciprocal_rank(result));
            self.set(Column::ProfileLength, place, mean_length(result));
            self.set_delta(place);
        }
    }

    /// Adds a file of the results that are compared with.
    pub fn add_other_results(&mut self, chunk: &ResultChunk) {
        for (place, result) in (chunk.first..self.len()).zip(&chunk.results) {
            self.other_ranks[place] = mean_rank(result);
            self.set_delta(place);
        }
    }

    /// Forgets the checkpoint's results.
    pub fn clear_results(&mut self) {
        for column in [
            Column::Rank,
            Column::ReciprocalRank,
            Column::ProfileLength,
            Column::Delta,
        ] {
            self.columns[column as usize].fill(None);
        }
    }

    /// Forgets the results that are compared with.
    pub fn clear_other_results(&mut self) {
        self.other_ranks.fill(None);
        self.columns[Column::Delta as usize].fill(None);
    }

    /// Adds a file of items: the popularity of the targets among them.
    pub fn add_items(&mut self, chunk: &ItemChunk) {
        let record = |item: u32| chunk.items.get((item as usize).checked_sub(chunk.first)?);
        for place in 0..self.len() {
            let mut is_target = false;
            for &item in &self.targets[place] {
                if let Some(record) = record(item) {
                    self.interactions.insert(item, record.train_interactions);
                    is_target = true;
                }
            }
            if is_target {
                self.set_popularity(place);
            }
        }
    }

    /// Adds what the report says of all items: the popularity of every target.
    pub fn add_catalogue(&mut self, catalogue: Arc<Catalogue>) {
        self.catalogue = Some(catalogue);
        (0..self.len()).for_each(|place| self.set_popularity(place));
    }

    /// The rows of `users`, sorted by a column. Users with equal numbers come by ascending user, and those without one come
    /// last, whichever the direction.
    pub fn sorted(&self, users: impl IntoIterator<Item = u32>, column: Column, descending: bool) -> Vec<u32> {
        sorted(users, self.column(column), descending)
    }

    /// These rows and columns, to be written to a file; users also have their ids.
    pub fn sheet(&self, rows: &[u32], columns: &[Column]) -> Sheet {
        let cell = |column: Column, user| self.value(column, user).map_or(Cell::Empty, Cell::Number);
        let row = |&user: &u32| {
            let id = Cell::Text(self.id(user).to_owned());
            let numbers = columns.iter().filter(|&&column| column != Column::User);
            let start = [cell(Column::User, user), id];
            start
                .into_iter()
                .chain(numbers.map(|&column| cell(column, user)))
                .collect()
        };
        let numbers = columns.iter().filter(|&&column| column != Column::User);
        let names = [Column::User.name(), "id"]
            .into_iter()
            .chain(numbers.map(|column| column.name()));
        Sheet {
            columns: names.map(str::to_owned).collect(),
            rows: rows.iter().map(row).collect(),
        }
    }

    fn set(&mut self, column: Column, place: usize, value: Option<f64>) {
        self.columns[column as usize][place] = value.filter(|value| value.is_finite());
    }

    fn set_delta(&mut self, place: usize) {
        let rank = self.column(Column::Rank)[place];
        let delta = rank.zip(self.other_ranks[place]).map(|(rank, other)| rank - other);
        self.set(Column::Delta, place, delta);
    }

    /// Known once all of the user's targets are.
    fn set_popularity(&mut self, place: usize) {
        let of_all = |item: u32| self.catalogue.as_ref()?.train_interactions.get(item as usize);
        let counts = self.targets[place]
            .iter()
            .map(|&item| of_all(item).or_else(|| self.interactions.get(&item)));
        let counts: Option<Vec<u64>> = counts.map(Option::<&u64>::copied).collect();
        let popularity = counts.and_then(|counts| mean(counts.into_iter().map(|count| count as f64)));
        self.set(Column::Popularity, place, popularity);
    }
}

/// The rank of the best-ranked target; `None` without a target.
pub fn best_rank(found: &Found) -> Option<u32> {
    found.targets.iter().map(|target| target.rank).min()
}

/// The words of a text, between white space.
pub fn length_in_words(text: &str) -> usize {
    text.split_whitespace().count()
}

/// The rank of the best-ranked target, the mean over the user's profiles; `None` without profiles, or where one has no target.
pub fn mean_rank(result: &UserResult) -> Option<f64> {
    mean_over_all(result, |found| best_rank(found).map(f64::from))
}

fn mean_reciprocal_rank(result: &UserResult) -> Option<f64> {
    mean_over_all(result, |found| {
        mrr_first(&TargetRanks::from_ranked(&found.targets).ok()?, None)
    })
}

fn mean_length(result: &UserResult) -> Option<f64> {
    mean_over_all(result, |found| {
        found.profile.as_deref().map(|text| length_in_words(text) as f64)
    })
}

/// The mean over a user's profiles; `None` without profiles, or where one of them has no value.
fn mean_over_all(result: &UserResult, value: impl Fn(&Found) -> Option<f64>) -> Option<f64> {
    let values: Option<Vec<f64>> = result.generated.iter().map(value).collect();
    mean(values?.into_iter())
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> Option<f64> {
    let count = values.len();
    (count > 0).then(|| values.sum::<f64>() / count as f64)
}

#[cfg(test)]
mod tests;
