"""Scores of the baselines that need no model, written out from their formulas in NumPy.

    python tests/reference/baselines.py

writes tests/fixtures/baselines/scores.json: sessions of training users and item texts (made up, seeded), histories, and what
ItemKNN (Deshpande & Karypis, 2004), BM25 (Robertson & Zaragoza, 2009) and EASE (Steck, 2019) score every item for them.
Nothing here is shared with the Rust code: co-occurrence and EASE go through dense matrices and numpy.linalg.inv.
"""
import collections
import math
import re

import numpy as np

from recorded import FIXTURES, made_with, write_json

ITEMS, USERS = 40, 60
WORDS = "harbour winter stranger comedy DRAMA Ärger 1994 robot's café thriller west-end love war dog moon".split()


def item_knn(x, history, neighbours, shrinkage):
    both = x.T @ x
    counts = np.diag(both)
    similarity = both / (np.sqrt(np.outer(counts, counts)) + shrinkage)
    np.fill_diagonal(similarity, 0.0)
    scores = np.zeros(ITEMS)
    for item in set(history):
        # A stable sort of the negated similarities leaves equal ones in ascending order of items.
        best = np.argsort(-similarity[item], kind="stable")[:neighbours]
        scores[best] += similarity[item][best]
    return scores


def terms(text):
    return [term.lower() for term in re.findall(r"[^\W_]+", text)]


def bm25(texts, history, k1=1.2, b=0.75):
    documents = [collections.Counter(terms(text)) for text in texts]
    lengths = [sum(document.values()) for document in documents]
    mean = sum(lengths) / len(lengths)
    frequency = collections.Counter(term for document in documents for term in document)
    query = [term for item in sorted(set(history)) for term in terms(texts[item])]
    scores = []
    for document, length in zip(documents, lengths):
        score = 0.0
        for term in query:
            tf, df = document[term], frequency[term]
            idf = math.log(1 + (len(texts) - df + 0.5) / (df + 0.5))
            score += idf * tf * (k1 + 1) / (tf + k1 * (1 - b + b * length / mean))
        scores.append(score)
    return np.array(scores)


def ease(x, history, l2):
    p = np.linalg.inv(x.T @ x + l2 * np.eye(ITEMS))
    weights = p / -np.diag(p)
    np.fill_diagonal(weights, 0.0)
    row = np.zeros(ITEMS)
    row[history] = 1.0
    return row @ weights


def main():
    rng = np.random.default_rng(7)
    popularity = 1.0 / np.arange(1, ITEMS)
    # The last item is in no session; sessions repeat items and are in no order.
    sessions = [
        rng.choice(ITEMS - 1, size=rng.integers(3, 12), p=popularity / popularity.sum()).tolist() for _ in range(USERS)
    ]
    texts = [
        f"Title: {' '.join(rng.choice(WORDS, size=rng.integers(1, 9)))}\nCategory: {rng.choice(WORDS)}_{rng.choice(WORDS)}"
        for _ in range(ITEMS)
    ]
    x = np.zeros((USERS, ITEMS))
    for user, session in enumerate(sessions):
        x[user, session] = 1.0
    # One with a repeated item, one with the item that nobody has.
    histories = [[0, 5, 9, 2], [3, 3, 1, 17], [39, 30, 4, 8]]
    settings = {"neighbours": 5, "shrinkage": 2.5, "l2": 3.0}
    expected = [
        {
            "history": history,
            "item_knn": item_knn(x, history, settings["neighbours"], settings["shrinkage"]).tolist(),
            "bm25": bm25(texts, history).tolist(),
            "ease": ease(x, history, settings["l2"]).tolist(),
        }
        for history in histories
    ]
    write_json(
        FIXTURES / "baselines" / "scores.json",
        {"made_with": made_with(__file__, "numpy"), **settings, "sessions": sessions, "texts": texts, "users": expected},
    )


if __name__ == "__main__":
    main()
