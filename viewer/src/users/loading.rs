//! Which files of a report the users' table still needs, and what it has of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use eval_core::report::{Catalogue, Manifest, ResultChunk, UserChunk};

use crate::reading::{AT_ONCE, Progress};
use crate::table::UsersTable;

/// A file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Job {
    /// A file of users.
    Users(usize),
    /// A file of a checkpoint's results.
    Results {
        /// The checkpoint's number.
        checkpoint: usize,
        /// The file's number.
        file: usize,
    },
    /// A file of results that are compared with.
    OtherResults {
        /// The checkpoint's number.
        checkpoint: usize,
        /// The file's number.
        file: usize,
    },
    /// A file of items, for the targets' popularity.
    Items(usize),
    /// What the report says of all items, for the same.
    Catalogue,
}

/// What the table is to show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The checkpoint's number.
    pub checkpoint: usize,
    /// The number of the checkpoint that it is compared with.
    pub against: Option<usize>,
    /// Whether the targets' popularity is needed.
    pub popularity: bool,
}

/// The table with the state of its files.
#[derive(Clone, Debug)]
pub struct Loading {
    table: UsersTable,
    wanted: Wanted,
    /// Numbers of files: of users, and of each checkpoint's results.
    user_files: usize,
    result_files: Vec<usize>,
    /// Items in a file.
    items_per_file: usize,
    /// Whether one file tells of all items.
    has_catalogue: bool,
    /// The files with targets, once all users are known.
    target_files: Option<Vec<usize>>,
    begun: BTreeSet<Job>,
    done: BTreeSet<Job>,
    failed: BTreeSet<Job>,
    problem: Option<String>,
}

impl Loading {
    /// Nothing is loaded yet.
    pub fn new(manifest: &Manifest, wanted: Wanted) -> Self {
        let results = |results: Option<&eval_core::report::Chunks>| results.map_or(0, |chunks| chunks.files.len());
        let checkpoints = manifest.checkpoints.iter();
        let table = UsersTable::new(manifest.users.count);
        Self {
            table: match manifest.redacted {
                true => table.without_histories(),
                false => table,
            },
            wanted,
            user_files: manifest.users.files.len(),
            result_files: checkpoints
                .map(|checkpoint| results(checkpoint.results.as_ref()))
                .collect(),
            items_per_file: manifest.items.per_file.max(1),
            has_catalogue: manifest.catalogue.is_some(),
            target_files: None,
            begun: BTreeSet::new(),
            done: BTreeSet::new(),
            failed: BTreeSet::new(),
            problem: None,
        }
    }

    /// The table, as far as it is known.
    pub fn table(&self) -> &UsersTable {
        &self.table
    }

    /// Shows something else from now on. What is no longer shown is forgotten.
    pub fn want(&mut self, wanted: Wanted) {
        if wanted.checkpoint != self.wanted.checkpoint {
            self.table.clear_results();
        }
        if wanted.against != self.wanted.against {
            self.table.clear_other_results();
        }
        self.wanted = wanted;
        let is_kept = |job: &Job| match *job {
            Job::Users(_) | Job::Items(_) | Job::Catalogue => true,
            Job::Results { checkpoint, .. } => checkpoint == wanted.checkpoint,
            Job::OtherResults { checkpoint, .. } => Some(checkpoint) == wanted.against,
        };
        for jobs in [&mut self.begun, &mut self.done, &mut self.failed] {
            jobs.retain(is_kept);
        }
        if self.failed.is_empty() {
            self.problem = None;
        }
    }

    /// The files to ask for now; from here on they count as asked for.
    pub fn next_jobs(&mut self) -> Vec<Job> {
        let under_way = self.begun.len() - self.done.len() - self.failed.len();
        let jobs: Vec<Job> = self
            .needed()
            .into_iter()
            .filter(|job| !self.begun.contains(job))
            .take(AT_ONCE.saturating_sub(under_way))
            .collect();
        self.begun.extend(&jobs);
        jobs
    }

    /// Asks again for what could not be read.
    pub fn retry(&mut self) {
        for job in std::mem::take(&mut self.failed) {
            self.begun.remove(&job);
        }
        self.problem = None;
    }

    /// Takes a file of users.
    pub fn take_users(&mut self, file: usize, chunk: &UserChunk) {
        self.take(Job::Users(file), |table| table.add_users(chunk));
        if (0..self.user_files).all(|file| self.done.contains(&Job::Users(file))) {
            let items = self.table.target_items();
            let mut files: Vec<usize> = items.iter().map(|&item| item as usize / self.items_per_file).collect();
            files.dedup();
            self.target_files = Some(files);
        }
    }

    /// Takes a file of results, be they shown or compared with.
    pub fn take_results(&mut self, job: Job, chunk: &ResultChunk) {
        self.take(job, |table| match job {
            Job::OtherResults { .. } => table.add_other_results(chunk),
            _ => table.add_results(chunk),
        });
    }

    /// Takes a file of items.
    pub fn take_items(&mut self, file: usize, chunk: &eval_core::report::ItemChunk) {
        self.take(Job::Items(file), |table| table.add_items(chunk));
    }

    /// Takes what the report says of all items.
    pub fn take_catalogue(&mut self, catalogue: &Arc<Catalogue>) {
        self.take(Job::Catalogue, |table| table.add_catalogue(catalogue.clone()));
    }

    /// A file could not be read.
    pub fn fail(&mut self, job: Job, problem: String) {
        if self.is_awaited(job) {
            self.failed.insert(job);
            self.problem.get_or_insert(problem);
        }
    }

    /// How far it is.
    pub fn progress(&self) -> Progress {
        let needed = self.needed();
        let among = |jobs: &BTreeSet<Job>| needed.iter().filter(|job| jobs.contains(job)).count();
        Progress {
            done: among(&self.done),
            needed: needed.len(),
            failed: among(&self.failed),
            problem: self.problem.clone(),
        }
    }

    /// A file that comes after it is no longer wanted, or a second time, is not taken.
    fn take(&mut self, job: Job, add: impl FnOnce(&mut UsersTable)) {
        if self.is_awaited(job) {
            add(&mut self.table);
            self.done.insert(job);
        }
    }

    fn is_awaited(&self, job: Job) -> bool {
        self.begun.contains(&job) && !self.done.contains(&job) && !self.failed.contains(&job)
    }

    /// Every file that is needed, in the order in which rows fill from the top. Which items are needed shows when all users are
    /// known.
    fn needed(&self) -> Vec<Job> {
        let Wanted {
            checkpoint,
            against,
            popularity,
        } = self.wanted;
        let files_of = |checkpoint: usize| self.result_files.get(checkpoint).copied().unwrap_or(0);
        let other_files = against.map_or(0, files_of);
        let files = self.user_files.max(files_of(checkpoint)).max(other_files);
        let mut needed = Vec::with_capacity(3 * files);
        for file in 0..files {
            if file < self.user_files {
                needed.push(Job::Users(file));
            }
            if file < files_of(checkpoint) {
                needed.push(Job::Results { checkpoint, file });
            }
            if let Some(checkpoint) = against.filter(|_| file < other_files) {
                needed.push(Job::OtherResults { checkpoint, file });
            }
        }
        if popularity && self.has_catalogue {
            needed.push(Job::Catalogue);
        } else if let Some(files) = self.target_files.as_ref().filter(|_| popularity) {
            needed.extend(files.iter().copied().map(Job::Items));
        }
        needed
    }
}

#[cfg(test)]
mod tests {
    use eval_core::report::{Checkpoint, Chunks, Found, Item, ItemChunk, User, UserResult};
    use eval_core::scores::RankedTarget;

    use super::*;
    use crate::table::Column;

    /// Four users in two files, two checkpoints, six items in three files.
    fn manifest() -> Manifest {
        let checkpoint = Checkpoint {
            results: Some(Chunks::in_files("results", 4, 2)),
            ..Checkpoint::default()
        };
        Manifest {
            users: Chunks::in_files("users", 4, 2),
            items: Chunks::in_files("items", 6, 2),
            checkpoints: vec![checkpoint.clone(), checkpoint],
            ..Manifest::default()
        }
    }

    fn wanted(checkpoint: usize, against: Option<usize>, popularity: bool) -> Wanted {
        Wanted {
            checkpoint,
            against,
            popularity,
        }
    }

    fn users(first: usize) -> UserChunk {
        let user = User {
            targets: vec![5],
            ..User::default()
        };
        UserChunk {
            first,
            users: vec![user; 2],
        }
    }

    fn results(first: usize, rank: u32) -> ResultChunk {
        let found = Found {
            targets: vec![RankedTarget::from_counts(5, rank - 1, 0, 0)],
            ..Found::default()
        };
        let result = UserResult {
            generated: vec![found],
            reference: None,
        };
        ResultChunk {
            first,
            results: vec![result; 2],
        }
    }

    const fn result_file(checkpoint: usize, file: usize) -> Job {
        Job::Results { checkpoint, file }
    }

    #[test]
    fn files_are_asked_for_from_the_top_and_each_once() {
        let mut loading = Loading::new(&manifest(), wanted(1, Some(0), false));
        let other = |file| Job::OtherResults { checkpoint: 0, file };
        let expected = [
            Job::Users(0),
            result_file(1, 0),
            other(0),
            Job::Users(1),
            result_file(1, 1),
            other(1),
        ];
        assert_eq!(loading.next_jobs(), expected);
        assert_eq!(loading.next_jobs(), [], "all are under way");
        assert_eq!((loading.progress().done, loading.progress().needed), (0, 6));
    }

    #[test]
    fn items_are_asked_for_once_the_targets_are_known() {
        let mut loading = Loading::new(&manifest(), wanted(1, None, true));
        assert_eq!(loading.next_jobs().len(), 4);
        loading.take_users(0, &users(0));
        assert_eq!(loading.next_jobs(), []);
        loading.take_users(1, &users(2));
        assert_eq!(loading.next_jobs(), [Job::Items(2)]);
        let item = Item {
            train_interactions: 8,
            ..Item::default()
        };
        loading.take_items(
            2,
            &ItemChunk {
                first: 4,
                items: vec![item; 2],
            },
        );
        assert_eq!(loading.table().column(Column::Popularity), [Some(8.0); 4]);
    }

    #[test]
    fn another_checkpoint_forgets_the_results_and_keeps_the_users() {
        let mut loading = Loading::new(&manifest(), wanted(1, None, false));
        loading.next_jobs();
        loading.take_users(0, &users(0));
        loading.take_results(result_file(1, 0), &results(0, 3));
        assert_eq!(loading.table().value(Column::Rank, 1), Some(3.0));

        loading.want(wanted(0, Some(1), false));
        assert_eq!(loading.table().value(Column::Rank, 1), None);
        loading.take_results(result_file(1, 1), &results(2, 3));
        assert_eq!(loading.table().value(Column::Rank, 3), None, "it comes too late");
        let next = loading.next_jobs();
        assert!(
            next.contains(&result_file(0, 0)) && !next.contains(&Job::Users(0)),
            "{next:?}"
        );
        loading.take_results(result_file(0, 0), &results(0, 10));
        loading.take_results(Job::OtherResults { checkpoint: 1, file: 0 }, &results(0, 12));
        assert_eq!(loading.table().value(Column::Delta, 0), Some(-2.0));
        loading.want(wanted(0, None, false));
        assert_eq!(loading.table().value(Column::Delta, 0), None);
    }

    #[test]
    fn a_report_that_tells_of_all_items_in_one_file_is_asked_for_that() {
        let manifest = Manifest {
            catalogue: Some("catalogue.json".into()),
            ..manifest()
        };
        let mut loading = Loading::new(&manifest, wanted(1, None, true));
        let jobs = loading.next_jobs();
        assert_eq!((jobs.len(), jobs.last()), (5, Some(&Job::Catalogue)));
        loading.take_users(0, &users(0));
        loading.take_catalogue(&Arc::new(Catalogue {
            titles: vec![String::new(); 6],
            train_interactions: vec![0, 0, 0, 0, 0, 7],
        }));
        loading.take_users(1, &users(2));
        assert_eq!(loading.next_jobs(), []);
        for user in [0, 3] {
            assert_eq!(
                loading.table().value(Column::Popularity, user),
                Some(7.0),
                "whichever comes first"
            );
        }
    }

    #[test]
    fn what_could_not_be_read_is_told_and_asked_for_again() {
        let mut loading = Loading::new(&manifest(), wanted(0, None, false));
        loading.next_jobs();
        loading.fail(Job::Users(0), "users-0.json is missing".into());
        loading.fail(Job::Users(1), "users-1.json is missing".into());
        loading.take_results(result_file(0, 0), &results(0, 1));
        assert!(!loading.progress().is_over());
        loading.take_results(result_file(0, 1), &results(2, 1));
        let progress = loading.progress();
        assert!(progress.is_over());
        assert_eq!((progress.done, progress.failed, progress.needed), (2, 2, 4));
        assert_eq!(progress.problem.as_deref(), Some("users-0.json is missing"));
        loading.retry();
        assert_eq!(loading.next_jobs(), [Job::Users(0), Job::Users(1)]);
        assert_eq!(loading.progress().problem, None);
    }

    #[test]
    fn a_redacted_report_tells_no_length_of_histories() {
        for (redacted, length) in [(false, Some(0.0)), (true, None)] {
            let manifest = Manifest { redacted, ..manifest() };
            let mut loading = Loading::new(&manifest, wanted(0, None, false));
            loading.next_jobs();
            loading.take_users(0, &users(0));
            assert_eq!(loading.table().value(Column::HistoryLength, 0), length);
        }
    }

    #[test]
    fn a_report_without_users_needs_nothing() {
        let mut loading = Loading::new(&Manifest::default(), wanted(0, None, true));
        assert_eq!(loading.next_jobs(), []);
        assert!(loading.progress().is_over());
    }
}
