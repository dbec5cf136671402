"""Records principal components as NumPy's eigh finds them, for eval-core's comparison.

Vectors are f16, so that both sides begin with the same numbers. Writes tests/fixtures/principal_axes.json.
"""
import numpy as np

import recorded


def case(items, others, cosine):
    items, others = items.astype(np.float16), others.astype(np.float16)
    x, y = items.astype(np.float64), others.astype(np.float64)
    if cosine:
        x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    mean = x.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(x.T, bias=True))
    axes = vectors[:, [-1, -2]]
    axes = axes * np.sign(axes[np.abs(axes).argmax(axis=0), [0, 1]])
    return {
        "dims": items.shape[1],
        "cosine": cosine,
        "items": items.astype(float).round(7).ravel().tolist(),
        "others": others.astype(float).round(7).ravel().tolist(),
        "explained": (values[[-1, -2]] / values.sum()).tolist(),
        "projected_items": ((x - mean) @ axes).round(9).tolist(),
        "projected_others": ((y - mean) @ axes).round(9).tolist(),
    }


def main():
    rng = np.random.default_rng(7)
    spread = rng.normal(size=(40, 6)) * [3, 2, 1, 1, 0.5, 0.1] @ np.linalg.qr(rng.normal(size=(6, 6)))[0] + 1
    centres = rng.normal(size=(5, 17))
    clusters = centres[rng.integers(0, 5, 90)] + 0.3 * rng.normal(size=(90, 17))
    cases = [
        case(spread, rng.normal(size=(4, 6)), cosine=False),
        case(clusters, centres[:3] * 2, cosine=True),
        case(rng.normal(size=(300, 9)), rng.normal(size=(2, 9)), cosine=True),  # no direction stands out
    ]
    path = recorded.FIXTURES / "principal_axes.json"
    recorded.write_json(path, {"made_with": recorded.made_with(__file__, "numpy"), "cases": cases})


if __name__ == "__main__":
    main()
