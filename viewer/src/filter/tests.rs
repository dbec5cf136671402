#![allow(clippy::unwrap_used)]

use eval_core::report::{Found, Interaction, ResultChunk, User, UserChunk, UserResult};
use eval_core::scores::RankedTarget;

use super::*;

/// Users 0 to 5 with ranks 1, 10, 20, 21, 300 and none, and histories of as many items as their number.
fn table() -> UsersTable {
    let mut table = UsersTable::new(6);
    let found = |rank: u32| Found {
        targets: vec![RankedTarget::from_counts(0, rank - 1, 0, 0)],
        ..Found::default()
    };
    let result = |rank| UserResult {
        generated: vec![found(rank)],
        reference: None,
    };
    table.add_results(&ResultChunk {
        first: 0,
        results: [1, 10, 20, 21, 300].map(result).to_vec(),
    });
    let user = |history| User {
        history: vec![Interaction::default(); history],
        ..User::default()
    };
    table.add_users(&UserChunk {
        first: 0,
        users: (0..6).map(user).collect(),
    });
    table
}

/// Horror is in the texts of users 1, 3 and 5.
fn matching(filter: &str) -> Vec<u32> {
    let word_users = WordUsers::from([(Words::parse("horror").unwrap(), vec![1, 3, 5])]);
    Filter::parse(filter).unwrap().matching(&table(), &word_users)
}

fn message(filter: &str) -> String {
    Filter::parse(filter).unwrap_err().to_string()
}

#[test]
fn every_comparison_holds_where_its_sign_says() {
    let cases: [(&str, &[u32]); 8] = [
        ("rank<20", &[0, 1]),
        ("rank <= 20", &[0, 1, 2]),
        ("rank>20", &[3, 4]),
        ("RANK>=20", &[2, 3, 4]),
        ("rank=20", &[2]),
        ("rank==20", &[2]),
        ("rank != 20", &[0, 1, 3, 4]),
        ("reciprocal_rank = .1", &[1]),
    ];
    for (filter, users) in cases {
        assert_eq!(matching(filter), users, "{filter}");
    }
}

#[test]
fn an_empty_filter_keeps_everyone() {
    assert_eq!(matching(""), [0, 1, 2, 3, 4, 5]);
    assert_eq!(matching(" \n"), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn a_number_that_is_not_known_fits_no_comparison() {
    assert_eq!(matching("rank<1 or rank>=1"), [0, 1, 2, 3, 4]);
    assert_eq!(matching("not rank>=1"), [5]);
    assert_eq!(matching("delta<0 or delta>=0"), [0; 0]);
}

#[test]
fn not_binds_more_than_and_and_and_more_than_or() {
    assert_eq!(matching("rank=1 or rank=10 and history_length>5"), [0]);
    assert_eq!(matching("(rank=1 or rank=10) and history_length>=1"), [1]);
    assert_eq!(matching("not rank=1 and history_length<3"), [1, 2]);
    assert_eq!(matching("not (rank=1 and history_length<3)"), [1, 2, 3, 4, 5]);
    assert_eq!(matching("not not rank=1"), [0]);
}

#[test]
fn words_in_quotes_hold_for_the_users_whose_texts_have_them() {
    assert_eq!(matching("\"horror\""), [1, 3, 5]);
    assert_eq!(matching("rank<=20 and \"Horror\""), [1]);
    assert_eq!(matching("NOT “horror”"), [0, 2, 4]);
    assert_eq!(matching("\"comedy\""), [0; 0], "what no index lists is nowhere");
}

#[test]
fn quoted_words_are_cut_as_the_index_cuts_texts() {
    let word = |word: &str, is_prefix| Word {
        word: word.into(),
        is_prefix,
    };
    let parsed = Words::parse("The Sailor's boat* *x sci-f*").unwrap();
    let expected = [
        ("the", false),
        ("sailor", false),
        ("s", false),
        ("boat", true),
        ("x", false),
        ("sci", false),
        ("f", true),
    ];
    assert_eq!(parsed.0, expected.map(|(text, is_prefix)| word(text, is_prefix)));
    assert_eq!(
        Words::parse("ab *"),
        Words::parse("ab"),
        "the star does not touch the word"
    );
    assert_eq!(Words::parse(" *?! "), None);
}

#[test]
fn each_words_are_asked_for_once() {
    let filter = Filter::parse("\"b\" and not (\"a*\" or \"B\" and rank<3)").unwrap();
    assert_eq!(
        filter.words(),
        [&Words::parse("a*").unwrap(), &Words::parse("b").unwrap()]
    );
    assert!(filter.compares(Column::Rank) && !filter.compares(Column::Popularity));
}

#[test]
fn an_error_says_where_what_was_found_and_what_was_expected() {
    let cases = [
        (
            "rank",
            "at character 5: expected <, <=, >, >=, = or != after rank, found the end",
        ),
        (
            "rank<=",
            "at character 7: expected a number to compare rank with, found the end",
        ),
        (
            "rank<= \"a\"",
            "at character 8: expected a number to compare rank with, found \"a\"",
        ),
        (
            "rank<3 delta>1",
            "at character 8: expected and, or, or the end, found delta",
        ),
        (
            "(rank<3",
            "at character 8: expected and, or, or a closing parenthesis, found the end",
        ),
        ("rank<3)", "at character 7: expected and, or, or the end, found )"),
        (
            "rank<3 and",
            "at character 11: expected a column, words in quotes, not, or a parenthesis, found the end",
        ),
        (
            "or rank<3",
            "at character 1: expected a column, words in quotes, not, or a parenthesis, found or",
        ),
        (
            "rank<3x",
            "at character 6: expected a number such as 20 or -0.5, found 3x",
        ),
        (
            "rank<1e999",
            "at character 6: expected a number such as 20 or -0.5, found 1e999",
        ),
        ("\"für", "at character 5: expected a closing quote, found the end"),
        (
            "\"é\" and \"?!\"",
            "at character 9: expected a word of letters or digits in the quotes, found \"?!\"",
        ),
    ];
    for (filter, expected) in cases {
        assert_eq!(message(filter), expected, "{filter}");
    }
    assert!(message("rank<3 & delta>1").starts_with("at character 8: expected a column, a number"));
}

#[test]
fn a_misspelt_column_finds_its_neighbour() {
    assert_eq!(
        message("é or rnak<3"),
        "at character 1: expected a column or words in quotes, found é"
    );
    assert_eq!(
        message("rnak<3"),
        "at character 1: expected a column or words in quotes, found rnak. Did you mean rank?"
    );
    let closest = |filter: &str| Filter::parse(filter).unwrap_err().closest;
    assert_eq!(closest("Profile_lenght>3"), Some("profile_length"));
    assert_eq!(closest("popular>3"), Some("popularity"));
    assert_eq!(closest("horror"), None);
}

#[test]
fn numbers_may_have_signs_fractions_and_exponents() {
    let number = |text: &str| match Filter::parse(&format!("delta={text}")).unwrap().condition {
        Some(Condition::Compare(Column::Delta, Comparison::Equal, number)) => number,
        other => panic!("{other:?}"),
    };
    let numbers = ["-3", "+.5", "1e-2", "2.50", "1E+1"].map(number);
    assert_eq!(numbers, [-3.0, 0.5, 0.01, 2.5, 10.0]);
}

#[test]
fn deep_nesting_is_an_error_and_a_long_filter_is_not() {
    let nested = |depth: usize| format!("{}rank<3{}", "(".repeat(depth), ")".repeat(depth));
    assert!(Filter::parse(&nested(DEEPEST - 1)).is_ok());
    assert!(message(&nested(100_000)).contains("expected at most 50 parentheses"));
    assert!(message(&"not ".repeat(100_000)).contains("expected at most 50 parentheses"));
    let long = vec!["rank<3"; 10_000].join(" and ");
    assert_eq!(matching(&long), [0]);
}

/// The options at the bar in `text`.
fn options(text: &str) -> Vec<&'static str> {
    let cursor = text.find('|').unwrap();
    complete(&text.replace('|', ""), cursor).options
}

#[test]
fn completion_offers_what_the_language_allows_next() {
    let conditions = options("|");
    assert_eq!(conditions[..2], ["user", "rank"]);
    assert_eq!(conditions[7..], ["\"", "not", "("]);
    assert_eq!(options("rank<3 and |"), conditions);
    assert_eq!(options("not (|"), conditions);
    assert_eq!(options("rank |"), ["<=", "<", ">=", ">", "=", "!="]);
    assert_eq!(options("rank|"), ["<=", "<", ">=", ">", "=", "!="]);
    assert_eq!(options("rank <|"), [""; 0]);
    assert_eq!(options("rank<3|"), ["and", "or"]);
    assert_eq!(options("\"a\" |"), ["and", "or"]);
    assert_eq!(options("(rank<3 |"), ["and", "or", ")"]);
    assert_eq!(options("(rank<3) |"), ["and", "or"]);
}

#[test]
fn completion_continues_the_word_at_the_cursor() {
    assert_eq!(options("r|"), ["rank", "reciprocal_rank"]);
    assert_eq!(options("rank<3 and H|"), ["history_length"]);
    assert_eq!(options("rank<3 a|"), ["and"]);
    assert_eq!(options("re| and rank<3"), ["reciprocal_rank"]);
}

#[test]
fn completion_is_silent_in_quotes_and_behind_a_mistake() {
    for text in ["\"horr|", "rank rank |", "foo |", ") |", "rank<3) |", "& |"] {
        assert_eq!(options(text), [""; 0], "{text}");
    }
    assert_eq!(complete("é", 1).options, [""; 0], "a place within a letter");
    assert_eq!(complete("", 9).options, [""; 0], "a place beyond the text");
}

#[test]
fn an_option_takes_the_place_of_what_was_begun() {
    let applied = |text: &str, option: &str| {
        let cursor = text.find('|').unwrap();
        let text = text.replace('|', "");
        let (done, cursor) = complete(&text, cursor).applied(&text, option);
        format!("{}|{}", &done[..cursor], &done[cursor..])
    };
    assert_eq!(
        applied("re| and rank<3", "reciprocal_rank"),
        "reciprocal_rank| and rank<3"
    );
    assert_eq!(applied("rank|", "<="), "rank<=|");
    assert_eq!(applied("rank<3|", "and"), "rank<3 and|");
    assert_eq!(applied("rank<3 | rank>1", "and"), "rank<3 and| rank>1");
    assert_eq!(applied("|rank<3", "not"), "not |rank<3");
}
