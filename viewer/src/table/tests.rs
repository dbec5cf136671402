#![allow(clippy::unwrap_used)]

use eval_core::report::{Interaction, Item, User};
use eval_core::scores::RankedTarget;

use super::*;

fn found(profile: &str, ranks: &[u32]) -> Found {
    let target = |&rank: &u32| RankedTarget::from_counts(0, rank - 1, 0, 0);
    Found {
        profile: Some(profile.into()),
        targets: ranks.iter().map(target).collect(),
        ..Found::default()
    }
}

fn results(first: usize, of_users: Vec<Vec<Found>>) -> ResultChunk {
    let result = |generated| UserResult {
        generated,
        reference: None,
    };
    ResultChunk {
        first,
        results: of_users.into_iter().map(result).collect(),
    }
}

fn users(first: usize, of_users: &[(&str, usize, &[u32])]) -> UserChunk {
    let user = |&(id, history, targets): &(&str, usize, &[u32])| User {
        id: id.into(),
        history: vec![Interaction::default(); history],
        targets: targets.to_vec(),
        ..User::default()
    };
    UserChunk {
        first,
        users: of_users.iter().map(user).collect(),
    }
}

fn items(first: usize, interactions: &[u64]) -> ItemChunk {
    let item = |&train_interactions: &u64| Item {
        train_interactions,
        ..Item::default()
    };
    ItemChunk {
        first,
        items: interactions.iter().map(item).collect(),
    }
}

fn column(table: &UsersTable, column: Column) -> Vec<Option<f64>> {
    table.column(column).to_vec()
}

#[test]
fn a_users_numbers_are_means_over_the_profiles() {
    let mut table = UsersTable::new(3);
    table.add_results(&results(
        1,
        vec![
            vec![found("likes  old\nfilms", &[4]), found("horror", &[2])],
            vec![found("", &[7, 3])],
        ],
    ));
    assert_eq!(column(&table, Column::Rank), [None, Some(3.0), Some(3.0)]);
    let reciprocal = [None, Some((0.25 + 0.5) / 2.0), Some(1.0 / 3.0)];
    assert_eq!(column(&table, Column::ReciprocalRank), reciprocal);
    assert_eq!(column(&table, Column::ProfileLength), [None, Some(2.0), Some(0.0)]);
}

#[test]
fn a_profile_without_a_value_leaves_the_user_without_one() {
    let redacted = Found {
        profile: None,
        ..found("", &[5])
    };
    let mut table = UsersTable::new(2);
    table.add_results(&results(
        0,
        vec![
            vec![found("two words", &[1]), redacted],
            vec![found("none to find", &[])],
        ],
    ));
    assert_eq!(column(&table, Column::ProfileLength), [None, Some(3.0)]);
    assert_eq!(column(&table, Column::Rank), [Some(3.0), None]);
    assert_eq!(column(&table, Column::ReciprocalRank)[1], None);
}

#[test]
fn the_change_is_below_zero_where_the_rank_got_better() {
    let at_ranks = |ranks: [u32; 2]| results(0, ranks.map(|rank| vec![found("", &[rank])]).to_vec());
    for others_first in [true, false] {
        let mut table = UsersTable::new(3);
        if others_first {
            table.add_other_results(&at_ranks([10, 5]));
        }
        table.add_results(&at_ranks([4, 9]));
        if !others_first {
            assert_eq!(column(&table, Column::Delta), [None; 3], "nothing to compare with");
            table.add_other_results(&at_ranks([10, 5]));
        }
        assert_eq!(column(&table, Column::Delta), [Some(-6.0), Some(4.0), None]);
    }
}

#[test]
fn popularity_is_known_once_all_targets_are_whichever_file_comes_first() {
    for items_first in [true, false] {
        let mut table = UsersTable::new(3);
        let people = users(0, &[("a", 2, &[1]), ("b", 0, &[0, 3]), ("c", 1, &[])]);
        table.add_users(&people);
        if items_first {
            table.add_items(&items(0, &[10, 7]));
            assert_eq!(column(&table, Column::Popularity), [Some(7.0), None, None]);
            table.add_items(&items(2, &[0, 5]));
        } else {
            table.add_items(&items(2, &[0, 5]));
            assert_eq!(column(&table, Column::Popularity), [None; 3]);
            table.add_items(&items(0, &[10, 7]));
        }
        assert_eq!(column(&table, Column::Popularity), [Some(7.0), Some(7.5), None]);
        assert_eq!(column(&table, Column::HistoryLength), [2.0, 0.0, 1.0].map(Some));
        assert_eq!((table.id(1), table.id(9)), ("b", ""));
        assert_eq!(table.target_items(), [0, 1, 3]);
    }
}

#[test]
fn ties_come_by_user_and_unknown_numbers_last_in_both_directions() {
    let mut table = UsersTable::new(5);
    let ranks = [3, 1, 3, 2].map(|rank| vec![found("", &[rank])]);
    table.add_results(&results(1, ranks.to_vec()));
    assert_eq!(table.sorted([4, 3, 2, 1, 0], Column::Rank, false), [2, 4, 1, 3, 0]);
    assert_eq!(table.sorted([4, 3, 2, 1, 0], Column::Rank, true), [1, 3, 4, 2, 0]);
    assert_eq!(table.sorted([3, 0, 2], Column::User, true), [3, 2, 0]);
    assert_eq!(table.sorted([4, 0], Column::Popularity, true), [0, 4]);
}

#[test]
fn files_with_more_users_than_the_table_do_no_harm() {
    let mut table = UsersTable::new(1);
    table.add_users(&users(0, &[("a", 1, &[0]), ("b", 1, &[0])]));
    table.add_users(&users(7, &[("c", 1, &[0])]));
    table.add_results(&results(1, vec![vec![found("", &[1])]]));
    assert_eq!((table.len(), table.id(0), table.value(Column::Rank, 1)), (1, "a", None));
}

#[test]
fn a_sheet_has_the_rows_in_their_order_with_ids() {
    let mut table = UsersTable::new(2);
    table.add_users(&users(0, &[("a", 1, &[]), ("=b", 3, &[])]));
    let sheet = table.sheet(&[1, 0], &[Column::User, Column::HistoryLength, Column::Rank]);
    assert_eq!(sheet.columns, ["user", "id", "history_length", "rank"]);
    let id = |id: &str| Cell::Text(id.into());
    assert_eq!(
        sheet.rows[0],
        [Cell::Number(1.0), id("=b"), Cell::Number(3.0), Cell::Empty]
    );
    assert_eq!(sheet.rows[1][1], id("a"));
}

#[test]
fn every_column_is_found_by_its_name() {
    for column in Column::ALL {
        assert_eq!(Column::named(&column.name().to_uppercase()), Some(column));
    }
    assert_eq!(Column::named("ranks"), None);
}

#[test]
fn numbers_are_shown_as_short_as_their_column_allows() {
    let shown = [
        (Column::Rank, 12.0, "12"),
        (Column::Rank, 12.25, "12.2"),
        (Column::ReciprocalRank, 0.5, "0.5000"),
        (Column::Delta, 3.0, "+3"),
        (Column::Delta, -2.5, "-2.5"),
        (Column::Delta, 0.0, "0"),
    ];
    for (column, value, expected) in shown {
        assert_eq!(column.shown(Some(value)), expected);
    }
    assert_eq!(Column::Popularity.shown(None), "–");
}

#[test]
fn twenty_thousand_users_sort_into_the_order_of_a_plain_stable_sort() {
    let count = 20_000u32;
    let mut table = UsersTable::new(count as usize);
    let rank = |user: u32| user.wrapping_mul(2_654_435_761) % 997 + 1;
    table.add_results(&results(
        0,
        (0..count).map(|user| vec![found("", &[rank(user)])]).collect(),
    ));
    let mut expected: Vec<u32> = (0..count).collect();
    expected.sort_by_key(|&user| rank(user));
    assert_eq!(table.sorted(0..count, Column::Rank, false), expected);
}
