#!/usr/bin/env python3
"""How training scales on this host: 1, 2, 4 … ranks beside one rank in the same call. One command, one JSON object.

    python bench/scaling.py langptune --device cuda                        # Gemma-2B's shapes, adapters of rank 1024
    python bench/scaling.py langptune --device cuda --shapes llama-3-8b    # Llama-3-8B's, the last four blocks trained
    python bench/scaling.py langptune --device cuda --fault                # kills a rank of a real run, and goes on with half of them
    python bench/scaling.py langptune --device cpu [--fault]               # the same on tiny models: shows that it works
    python bench/scaling_model.py FILE                                     # what came out (--output FILE) beside what was predicted

With --device cuda every rank has a GPU, random weights and the load of the published runs: rollouts of 16 users (1024 + 2 × 512
tokens), their log-probabilities, 4 epochs with a step each, an embedder batch of 32 pairs with a step, a sweep that writes profiles of
64 users, a catalogue of 8192 items. Weak scaling gives that to every rank, strong scaling deals it out over all. With --device cpu
models are tiny and ranks get one thread each; with cuda the processors are
shared out as among the most ranks. Ranks default to the powers of two up to the GPUs, or to the processors.

The optimizer's state is shared out among ranks (ZeRO-2); on the most ranks (--unsharded last; or all, or none) the training stages run
without that too. An estimate of the time is printed first, and with --estimate alone.

The JSON's `runs` have, for every stage and kind of scaling: `seconds`, the median of all ranks' time; `tokens_per_second` of all ranks;
`idle_share` and `communication_share` of the ranks' time; `memory_bytes` of each rank; `efficiency`, one rank's time over this one (weak),
or over this one times the ranks (strong); and `update_seconds`, the sum of rollouts, scores and language model.
`fault` says which rank was killed where, how long the others lived on, and what the resumed run went on from.
"""
import argparse
import json
import os
import subprocess
import sys
import time

import scaling_fault

STAGES = ["rollouts", "scores", "language-model", "embedder", "sweep", "catalogue"]
TRAINING = ["language-model", "embedder"]
UPDATE = ["rollouts", "scores", "language_model"]
# Seconds of one H100: docs/benchmarks.md where it has them. Llama's rollouts are those of a batch of 64, of which there are two in a
# sweep of 64 profiles by 32, at half the rate at the worst; its pairs are 32.1 ms, its log-probabilities 240 ms for 8 rollouts.
SECONDS = {
    "gemma-2b": dict(zip(STAGES, (1.65, 0.70, 4.73, 0.14, 3.3, 1.74))),
    "llama-3-8b": dict(zip(STAGES, (6.8, 0.96, 2.11, 0.14, 13.5, 1.74))),
}
# Those of one rank alone, which strong scaling deals out.
USERS = {"cuda": 16, "cpu": 4}
# Assumed, not measured: a process until its first update, compiling kernels and joining NCCL included; and what a stage of half the work
# takes where it is bound by latency, not by work (rollouts, sweep).
START, LATENCY_BOUND = 25, 0.85


def gpus():
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def environment(device, most):
    """Ranks' environment: NVLink multicast stays off, as hosts that share their switches refuse it; every rank has as many threads as one
    of the most ranks can have, so that fewer are not faster for that."""
    threads = max(1, os.cpu_count() // most) if device == "cuda" else 1
    return {"NCCL_NVLS_ENABLE": "0", "RAYON_NUM_THREADS": str(threads), **os.environ}


def plan(options, ranks):
    """The runs: number of ranks, whether state is shared out, kinds of scaling, stages."""
    runs = []
    for count in ranks:
        scaling = options.scaling if count > 1 else ["weak"]
        if USERS[options.device] % count and "strong" in scaling:
            print(f"{count} ranks: no strong scaling, {USERS[options.device]} users cannot be dealt out evenly", file=sys.stderr)
            scaling = [kind for kind in scaling if kind != "strong"]
        if scaling:
            runs.append((count, True, scaling, options.stages))
    training = [stage for stage in options.stages if stage in TRAINING]
    several = [count for count in ranks if count > 1]
    if training:
        without = {"none": [], "last": several[-1:], "all": several}[options.unsharded]
        runs += [(count, False, ["weak"], training) for count in without]
    return runs


def estimate(shapes, updates, runs):
    """Seconds that the runs take, from what one GPU needs."""
    total = 0
    for count, _, scaling, stages in runs:
        total += START
        for kind in scaling:
            for stage in stages:
                share = 1 if kind == "weak" else 1 / count
                if kind == "strong" and stage in ("rollouts", "sweep"):
                    share = LATENCY_BOUND ** (count.bit_length() - 1)
                rounds = 1 if stage == "sweep" else updates + 1
                total += SECONDS[shapes][stage] * share * rounds
    return total


def run(options, count, sharded, scaling, stages, variables):
    bench = ["bench", "--updates", str(options.updates), "--device", options.device, "--shard-optimizer", str(sharded).lower()]
    bench += ["--scaling", ",".join(scaling), "--stages", ",".join(stages)]
    if options.device == "cuda":
        bench += ["--shapes", options.shapes]
    command = [options.program, *bench] if count == 1 else [options.program, "launch", "--nproc", str(count), "--", *bench]
    started = time.monotonic()
    # What other runs find is worth having where one fails.
    failed = {"ranks": count, "sharded": sharded, "failed": " ".join(command)}
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=variables, timeout=options.timeout)
    except subprocess.TimeoutExpired:
        # Ranks end with their launcher.
        failed["failed"] += f": not done after {options.timeout} s"
        return failed
    if done.returncode:
        failed["failed"] += f": exit code {done.returncode}"
        return failed
    return {**json.loads(done.stdout), "wall_seconds": time.monotonic() - started}


def compare(found, one):
    """Adds efficiencies beside one rank, and the time of an update."""
    for kind in ("weak", "strong"):
        if not found.get(kind):
            continue
        stages = found[kind]["stages"]
        if all(stage in stages for stage in UPDATE):
            found[kind]["update_seconds"] = sum(stages[stage]["seconds"] for stage in UPDATE)
        if not one:
            continue
        parts = 1 if kind == "weak" else found["ranks"]
        alone = {stage: part["seconds"] for stage, part in one["weak"]["stages"].items()}
        found[kind]["efficiency"] = {
            stage: alone[stage] / part["seconds"] / parts for stage, part in stages.items() if stage in alone
        }
        if "update_seconds" in found[kind] and "update_seconds" in one["weak"]:
            found[kind]["efficiency"]["update"] = one["weak"]["update_seconds"] / found[kind]["update_seconds"] / parts


def chosen(text, known):
    words = text.split(",")
    if unknown := [word for word in words if word not in known]:
        raise argparse.ArgumentTypeError(f"{unknown[0]}: expected some of {', '.join(known)}")
    return words


def numbers(text):
    found = sorted({int(word) for word in text.split(",")})
    if found[0] < 1:
        raise argparse.ArgumentTypeError(f"{found[0]}: expected at least 1")
    return found


def parse():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--shapes", default="gemma-2b", choices=sorted(SECONDS), help="with --device cuda")
    parser.add_argument("--ranks", type=numbers, help="numbers of ranks, e.g. 1,2,4,8; with --fault the largest counts")
    parser.add_argument("--updates", type=int, help="timed updates of each stage, after one to warm up (default: 2, Llama's shapes 1)")
    parser.add_argument("--stages", type=lambda text: chosen(text, STAGES), default=STAGES, help=f"some of {','.join(STAGES)}")
    parser.add_argument("--scaling", type=lambda text: chosen(text, ["weak", "strong"]), default=["weak", "strong"])
    parser.add_argument("--unsharded", choices=["none", "last", "all"], default="last", help="where ZeRO-2 is left out as well")
    parser.add_argument("--timeout", type=float, default=240, help="seconds that a run may take (default: 240)")
    parser.add_argument("--estimate", action="store_true", help="say how long it would take, and stop")
    parser.add_argument("--fault", action="store_true", help="the fault test in place of timings")
    parser.add_argument("--work", help="with --fault: folder for its run, kept; a temporary one by default")
    parser.add_argument("--demo", help="with --fault: a folder of `langptune demo` to train on; one is made by default")
    parser.add_argument("--output", help="file that gets the JSON as well")
    options = parser.parse_args()
    options.program = os.path.abspath(options.program) if os.path.exists(options.program) else options.program
    options.updates = options.updates or (1 if options.device == "cuda" and options.shapes == "llama-3-8b" else 2)
    return options


def main():
    options = parse()
    ranks = options.ranks
    if not ranks:
        most = gpus() if options.device == "cuda" else os.cpu_count()
        if most == 0:
            sys.exit("--device cuda: nvidia-smi shows no GPU; --ranks says how many there are to be")
        ranks = [2**power for power in range(most.bit_length()) if 2**power <= most]
    found = {"device": options.device}
    if options.fault:
        found["fault"] = scaling_fault.trial(options, ranks[-1], environment(options.device, ranks[-1]))
    else:
        # Everything is compared with one rank.
        runs = plan(options, sorted({1, *ranks}))
        found["updates"] = options.updates
        if options.device == "cuda":
            found["estimated_seconds"] = estimate(options.shapes, options.updates, runs)
            print(f"{len(runs)} runs, some {found['estimated_seconds']:.0f} s", file=sys.stderr)
        if options.estimate:
            return
        found["runs"] = []
        one = None
        started = time.monotonic()
        for count, sharded, scaling, stages in runs:
            done = run(options, count, sharded, scaling, stages, environment(options.device, ranks[-1]))
            compare(done, one)
            if count == 1 and "failed" not in done:
                one = done
            found["runs"].append(done)
            what = done.get("failed") or {kind: done[kind].get("efficiency") for kind in ("weak", "strong") if done[kind]}
            print(f"{count} ranks, state shared out: {sharded}: {what}", file=sys.stderr)
        found["wall_seconds"] = time.monotonic() - started
    text = json.dumps(found, indent=1)
    print(text)
    if options.output:
        with open(options.output, "w") as file:
            file.write(text + "\n")
    failed = any("failed" in done for done in found.get("runs", []))
    if failed or not found.get("fault", {"holds": True})["holds"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
