//! An evaluation as aligned tables for people.

use eval_core::Cutoff;
use eval_core::metrics::{Measure, Metric};

use super::MEASURES;
use super::comparison::{Evaluation, RowSummary};
use super::measure::RowName;
use super::plan::{Baseline, Version};

/// The tables, one a cutoff, largest first; then ties and, with tuned models, the 2 × 2 of both.
pub fn tables(evaluation: &Evaluation, cutoffs: &[Cutoff]) -> String {
    let mut cutoffs = cutoffs.to_vec();
    cutoffs.sort_unstable_by(|a, b| b.cmp(a));
    cutoffs.dedup();
    let mut parts = vec![heading(evaluation)];
    parts.extend(cutoffs.iter().map(|&cutoff| metric_table(evaluation, cutoff)));
    if let Some(&largest) = cutoffs.first() {
        parts.extend(two_by_two(evaluation, Metric::at(Measure::Ndcg, largest)));
    }
    parts.push(tie_table(evaluation));
    parts.join("\n")
}

fn heading(evaluation: &Evaluation) -> String {
    let Evaluation {
        users, items, split, ..
    } = evaluation;
    let mut lines = vec![format!("{split} split, {users} users, {items} items")];
    for written in &evaluation.written {
        let (ended, mean) = (100.0 * written.ended_share, written.mean_tokens);
        let (lm, count) = (written.lm, written.profiles);
        lines.push(format!(
            "{lm} language model: {count} profiles, {mean:.0} tokens on average, {ended:.0} % ended"
        ));
    }
    let tied = evaluation.users_with_tied_target_time;
    if tied > 0 {
        lines.push(format!(
            "{tied} users have the end of their history and their target at one time: file order decided"
        ));
    }
    for skipped in &evaluation.skipped {
        lines.push(format!("{} left out: {}", skipped.baseline, skipped.reason));
    }
    lines.join("\n") + "\n"
}

/// Means with intervals; p-values are those of NDCG.
fn metric_table(evaluation: &Evaluation, cutoff: Cutoff) -> String {
    let partners = [
        ("p zero-shot", RowName::zero_shot()),
        (
            "p reference",
            RowName::baseline(Baseline::Reference, Some(Version::Base)),
        ),
    ];
    let partners = partners.map(|(title, name)| evaluation.row(&name).map(|_| (title, name.to_string())));
    let partners: Vec<(&str, String)> = partners.into_iter().flatten().collect();
    let mut header = vec![format!("at {cutoff}")];
    header.extend(MEASURES.map(|measure| measure.name().to_owned()));
    header.extend(partners.iter().map(|(title, _)| (*title).to_owned()));
    let mut grid = vec![header];
    for row in &evaluation.rows {
        let mut cells = vec![row.name.clone()];
        cells.extend(MEASURES.map(|measure| mean_cell(row, Metric::at(measure, cutoff))));
        let ndcg = Metric::at(Measure::Ndcg, cutoff);
        cells.extend(partners.iter().map(|(_, with)| p_cell(row, ndcg, with)));
        grid.push(cells);
    }
    aligned(&grid)
}

fn mean_cell(row: &RowSummary, metric: Metric) -> String {
    match row.summary.get(metric) {
        Some(summary) => format!("{:.4} [{:.4}, {:.4}]", summary.mean, summary.ci95[0], summary.ci95[1]),
        None => "-".to_owned(),
    }
}

fn p_cell(row: &RowSummary, metric: Metric, with: &str) -> String {
    let found = row
        .comparisons
        .iter()
        .find(|comparison| comparison.metric == metric && comparison.with == with);
    found.map_or("-".to_owned(), |comparison| format!("{:.4}", comparison.test.p_value))
}

/// Language model by embedder, each as loaded and tuned; `None` unless both were given tuned.
fn two_by_two(evaluation: &Evaluation, metric: Metric) -> Option<String> {
    let versions = [Version::Base, Version::Tuned];
    let mut grid = vec![vec![
        metric.to_string(),
        "embedder base".to_owned(),
        "embedder tuned".to_owned(),
    ]];
    for lm in versions {
        let mut cells = vec![format!("language model {lm}")];
        for embedder in versions {
            cells.push(mean_cell(evaluation.row(&RowName::generated(lm, embedder))?, metric));
        }
        grid.push(cells);
    }
    let tuned = evaluation.row(&RowName::generated(Version::Tuned, Version::Tuned))?;
    let base = RowName::generated(Version::Base, Version::Tuned).to_string();
    let p = p_cell(tuned, metric, &base);
    Some(format!(
        "{}under the tuned embedder, tuned against base language model: p {p}\n",
        aligned(&grid)
    ))
}

fn tie_table(evaluation: &Evaluation) -> String {
    let header = ["ties", "tied targets", "mean rank", "expected rank"]
        .map(str::to_owned)
        .to_vec();
    let mut grid = vec![header];
    for row in &evaluation.rows {
        let ties = &row.ties;
        grid.push(vec![
            row.name.clone(),
            format!("{:.1} %", 100.0 * ties.tied_share),
            format!("{:.1}", ties.mean_rank),
            format!("{:.1}", ties.mean_expected_rank),
        ]);
    }
    aligned(&grid)
}

/// Columns as wide as their widest cell, two spaces between.
fn aligned(grid: &[Vec<String>]) -> String {
    let columns = grid.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        grid.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in grid {
        let cells: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, &width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_by_letters_and_lines_have_no_trailing_spaces() {
        let grid = [
            vec!["a".to_owned(), "é é".to_owned(), "x".to_owned()],
            vec!["long".to_owned(), "b".to_owned()],
        ];
        assert_eq!(aligned(&grid), "a     é é  x\nlong  b\n");
    }
}
