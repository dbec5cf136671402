"""Records metrics, intervals and tests as NumPy and SciPy compute them, for eval-core's comparison.

Nothing is taken over from eval-core: metrics are written from their definitions over explicit ranked lists, ranks come
from a full sort, and the tests from scipy.stats. Writes tests/fixtures/metrics.json.
"""
import numpy as np
from scipy import stats

import recorded

CUTOFFS = [1, 3, 5, 10, 20, 100]


def relevance_of(ranked, grades):
    """The grade at each place of a ranked list of items."""
    return np.array([grades.get(item, 0) for item in ranked], dtype=float)


def dcg(gains):
    return float(np.sum(gains / np.log2(np.arange(2, len(gains) + 2))))


def metrics_of(ranked, grades, k):
    """All metrics at k of one ranked list; `k` None is the whole list, without those that need a cutoff."""
    relevance = relevance_of(ranked, grades)[:k]
    hits = relevance > 0
    places = np.flatnonzero(hits) + 1
    ideal = np.sort(np.array(list(grades.values()), dtype=float))[::-1][:k]
    precisions = np.cumsum(hits)[hits] / places
    values = {
        "mrr": float(np.sum(1 / places)),
        "mrr_first": float(1 / places[0]) if len(places) else 0.0,
        "ndcg": dcg(relevance) / dcg(ideal),
        "ndcg_exp": dcg(2**relevance - 1) / dcg(2**ideal - 1),
        "map": float(np.sum(precisions)) / len(grades),
    }
    if k is None:
        return values
    values |= {"recall": hits.sum() / len(grades), "precision": hits.sum() / k, "hit": float(hits.any())}
    return {f"{name}@{k}": float(value) for name, value in values.items()}


def ranking_case(rng):
    """Scores with many ties, a mask, graded targets; ranks by a stable sort, so that ties go to the lower index."""
    items = int(rng.integers(8, 200))
    scores = rng.integers(0, max(2, items // 3), items) / 8
    masked = rng.choice(items, int(rng.integers(0, 5)), replace=False)
    allowed = np.setdiff1d(np.arange(items), masked)
    targets = rng.choice(allowed, int(rng.integers(1, min(6, len(allowed)) + 1)), replace=False)
    grades = {int(item): int(rng.integers(1, 5)) for item in targets}
    order = [int(item) for item in np.argsort(-scores, kind="stable") if item not in set(masked)]
    values = metrics_of(order, grades, None)
    for k in CUTOFFS:
        values |= metrics_of(order, grades, k)
    return {
        "scores": scores.tolist(),
        "masked": masked.tolist(),
        "targets": list(grades),
        "grades": list(grades.values()),
        "ranks": [order.index(item) + 1 for item in grades],
        "tied": [int(np.sum(scores[allowed] == scores[item])) - 1 for item in grades],
        "top": order[:10],
        "metrics": values,
    }


def interval_case(rng, users):
    """A mean's percentile interval from SciPy, with 20,000 resamples."""
    values = rng.choice([0.0, 0.0, 0.0, 0.25, 0.5, 1.0], users) * rng.random(users)
    result = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=rng)
    interval = [float(result.confidence_interval.low), float(result.confidence_interval.high)]
    return {"values": values.tolist(), "ci95": interval, "standard_error": float(result.standard_error)}


def paired_case(rng, users, effect):
    """p of the sign-flip test from SciPy: exact when it can enumerate, else from 100,000 draws."""
    first = np.round(rng.random(users), 2)
    second = np.round(np.clip(first - effect + rng.normal(0, 0.2, users), 0, 1), 2)
    exact = users <= 14
    result = stats.permutation_test(
        (first, second),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=np.inf if exact else 100_000,
        vectorized=True,
        rng=rng,
    )
    return {
        "first": first.tolist(),
        "second": second.tolist(),
        "mean_difference": float(result.statistic),
        "p_value": float(result.pvalue),
        "exact": exact,
    }


def main():
    rng = np.random.default_rng(20241018)
    recorded.write_json(
        recorded.FIXTURES / "metrics.json",
        {
            "made_with": recorded.made_with(__file__, "numpy", "scipy"),
            "rankings": [ranking_case(rng) for _ in range(12)],
            "intervals": [interval_case(rng, users) for users in (30, 200)],
            "paired": [paired_case(rng, users, effect) for users, effect in [(6, 0.3), (12, 0.1), (14, 0.0), (80, 0.04)]],
        },
    )


if __name__ == "__main__":
    main()
