#![allow(clippy::unwrap_used)]

use std::path::Path;

use eval_core::Cutoff;
use serde::Deserialize;

use super::*;

/// What `tests/reference/baselines.py` recorded.
#[derive(Deserialize)]
struct Recorded {
    neighbours: usize,
    shrinkage: f64,
    l2: f64,
    sessions: Vec<Vec<u32>>,
    texts: Vec<String>,
    users: Vec<RecordedUser>,
}

#[derive(Deserialize)]
struct RecordedUser {
    history: Vec<u32>,
    item_knn: Vec<f64>,
    bm25: Vec<f64>,
    ease: Vec<f64>,
}

fn recorded() -> Recorded {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/baselines/scores.json");
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len());
    for (item, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert!(
            (found - expected).abs() < 1e-10,
            "item {item}: {found}, expected {expected}"
        );
    }
}

#[test]
fn item_knn_scores_as_numpy_does() {
    let recorded = recorded();
    let interactions = Interactions::new(recorded.texts.len(), recorded.sessions);
    let knn = ItemKnn::new(&interactions, recorded.neighbours, recorded.shrinkage);
    recorded
        .users
        .iter()
        .for_each(|user| assert_close(&knn.scores(0, &user.history), &user.item_knn));
}

#[test]
fn bm25_scores_as_the_formula_says() {
    let recorded = recorded();
    let bm25 = Bm25::new(recorded.texts.iter().map(String::as_str));
    recorded
        .users
        .iter()
        .for_each(|user| assert_close(&bm25.scores(0, &user.history), &user.bm25));
}

#[test]
fn ease_scores_as_numpy_does() {
    let recorded = recorded();
    let interactions = Interactions::new(recorded.texts.len(), recorded.sessions);
    let ease = Ease::new(&interactions, recorded.l2).unwrap();
    recorded
        .users
        .iter()
        .for_each(|user| assert_close(&ease.scores(0, &user.history), &user.ease));
}

/// Three users: {0, 1}, {0, 1, 2}, {2}. By hand: items 0 and 1 share two users of two each, so 2/(2 + 1); items 0 and 2 share
/// one, of two each, so 1/(2 + 1).
#[test]
fn item_knn_of_three_users_is_as_by_hand() {
    let interactions = Interactions::new(4, [vec![1, 0, 0], vec![0, 1, 2], vec![2]]);
    let knn = ItemKnn::new(&interactions, 10, 1.0);
    assert_eq!(knn.neighbours_of(0), [(1, 2.0 / 3.0), (2, 1.0 / 3.0)]);
    assert_eq!(
        ItemKnn::new(&interactions, 1, 1.0).scores(0, &[0]),
        [0.0, 2.0 / 3.0, 0.0, 0.0]
    );
}

/// Two items that all users share: XᵀX + λI = [[3, 2], [2, 3]] with λ = 1, its inverse [[3, −2], [−2, 3]]/5, so B₀₁ = 2/3.
#[test]
fn ease_of_two_items_is_as_by_hand() {
    let ease = Ease::new(&Interactions::new(2, [vec![0, 1], vec![0, 1]]), 1.0).unwrap();
    assert_close(&ease.scores(0, &[0]), &[0.0, 2.0 / 3.0]);
}

/// One of two texts of one term has the term: ln(1 + 1.5/1.5) · 1 · 2.2 / (1 + 1.2).
#[test]
fn bm25_of_one_word_is_as_by_hand() {
    let bm25 = Bm25::new(["Moon", "dog"]);
    assert_close(&bm25.score_text("moon, unknown"), &[2f64.ln(), 0.0]);
    assert_close(&bm25.score_text("MOON moon"), &[2.0 * 2f64.ln(), 0.0]);
}

#[test]
fn random_scores_depend_on_seed_and_user_alone() {
    let random = Random::new(10, 1);
    assert_eq!(random.scores(3, &[1]), random.scores(3, &[2, 5]));
    assert_ne!(random.scores(3, &[]), random.scores(4, &[]));
    assert_ne!(random.scores(3, &[]), Random::new(10, 2).scores(3, &[]));
    assert_eq!(Random::new(7, 1).scores(3, &[]), random.scores(3, &[])[..7]);
}

/// Over many users a target's rank among ten items is uniform: its mean is 5.5, with a standard error of 2.87/√4000.
#[test]
fn random_ranks_are_uniform() {
    let random = Random::new(10, 9);
    let rank = |user| rank_by_scores(&random.scores(user, &[]), &[], &[7]).unwrap()[0].rank;
    let mean = (0..4000).map(|user| f64::from(rank(user))).sum::<f64>() / 4000.0;
    assert!((mean - 5.5).abs() < 0.2, "{mean}");
}

#[test]
fn the_history_is_never_recommended() {
    let item = |count| crate::data::Item {
        id: String::new(),
        title: String::new(),
        text: String::new(),
        categories: Vec::new(),
        tokens: Vec::new(),
        train_count: count,
    };
    let user = User {
        id: "u".to_owned(),
        history: vec![1],
        targets: vec![2],
        later: vec![2],
        ratings: vec![5.0],
        reviews: vec![String::new()],
        prompt: String::new(),
        prompt_tokens: vec![1],
        tied_target_time: false,
    };
    let popular = Popular::new(&[item(5), item(9), item(5)]);
    let ranked = rank(&popular, &[user], 0, Cutoff::new(3).unwrap()).unwrap();
    let (target, top) = (ranked.found[0].targets[0], &ranked.found[0].top);
    // Items 0 and 2 tie, the lower index first; item 1, the most popular, is the history.
    assert_eq!((target.rank, target.above, target.tied), (2, 0, 1));
    assert_eq!(top.iter().map(|scored| scored.item).collect::<Vec<_>>(), [0, 2]);
}
