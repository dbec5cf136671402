//! What two checkpoints found for the same users.

use std::collections::BTreeMap;

use eval_core::TargetRanks;
use eval_core::metrics::{Metric, MetricTable};
use eval_core::report::{ResultChunk, UserChunk};

use crate::order::sorted;
use crate::table::mean_rank;

/// What a checkpoint found, user by user, as far as its files are there.
#[derive(Clone, Debug, Default)]
pub struct Side {
    /// The ranks of the targets for each profile.
    rankings: Vec<Option<Vec<TargetRanks>>>,
    /// The rank of the best-ranked target, mean over the profiles.
    ranks: Vec<Option<f64>>,
    ids: Vec<String>,
}

impl Side {
    /// Nothing is known of so many users.
    pub fn new(users: usize) -> Self {
        Self {
            rankings: vec![None; users],
            ranks: vec![None; users],
            ids: vec![String::new(); users],
        }
    }

    /// Adds a file of results.
    pub fn add(&mut self, chunk: &ResultChunk) {
        for (place, result) in (chunk.first..self.ranks.len()).zip(&chunk.results) {
            let rankings = result
                .generated
                .iter()
                .map(|found| TargetRanks::from_ranked(&found.targets).ok());
            self.rankings[place] = rankings.collect();
            self.ranks[place] = mean_rank(result);
        }
    }

    /// Adds a file of users, for their ids.
    pub fn add_users(&mut self, chunk: &UserChunk) {
        for (place, user) in (chunk.first..self.ids.len()).zip(&chunk.users) {
            self.ids[place].clone_from(&user.id);
        }
    }
}

/// Which users of two reports are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Matched {
    /// Numbers of a user in the first and in the second report, by ascending first.
    pub pairs: Vec<(u32, u32)>,
    /// Users that only the first report has.
    pub only_first: usize,
    /// Users that only the second report has.
    pub only_second: usize,
}

impl Matched {
    /// All users of one report.
    pub fn same(users: usize) -> Self {
        Self {
            pairs: (0..users as u32).map(|user| (user, user)).collect(),
            ..Self::default()
        }
    }

    /// Users of equal ids. An id that is not known is equal to none; of equal ids in one report the last counts.
    pub fn by_id(first: &Side, second: &Side) -> Self {
        let known = |ids: &'_ [String]| -> BTreeMap<String, u32> {
            let mut known = BTreeMap::new();
            for (user, id) in (0..).zip(ids).filter(|(_, id)| !id.is_empty()) {
                known.insert(id.clone(), user);
            }
            known
        };
        let (ours, theirs) = (known(&first.ids), known(&second.ids));
        let pairs = ours.iter().filter_map(|(id, user)| Some((*user, *theirs.get(id)?)));
        let mut pairs: Vec<(u32, u32)> = pairs.collect();
        pairs.sort_unstable();
        Self {
            only_first: first.ids.len().saturating_sub(pairs.len()),
            only_second: second.ids.len().saturating_sub(pairs.len()),
            pairs,
        }
    }
}

/// A user at both checkpoints.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Paired {
    /// The number in the first report.
    pub user: u32,
    /// The number in the second.
    pub other: u32,
    /// The rank at the first checkpoint.
    pub before: f64,
    /// The rank at the second.
    pub after: f64,
}

impl Paired {
    /// Above 0 where the second is better: nearer to the first place.
    pub fn gain(&self) -> f64 {
        self.before - self.after
    }
}

/// Both checkpoints, user by user.
#[derive(Clone, Debug, Default)]
pub struct Compared {
    /// The users of whom both are known and who have a target.
    pub users: Vec<Paired>,
    /// For each metric the users' values at the first and the second checkpoint, in the order of `users`.
    pub metrics: Vec<(Metric, Vec<f64>, Vec<f64>)>,
    /// Users that both reports have and of whom something is not known, or who have no target.
    pub left_out: usize,
}

impl Compared {
    /// Compares the users that are in both.
    pub fn new(first: &Side, second: &Side, matched: &Matched, metrics: &[Metric]) -> Self {
        let [mut ours, mut theirs] = [(); 2].map(|()| MetricTable::new(metrics.to_vec()));
        let mut compared = Self::default();
        for &(user, other) in &matched.pairs {
            let of = |side: &Side, user: u32| {
                let rankings = side.rankings.get(user as usize)?.clone()?;
                let has_target = !rankings.is_empty() && rankings.iter().all(|ranks| !ranks.is_empty());
                has_target.then_some(())?;
                Some((rankings, side.ranks.get(user as usize).copied()??))
            };
            let (Some((before, rank_before)), Some((after, rank_after))) = (of(first, user), of(second, other)) else {
                compared.left_out += 1;
                continue;
            };
            ours.push_mean(&before);
            theirs.push_mean(&after);
            compared.users.push(Paired {
                user,
                other,
                before: rank_before,
                after: rank_after,
            });
        }
        let column = |table: &MetricTable, metric| table.column(metric).unwrap_or_default().to_vec();
        compared.metrics = metrics
            .iter()
            .map(|&metric| (metric, column(&ours, metric), column(&theirs, metric)))
            .collect();
        compared
    }

    /// How many users have a better, an equal and a worse rank at the second checkpoint.
    pub fn wins_ties_losses(&self) -> [usize; 3] {
        let count = |is_meant: fn(f64) -> bool| self.users.iter().filter(|user| is_meant(user.gain())).count();
        [
            count(|gain| gain > 0.0),
            count(|gain| gain == 0.0),
            count(|gain| gain < 0.0),
        ]
    }

    /// The users whose ranks moved most, at most so many: upwards, or downwards. Of equal ones the first comes first.
    pub fn moved_most(&self, upwards: bool, count: usize) -> Vec<Paired> {
        let sign = if upwards { 1.0 } else { -1.0 };
        let moved = self.users.iter().copied().filter(|user| sign * user.gain() > 0.0);
        let moved: Vec<Paired> = moved.collect();
        let mut moved = sorted(&moved, |a, b| {
            (sign * b.gain())
                .total_cmp(&(sign * a.gain()))
                .then(a.user.cmp(&b.user))
        });
        moved.truncate(count);
        moved
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use eval_core::report::{Found, User, UserResult};
    use eval_core::scores::RankedTarget;

    use super::*;

    fn side(ranks: &[&[u32]], ids: &[&str]) -> Side {
        let found = |rank: u32| Found {
            targets: vec![RankedTarget::from_counts(5, rank - 1, 0, 0)],
            ..Found::default()
        };
        let result = |ranks: &&[u32]| UserResult {
            generated: ranks.iter().map(|&rank| found(rank)).collect(),
            reference: None,
        };
        let mut side = Side::new(ids.len());
        side.add(&ResultChunk {
            first: 0,
            results: ranks.iter().map(result).collect(),
        });
        let user = |id: &&str| User {
            id: (*id).to_owned(),
            ..User::default()
        };
        side.add_users(&UserChunk {
            first: 0,
            users: ids.iter().map(user).collect(),
        });
        side
    }

    #[test]
    fn ranks_and_metrics_are_means_over_the_profiles() {
        let (first, second) = (side(&[&[1, 3], &[8]], &["a", "b"]), side(&[&[2, 2], &[4]], &["a", "b"]));
        let metric: Metric = "mrr_first@5".parse().unwrap();
        let compared = Compared::new(&first, &second, &Matched::same(2), &[metric]);
        assert_eq!(compared.wins_ties_losses(), [1, 1, 0]);
        let (_, before, after) = &compared.metrics[0];
        assert_eq!((before, after), (&vec![(1.0 + 1.0 / 3.0) / 2.0, 0.0], &vec![0.5, 0.25]));
        assert_eq!(compared.moved_most(true, 5).len(), 1);
        assert_eq!(compared.moved_most(false, 5), []);
    }

    #[test]
    fn users_of_two_reports_are_the_same_by_their_ids() {
        let (first, second) = (side(&[], &["a", "b", "c"]), side(&[], &["c", "x", "a", ""]));
        let matched = Matched::by_id(&first, &second);
        assert_eq!(matched.pairs, [(0, 2), (2, 0)]);
        assert_eq!((matched.only_first, matched.only_second), (1, 2));
    }

    #[test]
    fn a_user_without_target_or_file_is_left_out_on_both_sides() {
        let (first, second) = (
            side(&[&[3], &[2]], &["a", "b", "c"]),
            side(&[&[3], &[]], &["a", "b", "c"]),
        );
        let compared = Compared::new(&first, &second, &Matched::same(3), &[]);
        assert_eq!((compared.users.len(), compared.left_out), (1, 2));
    }

    #[test]
    fn those_who_moved_most_come_first() {
        let ranks: [&[u32]; 4] = [&[10], &[10], &[10], &[10]];
        let later: [&[u32]; 4] = [&[9], &[1], &[40], &[1]];
        let ids = ["a", "b", "c", "d"];
        let compared = Compared::new(&side(&ranks, &ids), &side(&later, &ids), &Matched::same(4), &[]);
        let users = |upwards, count| -> Vec<u32> {
            compared
                .moved_most(upwards, count)
                .iter()
                .map(|moved| moved.user)
                .collect()
        };
        assert_eq!((users(true, 2), users(false, 2)), (vec![1, 3], vec![2]));
    }
}
