//! Files that are read for a page, several at a time, and how far that is.

use std::future::Future;
use std::pin::Pin;

use leptos::task::spawn_local;

use crate::load::LoadError;
use crate::state::{LocalValue, RwSignal, StoredValue};

/// Files that are asked for at the same time.
pub const AT_ONCE: usize = 6;

/// So many files are read without being asked for.
pub const READ_UNASKED: usize = 20;

/// How far it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Files that are there.
    pub done: usize,
    /// Files that are needed.
    pub needed: usize,
    /// Files that could not be read.
    pub failed: usize,
    /// What was the matter with the first of them.
    pub problem: Option<String>,
}

impl Progress {
    /// Whether nothing more is to come.
    pub fn is_over(&self) -> bool {
        self.done + self.failed >= self.needed
    }
}

/// The reading of one file, by its number.
pub type Read = Pin<Box<dyn Future<Output = Result<(), LoadError>>>>;

/// Which of several files are still to be read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Queue {
    waiting: Vec<usize>,
    failed: Vec<usize>,
    progress: Progress,
}

impl Queue {
    fn new(needed: usize) -> Self {
        Self {
            // The next one stands last.
            waiting: (0..needed).rev().collect(),
            failed: Vec::new(),
            progress: Progress {
                needed,
                ..Progress::default()
            },
        }
    }

    fn take(&mut self, file: usize, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.progress.done += 1,
            Err(problem) => {
                self.failed.push(file);
                self.progress.failed += 1;
                self.progress.problem.get_or_insert(problem);
            }
        }
    }

    fn retry(&mut self) {
        self.waiting.append(&mut self.failed);
        self.progress.failed = 0;
        self.progress.problem = None;
    }
}

/// Files that are read once they are asked for.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    queue: StoredValue<Queue>,
    read: LocalValue<Box<dyn Fn(usize) -> Read>>,
    /// How far it is.
    pub progress: RwSignal<Progress>,
    /// Whether the files were asked for.
    pub asked: RwSignal<bool>,
}

impl Reading {
    /// `needed` files, each read by a call of `read` with its number. Few of them are asked for at once.
    pub fn new(needed: usize, read: Box<dyn Fn(usize) -> Read>) -> Self {
        let queue = Queue::new(needed);
        let reading = Self {
            progress: RwSignal::new(queue.progress.clone()),
            queue: StoredValue::new(queue),
            read: LocalValue::new(read),
            asked: RwSignal::new(false),
        };
        if needed <= READ_UNASKED {
            reading.start();
        }
        reading
    }

    /// Asks for the files.
    pub fn start(self) {
        if !self.asked.get_untracked() {
            self.asked.set(true);
            self.go_on();
        }
    }

    /// Asks again for what could not be read.
    pub fn retry(self) {
        self.queue.update_value(Queue::retry);
        self.go_on();
    }

    /// When the page is gone, so is what is stored, and nothing more is asked for.
    fn go_on(self) {
        if let Some(progress) = self.queue.try_with_value(|queue| queue.progress.clone()) {
            self.progress.try_set(progress);
        }
        for _ in 0..AT_ONCE {
            spawn_local(async move {
                while let Some(Some(file)) = self.queue.try_update_value(|queue| queue.waiting.pop()) {
                    let Some(reading) = self.read.try_with_value(|read| read(file)) else {
                        return;
                    };
                    let outcome = reading.await.map_err(|error| error.to_string());
                    let progress = self.queue.try_update_value(|queue| {
                        queue.take(file, outcome);
                        queue.progress.clone()
                    });
                    if let Some(progress) = progress {
                        self.progress.try_set(progress);
                    }
                }
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_counted_named_once_and_read_again() {
        let mut queue = Queue::new(3);
        assert_eq!(queue.waiting.pop(), Some(0), "the first file comes first");
        queue.take(0, Ok(()));
        for file in [1, 2] {
            queue.waiting.pop();
            queue.take(file, Err(format!("file {file} is missing")));
        }
        assert!(queue.progress.is_over());
        assert_eq!(queue.progress.problem.as_deref(), Some("file 1 is missing"));
        queue.retry();
        assert_eq!((queue.waiting.as_slice(), queue.progress.done), (&[1, 2][..], 1));
        assert!(!queue.progress.is_over() && queue.progress.problem.is_none());
        assert!(Queue::new(0).progress.is_over());
    }
}
