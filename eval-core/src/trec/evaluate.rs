use super::{Qrels, Run};
use crate::metrics::{Metric, MetricTable};
use crate::{Error, ErrorKind, NOT_RANKED, TargetRanks};

/// What [`evaluate_run`] gives.
#[derive(Clone, Debug)]
pub struct RunEvaluation {
    /// A row for each of `queries`.
    pub table: MetricTable,
    /// The queries with a relevant document, in the order of the qrels.
    pub queries: Vec<String>,
    /// How many of them the run does not have; each counts 0.
    pub queries_not_in_run: usize,
    /// Queries of the qrels without a relevant document, which are left out.
    pub queries_without_relevant: usize,
    /// Queries of the run that the qrels do not have, which are left out.
    pub queries_not_in_qrels: usize,
}

/// Evaluates a run. Relevant documents that the run does not list are missed; means are over all queries that have a
/// relevant document, those that the run does not have included, as `trec_eval -c` does.
///
/// # Errors
/// [`ErrorKind::NothingRelevant`] when no query has a relevant document.
pub fn evaluate_run(run: &Run, qrels: &Qrels, metrics: &[Metric]) -> Result<RunEvaluation, Error> {
    let known = |query: &&String| qrels.entries.queries.find(query).is_some();
    let mut evaluation = RunEvaluation {
        table: MetricTable::new(metrics.to_vec()),
        queries: Vec::new(),
        queries_not_in_run: 0,
        queries_without_relevant: 0,
        queries_not_in_qrels: run.queries().len() - run.queries().iter().filter(known).count(),
    };
    for (number, query) in qrels.queries().iter().enumerate() {
        let relevant: Vec<(&str, u32)> = qrels.graded(number).collect();
        if relevant.is_empty() {
            evaluation.queries_without_relevant += 1;
            continue;
        }
        let in_run = run.entries.queries.find(query);
        evaluation.queries_not_in_run += usize::from(in_run.is_none());
        evaluation.table.push(&ranks_of(&relevant, run, in_run)?);
        evaluation.queries.push(query.clone());
    }
    match evaluation.queries.is_empty() {
        true => Err(ErrorKind::NothingRelevant.into()),
        false => Ok(evaluation),
    }
}

fn ranks_of(relevant: &[(&str, u32)], run: &Run, query: Option<usize>) -> Result<TargetRanks, Error> {
    let order: Vec<usize> = query.into_iter().flat_map(|query| run.ranked(query)).collect();
    let rank = |document: &str| {
        let place = run
            .entries
            .documents
            .find(document)
            .and_then(|number| order.iter().position(|&other| other == number));
        place
            .and_then(|place| u32::try_from(place + 1).ok())
            .unwrap_or(NOT_RANKED)
    };
    TargetRanks::graded(relevant.iter().map(|&(document, grade)| (rank(document), grade)))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn evaluated(run: &str, qrels: &str, metric: &str) -> (Vec<f64>, RunEvaluation) {
        let (run, qrels) = (
            Run::read(run.as_bytes()).unwrap(),
            Qrels::read(qrels.as_bytes()).unwrap(),
        );
        let metric: Metric = metric.parse().unwrap();
        let evaluation = evaluate_run(&run, &qrels, &[metric]).unwrap();
        (evaluation.table.column(metric).unwrap().to_vec(), evaluation)
    }

    #[test]
    fn queries_are_counted_where_they_are_missing() {
        let run = "q1 Q0 a 1 3 x\nq1 Q0 b 2 2 x\nq9 Q0 a 1 1 x\nq3 Q0 a 1 1 x";
        let qrels = "q1 0 b 1\nq1 0 c 1\nq2 0 a 1\nq3 0 a 0";
        let (recall, evaluation) = evaluated(run, qrels, "recall@5");
        assert_eq!(recall, [0.5, 0.0]);
        assert_eq!(evaluation.queries, ["q1", "q2"]);
        assert_eq!(evaluation.queries_not_in_run, 1);
        assert_eq!(evaluation.queries_without_relevant, 1);
        assert_eq!(evaluation.queries_not_in_qrels, 1);
    }

    #[test]
    fn grades_are_gains() {
        // Grade 1 at rank 1 and grade 3 at rank 2; the other way round would be ideal.
        let (run, qrels) = ("q Q0 a 1 2 x\nq Q0 b 2 1 x", "q 0 a 1\nq 0 b 3");
        let second = 1.0 / 3f64.log2();
        assert_eq!(
            evaluated(run, qrels, "ndcg@5").0,
            [(1.0 + 3.0 * second) / (3.0 + second)]
        );
        assert_eq!(
            evaluated(run, qrels, "ndcg_exp@5").0,
            [(1.0 + 7.0 * second) / (7.0 + second)]
        );
    }

    #[test]
    fn qrels_without_anything_relevant_are_an_error() {
        let (run, qrels) = (
            Run::read("".as_bytes()).unwrap(),
            Qrels::read("q 0 a 0".as_bytes()).unwrap(),
        );
        assert!(matches!(
            evaluate_run(&run, &qrels, &[]).unwrap_err().kind(),
            ErrorKind::NothingRelevant
        ));
    }
}
