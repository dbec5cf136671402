//! The files of both checkpoints.

use super::both::Both;
use super::pairs::Side;
use crate::load::{LoadError, Source};
use crate::reading::{Read, Reading};
use crate::state::StoredValue;

/// Both sides, as far as their files are there.
#[derive(Clone, Copy)]
pub struct Sides {
    /// Of the first checkpoint.
    pub first: StoredValue<Side>,
    /// Of the second.
    pub second: StoredValue<Side>,
}

/// The files of both: results, and users where the reports are two.
pub fn reading(both: &Both, sides: Sides) -> Reading {
    let files = |(source, checkpoint): &(Source, usize)| {
        let results = source.manifest().checkpoints[*checkpoint].results.as_ref();
        results.map_or(0, |results| results.files.len())
    };
    let users = |source: &Source| {
        if both.is_one_run() {
            0
        } else {
            source.manifest().users.files.len()
        }
    };
    let counts = [
        files(&both.first),
        files(&both.second),
        users(&both.first.0),
        users(&both.second.0),
    ];
    let (first, second) = (both.first.clone(), both.second.clone());
    let read = move |mut file: usize| -> Read {
        let mut kind = 0;
        while kind < counts.len() - 1 && file >= counts[kind] {
            file -= counts[kind];
            kind += 1;
        }
        let (of, side) = match kind % 2 {
            0 => (first.clone(), sides.first),
            _ => (second.clone(), sides.second),
        };
        Box::pin(async move { read_file(of, side, file, kind >= 2).await })
    };
    Reading::new(counts.iter().sum(), Box::new(read))
}

async fn read_file(
    (source, checkpoint): (Source, usize),
    side: StoredValue<Side>,
    file: usize,
    users: bool,
) -> Result<(), LoadError> {
    match users {
        true => {
            let chunk = source.users(file).await?;
            side.try_update_value(|side| side.add_users(&chunk));
        }
        false => {
            let chunk = source.results(checkpoint, file).await?;
            side.try_update_value(|side| side.add(&chunk));
        }
    }
    Ok(())
}
