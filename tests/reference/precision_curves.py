#!/usr/bin/env python3
"""Whether runs in bf16 learn as runs in f32 do: differences between precisions beside differences between seeds.

    langptune demo --out demo --no-serve --device cuda
    for seed in 1 2 3 4 5 6 7 8; do for precision in f32 bf16; do
        langptune train --config demo/run/config.toml --num_iterations 1 --num_emb_updates 50 --num_lm_updates 50 \\
            --print_sample_output_freq 50 --micro-batch 16 --device cuda --precision $precision --seed $seed --output runs/$precision-$seed
    done; done
    python tests/reference/precision_curves.py runs

reads runs/PRECISION-SEED/metrics.jsonl. The distance of two curves is the root mean square of their differences over the updates. A seed
draws the same users in the same order, and tokens from the same random stream, in both precisions. Of each curve the table has

    mean          over updates and seeds, in f32
    one seed      distance of f32 and bf16 with one seed, mean over seeds
    two seeds     distance of two runs of one precision with different seeds, mean over pairs of both precisions
    crossed       distance of an f32 and a bf16 run with different seeds, mean over pairs: that of two seeds, were precision nothing
    bf16 - f32    mean over updates of the difference of the runs with one seed, mean over seeds, with its standard error; t is their ratio
    late          the same of the last ten updates

Needs nothing but Python.
"""
import argparse
import itertools
import json
import math
import pathlib
import statistics

# Name, key, and the key that tells the lines of its phase.
CURVES = [
    ("embedder: loss", "embedder/loss", "embedder/loss"),
    ("embedder: NDCG in the batch", "objective/in_batch_ndcg", "embedder/loss"),
    ("language model: loss", "dpo/loss/policy_avg", "dpo/loss/policy_avg"),
    ("language model: reward (NDCG)", "objective/rewards", "dpo/loss/policy_avg"),
    ("language model: KL", "objective/kl", "dpo/loss/policy_avg"),
    ("language model: entropy", "objective/entropy", "dpo/loss/policy_avg"),
]
EVALUATED = "objective/gen_ndcg@20"
LATE = 10


def read(folder):
    lines = [json.loads(line) for line in open(folder / "metrics.jsonl")]
    curves = {name: [line[key] for line in lines if tells in line] for name, key, tells in CURVES}
    curves[EVALUATED] = [line[EVALUATED] for line in lines if EVALUATED in line]
    return curves


def distance(one, other):
    return math.sqrt(statistics.fmean((a - b) ** 2 for a, b in zip(one, other, strict=True)))


def paired(differences):
    mean = statistics.fmean(differences)
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    t = mean / error if error > 0 else math.copysign(math.inf, mean) if mean else 0.0
    return f"{mean:+.4f} ± {error:.4f} (t {t:+.1f})"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=pathlib.Path)
    folder = parser.parse_args().runs
    runs = {precision: {path.name.split("-")[1]: read(path) for path in sorted(folder.glob(f"{precision}-*"))}
            for precision in ("f32", "bf16")}
    f32, bf16 = runs["f32"], runs["bf16"]
    if set(f32) != set(bf16) or len(f32) < 2:
        raise SystemExit(f"{folder}: expected the same two or more seeds in f32-* and bf16-*, found {sorted(f32)} and {sorted(bf16)}")
    print("| curve | updates | mean | one seed | two seeds | crossed | bf16 − f32 | late |\n|---|---|---|---|---|---|---|---|")
    for name, _, _ in CURVES:
        a, b = ({seed: run[name] for seed, run in one.items()} for one in (f32, bf16))
        one = statistics.fmean(distance(a[seed], b[seed]) for seed in a)
        two = statistics.fmean(distance(x[s], x[t]) for x in (a, b) for s, t in itertools.combinations(x, 2))
        crossed = statistics.fmean(distance(a[s], b[t]) for s, t in itertools.permutations(a, 2))
        differences = [[y - x for x, y in zip(a[seed], b[seed], strict=True)] for seed in a]
        mean = statistics.fmean(map(statistics.fmean, a.values()))
        whole, late = ([statistics.fmean(row[-count:]) for row in differences] for count in (len(differences[0]), LATE))
        print(f"| {name} | {len(differences[0])} | {mean:.4f} | {one:.4f} | {two:.4f} | {crossed:.4f} | {paired(whole)} | {paired(late)} |")
    print(f"\n{EVALUATED}, first and last, by seed:")
    for precision, one in runs.items():
        print(f"  {precision}: " + ", ".join(f"{run[EVALUATED][0]:.4f} → {run[EVALUATED][-1]:.4f}" for run in one.values()))
    print("  bf16 − f32 at the end: " + paired([bf16[seed][EVALUATED][-1] - f32[seed][EVALUATED][-1] for seed in f32]))


if __name__ == "__main__":
    main()
