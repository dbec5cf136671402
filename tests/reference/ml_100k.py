"""Counts and hashes of MovieLens 100K after preparation (the data itself may not be in the repository).

    python tests/reference/ml_100k.py DATA_DIR MODELS_DIR

DATA_DIR holds Movies_and_TV.jsonl.gz and meta_Movies_and_TV.jsonl.gz (MovieLens 100K in the layout of Amazon Reviews
2023); MODELS_DIR holds SmolLM2-135M-Instruct and all-MiniLM-L6-v2, of which only tokenizers and chat template are read.
Writes tests/fixtures/raw/ml-100k-expected.json: `cases`, the answers of prepare_reference.py --hash-only (see there for the
hashed forms), for the default options and for limits at which the length rules have something to do.
"""
import pathlib
import sys

from prepare_reference import arguments, prepare
from recorded import FIXTURES, write_json

CASES = [[], ["--item-limit", "300", "--prompt-limit", "560", "--test-percent", "30"]]


def main():
    data, models = map(pathlib.Path, sys.argv[1:])
    common = ["--reviews", str(data / "Movies_and_TV.jsonl.gz"), "--metadata", str(data / "meta_Movies_and_TV.jsonl.gz"),
              "--lm", str(models / "SmolLM2-135M-Instruct"), "--embedder", str(models / "all-MiniLM-L6-v2"), "--hash-only"]
    cases = []
    for options in CASES:
        cases.append(prepare(arguments(common + options)))
        print(options, cases[-1]["counts"], cases[-1]["more_counts"])
    made_with = cases[0]["made_with"] | {"script": "tests/reference/ml_100k.py"}
    write_json(FIXTURES / "raw" / "ml-100k-expected.json",
               {"made_with": made_with, "cases": [{k: v for k, v in c.items() if k != "made_with"} for c in cases]})


if __name__ == "__main__":
    main()
