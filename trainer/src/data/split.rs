//! Training, validation and test users, their targets, and the numbers of items.

use std::collections::HashMap;

use super::sessions::Session;

/// Users in the order of their first interaction, the last `ceil(share)` of them apart: (train, test).
pub(super) fn by_first_interaction(mut sessions: Vec<Session>, test_share: f64) -> (Vec<Session>, Vec<Session>) {
    // A product that is whole but for its rounding error is not rounded up: 0.07 · 100 are 7 users.
    let exact = test_share * sessions.len() as f64;
    let test_users = (exact - 1e-9).ceil().max(0.0) as usize;
    let test = sessions.split_off(sessions.len().saturating_sub(test_users));
    (sessions, test)
}

/// Drops from test sessions the items that no training session has, then the sessions left with fewer than
/// `min_rows` rows.
pub(super) fn drop_cold(train: &[Session], test: &mut Vec<Session>, min_rows: usize) {
    let known = Numbering::of(train);
    for session in test.iter_mut() {
        session.rows.retain(|row| known.get(row.item).is_some());
    }
    test.retain(|session| session.rows.len() >= min_rows);
}

/// Items numbered by first appearance in the training sessions.
#[derive(Debug, Default)]
pub(super) struct Numbering {
    numbers: HashMap<u32, u32>,
    /// The catalogue's item behind each number.
    pub(super) items: Vec<u32>,
}

impl Numbering {
    pub(super) fn of(train: &[Session]) -> Self {
        let mut numbering = Self::default();
        for row in train.iter().flat_map(|session| &session.rows) {
            let next = numbering.items.len() as u32;
            numbering.numbers.entry(row.item).or_insert_with(|| {
                numbering.items.push(row.item);
                next
            });
        }
        numbering
    }

    /// The number of the catalogue's `item`.
    pub(super) fn get(&self, item: u32) -> Option<u32> {
        self.numbers.get(&item).copied()
    }
}

/// The place in the session of the target: the first row after the history whose item is not in the history.
pub(super) fn target(session: &Session, history: usize) -> Option<usize> {
    let past = session.rows.get(..history)?;
    let later = session.rows.iter().enumerate().skip(history);
    later
        .filter(|(_, row)| past.iter().all(|seen| seen.item != row.item))
        .map(|(place, _)| place)
        .next()
}

/// Whether file order alone put the history's end before the target.
pub(super) fn has_tied_target(session: &Session, history: usize, target: usize) -> bool {
    history > 0 && session.rows[history - 1].time_ms == session.rows[target].time_ms
}

/// Half of the users drawn at random for validation (one fewer where they are odd), the others for test; both keep
/// their order.
pub(super) fn halve<T>(users: Vec<T>, seed: u64) -> (Vec<T>, Vec<T>) {
    let mut order: Vec<usize> = (0..users.len()).collect();
    shuffle(&mut order, seed);
    let mut in_validation = vec![false; users.len()];
    for place in &order[..users.len() / 2] {
        in_validation[*place] = true;
    }
    let (mut validation, mut test) = (Vec::new(), Vec::new());
    for (user, in_validation) in users.into_iter().zip(in_validation) {
        if in_validation {
            validation.push(user)
        } else {
            test.push(user)
        }
    }
    (validation, test)
}

/// Fisher–Yates with SplitMix64 (Steele, Lea & Flood, 2014), so that a seed means the same split in every version.
fn shuffle(order: &mut [usize], seed: u64) {
    let mut state = seed;
    let mut draw = move || {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    };
    for last in (1..order.len()).rev() {
        // The high half of a 128-bit product maps the draw to 0..=last; its bias is below last / 2^64.
        let place = ((u128::from(draw()) * (last as u128 + 1)) >> 64) as usize;
        order.swap(last, place);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::data::sessions::tests::row;

    fn session(user: u32, items: &[u32]) -> Session {
        let rows = (1..)
            .zip(items)
            .map(|(line, item)| row(user, *item, i64::from(line), line))
            .collect();
        Session { user, rows }
    }

    fn users(count: u32) -> Vec<Session> {
        (0..count).map(|user| session(user, &[0])).collect()
    }

    #[test]
    fn the_last_users_rounded_up_are_for_testing() {
        for (count, share, expected) in [
            (10, 0.2, 2),
            (11, 0.2, 3),
            (19_681, 0.2, 3937),
            (100, 0.07, 7),
            (5, 0.0, 0),
        ] {
            let (train, test) = by_first_interaction(users(count), share);
            assert_eq!(test.len(), expected, "{share} of {count}");
            assert_eq!(train.len() + test.len(), count as usize);
            assert!(train.iter().zip(0..).all(|(session, user)| session.user == user));
        }
    }

    #[test]
    fn cold_items_leave_test_sessions_and_short_sessions_leave() {
        let train = [session(0, &[7, 8, 9])];
        let mut test = vec![session(1, &[7, 1, 8, 9]), session(2, &[7, 1, 2, 9])];
        drop_cold(&train, &mut test, 3);
        assert_eq!(test.len(), 1);
        let items: Vec<u32> = test[0].rows.iter().map(|row| row.item).collect();
        assert_eq!((test[0].user, items), (1, vec![7, 8, 9]));
    }

    #[test]
    fn items_are_numbered_by_first_appearance_session_by_session() {
        let numbering = Numbering::of(&[session(0, &[5, 3, 5]), session(1, &[4, 3])]);
        assert_eq!(numbering.items, [5, 3, 4]);
        assert_eq!((numbering.get(4), numbering.get(6)), (Some(2), None));
    }

    #[test]
    fn the_target_is_the_first_later_item_that_is_new() {
        assert_eq!(target(&session(0, &[1, 2, 2, 1, 3]), 2), Some(4));
        assert_eq!(target(&session(0, &[1, 2, 3, 4]), 2), Some(2));
        assert_eq!(target(&session(0, &[1, 2, 2, 1]), 2), None);
        assert_eq!(target(&session(0, &[1, 2]), 2), None);
        assert_eq!(target(&session(0, &[1]), 2), None);
    }

    #[test]
    fn a_tie_is_between_the_historys_last_row_and_the_target() {
        let mut tied = session(0, &[1, 2, 3]);
        assert!(!has_tied_target(&tied, 2, 2));
        tied.rows[2].time_ms = tied.rows[1].time_ms;
        assert!(has_tied_target(&tied, 2, 2));
        tied.rows[1].time_ms = tied.rows[0].time_ms;
        assert!(!has_tied_target(&tied, 2, 2));
    }

    #[test]
    fn halves_are_disjoint_in_order_and_depend_on_the_seed() {
        let (validation, test) = halve((0..101).collect::<Vec<u32>>(), 1);
        assert_eq!((validation.len(), test.len()), (50, 51));
        let mut all = [validation.clone(), test.clone()].concat();
        assert!(validation.is_sorted() && test.is_sorted());
        all.sort_unstable();
        assert_eq!(all, (0..101).collect::<Vec<u32>>());
        assert_eq!(halve((0..101).collect::<Vec<u32>>(), 1).0, validation);
        assert_ne!(halve((0..101).collect::<Vec<u32>>(), 2).0, validation);
        assert_eq!(halve(vec![3_u32], 1), (vec![], vec![3]));
    }

    #[test]
    fn every_user_is_as_likely_in_either_half() {
        let mut times = [0; 8];
        for seed in 0..2000 {
            for user in halve((0..8).collect::<Vec<usize>>(), seed).0 {
                times[user] += 1;
            }
        }
        // 1000 expected each, standard deviation 22.
        assert!(times.iter().all(|count| (900..1100).contains(count)), "{times:?}");
    }
}
