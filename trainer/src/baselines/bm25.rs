//! Words in common: BM25 over item texts (Robertson & Zaragoza, *The Probabilistic Relevance Framework*, 2009).

use std::collections::{BTreeMap, HashMap};

use super::{Recommender, distinct};

/// Scores an item's text against the texts of the history.
///
/// With `tf` the times a term stands in an item's text of `len` terms, and `df` the number of the N items that have it, an
/// item's score is the sum over the terms of the query, repetitions included, of
///
/// ```text
/// ln(1 + (N − df + 0.5) / (df + 0.5)) · tf · (k1 + 1) / (tf + k1 · (1 − b + b · len / mean len))
/// ```
///
/// The query is the texts of the history's items, each item once. Terms are what [`terms`] gives.
#[derive(Debug, Clone)]
pub struct Bm25 {
    /// Number of each term.
    vocabulary: HashMap<String, usize>,
    /// For each term the items that have it, with the item's share of the score.
    postings: Vec<Vec<(u32, f64)>>,
    /// For each item its terms, with their counts.
    documents: Vec<Vec<(usize, u32)>>,
}

impl Bm25 {
    /// How soon a repeated term stops to count.
    pub const K1: f64 = 1.2;
    /// How much long texts are discounted, in `0.0..=1.0`.
    pub const B: f64 = 0.75;

    /// Indexes item texts with the usual [`Bm25::K1`] and [`Bm25::B`].
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let mut vocabulary = HashMap::new();
        let documents: Vec<Vec<(usize, u32)>> = texts.into_iter().map(|text| counted(text, &mut vocabulary)).collect();
        let postings = postings(&documents, vocabulary.len());
        Self {
            vocabulary,
            postings,
            documents,
        }
    }

    /// Scores every item against any text.
    pub fn score_text(&self, text: &str) -> Vec<f64> {
        let mut query = BTreeMap::new();
        for term in terms(text) {
            if let Some(&term) = self.vocabulary.get(&term) {
                *query.entry(term).or_insert(0) += 1;
            }
        }
        self.score(query)
    }

    fn score(&self, query: BTreeMap<usize, u32>) -> Vec<f64> {
        let mut scores = vec![0.0; self.documents.len()];
        // Terms in a fixed order, so that sums are the same on every call.
        for (term, count) in query {
            for &(item, weight) in &self.postings[term] {
                scores[item as usize] += f64::from(count) * weight;
            }
        }
        scores
    }
}

impl Recommender for Bm25 {
    fn scores(&self, _user: u32, history: &[u32]) -> Vec<f64> {
        let mut query = BTreeMap::new();
        for item in distinct(history.to_vec()) {
            for &(term, count) in &self.documents[item as usize] {
                *query.entry(term).or_insert(0) += count;
            }
        }
        self.score(query)
    }
}

/// The terms of a text: its [words](eval_core::report::words), runs of letters and digits in lower case. No stemming, no stop
/// words.
///
/// ```
/// assert_eq!(trainer::baselines::terms("The Matrix (1999), Part_2").collect::<Vec<_>>(), ["the", "matrix", "1999", "part", "2"]);
/// ```
pub fn terms(text: &str) -> impl Iterator<Item = String> {
    eval_core::report::words(text)
}

/// The terms of `text` with their counts, by term; new terms are numbered.
fn counted(text: &str, vocabulary: &mut HashMap<String, usize>) -> Vec<(usize, u32)> {
    let mut counts = BTreeMap::new();
    for term in terms(text) {
        let next = vocabulary.len();
        *counts.entry(*vocabulary.entry(term).or_insert(next)).or_insert(0) += 1;
    }
    counts.into_iter().collect()
}

fn postings(documents: &[Vec<(usize, u32)>], terms: usize) -> Vec<Vec<(u32, f64)>> {
    let length = |document: &[(usize, u32)]| document.iter().map(|&(_, count)| f64::from(count)).sum::<f64>();
    let lengths: Vec<f64> = documents.iter().map(|document| length(document)).collect();
    let mean_length = lengths.iter().sum::<f64>() / documents.len().max(1) as f64;
    let mut frequencies = vec![0usize; terms];
    documents.iter().flatten().for_each(|&(term, _)| frequencies[term] += 1);
    let mut postings = vec![Vec::new(); terms];
    for ((item, document), length) in (0..).zip(documents).zip(lengths) {
        let damping = Bm25::K1 * (1.0 - Bm25::B + Bm25::B * length / mean_length);
        for &(term, count) in document {
            let (count, having) = (f64::from(count), frequencies[term] as f64);
            let rarity = (1.0 + (documents.len() as f64 - having + 0.5) / (having + 0.5)).ln();
            postings[term].push((item, rarity * count * (Bm25::K1 + 1.0) / (count + damping)));
        }
    }
    postings
}
