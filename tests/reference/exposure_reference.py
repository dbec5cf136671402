"""Records Gini coefficients, coverage and Lorenz curves of counts as NumPy computes them, for eval-core's comparison.

The Gini coefficient is taken from its definition, half the relative mean difference over all pairs, not from a sorted sum.
Writes tests/fixtures/exposure.json.
"""
import numpy as np

import recorded

POINTS = 11


def case(counts):
    counts = np.asarray(counts, dtype=np.int64)
    differences = np.abs(counts[:, None] - counts[None, :]).sum()
    sums = np.concatenate([[0], np.cumsum(np.sort(counts))])
    places = np.arange(POINTS) * len(counts) // (POINTS - 1)
    return {
        "counts": counts.tolist(),
        "gini": float(differences / (2 * len(counts) ** 2 * counts.mean())),
        "coverage": float((counts > 0).mean()),
        "lorenz": np.stack([places / len(counts), sums[places] / sums[-1]], axis=1).tolist(),
    }


def main():
    rng = np.random.default_rng(20)
    cases = [
        case(rng.integers(0, 50, 200)),
        case(np.floor(1000 / np.arange(1, 301)).astype(int)),  # popularity by Zipf's law
        case(rng.zipf(1.6, 157) % 10_000),
        case((rng.random(400) < 0.05) * rng.integers(1, 4_000, 400)),  # few items have all
    ]
    path = recorded.FIXTURES / "exposure.json"
    recorded.write_json(path, {"made_with": recorded.made_with(__file__, "numpy"), "cases": cases})


if __name__ == "__main__":
    main()
