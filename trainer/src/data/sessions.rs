//! Interactions, the k-core over them, and users' sessions in order of time.

use rayon::slice::ParallelSliceMut;

use super::Counts;

/// One review, without its text: 32 bytes would be a third more for 17 million of them, so the rating is single.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Row {
    pub(super) time_ms: i64,
    pub(super) user: u32,
    pub(super) item: u32,
    /// The line of the reviews file, from 1. It orders reviews of the same time and finds the text again.
    pub(super) line: u32,
    pub(super) rating: f32,
}

/// All interactions of one user, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Session {
    pub(super) user: u32,
    pub(super) rows: Vec<Row>,
}

/// Drops users with fewer than `k` rows, then items with fewer than `k` rows, until nothing changes. A user who reviewed
/// an item twice counts twice, as in the published code. Each round is linear in the rows.
pub(super) fn k_core(rows: &mut Vec<Row>, k: u32) {
    let size =
        |key: fn(&Row) -> u32, rows: &[Row]| rows.iter().map(key).max().map_or(0, |largest| largest as usize + 1);
    let mut user_rows = vec![0_u32; size(|row| row.user, rows)];
    let mut item_rows = vec![0_u32; size(|row| row.item, rows)];
    loop {
        let before = rows.len();
        drop_rare(rows, &mut user_rows, k, |row| row.user);
        drop_rare(rows, &mut item_rows, k, |row| row.item);
        if rows.len() == before {
            return;
        }
    }
}

fn drop_rare(rows: &mut Vec<Row>, counts: &mut [u32], k: u32, key: impl Fn(&Row) -> u32) {
    counts.fill(0);
    for row in rows.iter() {
        counts[key(row) as usize] += 1;
    }
    rows.retain(|row| counts[key(row) as usize] >= k);
}

/// How many rows, users and items there are.
pub(super) fn counts(rows: &[Row]) -> Counts {
    let different = |key: fn(&Row) -> u32| {
        let mut seen = vec![false; rows.iter().map(key).max().map_or(0, |largest| largest as usize + 1)];
        rows.iter()
            .map(key)
            .filter(|number| !std::mem::replace(&mut seen[*number as usize], true))
            .count()
    };
    Counts {
        reviews: rows.len(),
        users: different(|row| row.user),
        items: different(|row| row.item),
    }
}

/// Users' sessions, the rows of each by time (file order where times are equal), users by their first interaction.
pub(super) fn sessions(mut rows: Vec<Row>) -> Vec<Session> {
    rows.par_sort_unstable_by_key(|row| (row.time_ms, row.line));
    let mut place_of_user = vec![
        u32::MAX;
        rows.iter()
            .map(|row| row.user)
            .max()
            .map_or(0, |user| user as usize + 1)
    ];
    let mut sessions: Vec<Session> = Vec::new();
    for row in rows {
        let place = &mut place_of_user[row.user as usize];
        if *place == u32::MAX {
            *place = sessions.len() as u32;
            sessions.push(Session {
                user: row.user,
                rows: Vec::new(),
            });
        }
        sessions[*place as usize].rows.push(row);
    }
    sessions
}

/// The rows of all sessions.
pub(super) fn rows(sessions: Vec<Session>) -> Vec<Row> {
    sessions.into_iter().flat_map(|session| session.rows).collect()
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A row whose line makes it unique.
    pub(in super::super) fn row(user: u32, item: u32, time_ms: i64, line: u32) -> Row {
        Row {
            time_ms,
            user,
            item,
            line,
            rating: 1.0,
        }
    }

    fn pairs(pairs: &[(u32, u32)]) -> Vec<Row> {
        let numbered = (1..).zip(pairs);
        numbered
            .map(|(line, (user, item))| row(*user, *item, i64::from(line), line))
            .collect()
    }

    fn left(rows: &[Row]) -> Vec<(u32, u32)> {
        rows.iter().map(|row| (row.user, row.item)).collect()
    }

    #[test]
    fn the_core_is_taken_until_nothing_changes() {
        // Item 2 has one row; without it user 2 has one row; without user 2 item 3 has one row; without it user 3 goes.
        let chain = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 2), (2, 3), (3, 3), (3, 0)];
        let mut rows = pairs(&chain);
        k_core(&mut rows, 2);
        assert_eq!(left(&rows), [(0, 0), (0, 1), (1, 0), (1, 1)]);
    }

    #[test]
    fn the_core_counts_rows_not_different_items() {
        let mut rows = pairs(&[(0, 0), (0, 0), (0, 0)]);
        k_core(&mut rows, 3);
        assert_eq!(rows.len(), 3);
        k_core(&mut rows, 4);
        assert_eq!(rows.len(), 0);
        k_core(&mut rows, 4);
    }

    #[test]
    fn counts_are_of_different_users_and_items() {
        let found = counts(&pairs(&[(7, 1), (7, 1), (2, 9)]));
        assert_eq!(
            found,
            Counts {
                reviews: 3,
                users: 2,
                items: 2
            }
        );
    }

    #[test]
    fn sessions_are_by_time_then_line_and_users_by_first_interaction() {
        let rows = vec![
            row(5, 1, 30, 1),
            row(6, 2, 20, 2),
            row(5, 3, 20, 3),
            row(5, 4, 20, 4),
            row(6, 5, 10, 5),
        ];
        let sessions = sessions(rows);
        let users: Vec<u32> = sessions.iter().map(|session| session.user).collect();
        assert_eq!(users, [6, 5]);
        assert_eq!(left(&sessions[0].rows), [(6, 5), (6, 2)]);
        assert_eq!(left(&sessions[1].rows), [(5, 3), (5, 4), (5, 1)]);
    }
}
