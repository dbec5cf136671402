#!/usr/bin/env python3
"""How training scales on this host: updates of 1, 2, 4 … ranks, each with the same work, beside one rank in the same call.

    python bench/scaling.py langptune [--device cpu|cuda] [--ranks 1,2,4,8] [--updates 3] [--output FILE]

With --device cuda every rank has a GPU, Gemma-2B's shapes with adapters of rank 1024, random weights, and the load of the published
runs: 16 users, 1024 + 2 × 512 tokens, 4 epochs. With --device cpu the models are tiny and ranks get one thread each, which shows that
everything works, and what processes cost each other. Ranks default to the powers of two up to the GPUs, or to the processors.

Prints one JSON object: for every number of ranks, with and without the optimizer's state shared out, seconds of rollouts, language
model and embedder (null where the embedder has no GPU path in the bench), tokens a second, idle and communication shares and memory; and
`efficiency`, the time of one rank over the time of these, for work that grows with the ranks.
"""
import argparse
import json
import os
import subprocess
import sys

PARTS = ("rollouts", "language_model", "embedder")


def gpus():
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return sum(line.startswith("GPU ") for line in listed.splitlines())


def run(program, ranks, arguments):
    bench = ["bench", "--updates", *arguments]
    command = [program, *bench] if ranks == 1 else [program, "launch", "--nproc", str(ranks), "--", *bench]
    environment = {**os.environ, "RAYON_NUM_THREADS": os.environ.get("RAYON_NUM_THREADS", "1")}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}")
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--ranks")
    parser.add_argument("--updates", type=int, default=3)
    parser.add_argument("--output")
    options = parser.parse_args()
    most = gpus() if options.device == "cuda" else os.cpu_count()
    if most == 0:
        sys.exit("--device cuda: nvidia-smi shows no GPU")
    if options.ranks:
        ranks = [int(number) for number in options.ranks.split(",")]
    else:
        ranks = [2**power for power in range(most.bit_length()) if 2**power <= most]
    if ranks[0] != 1:
        ranks.insert(0, 1)
    runs = []
    for count in ranks:
        for sharded in ["true"] if count == 1 else ["true", "false"]:
            arguments = [str(options.updates), "--device", options.device, "--shard-optimizer", sharded]
            found = run(options.program, count, arguments)
            one, own = (runs[0] if runs else found)["timed"], found["timed"]
            found["efficiency"] = {part: one[part]["seconds"] / own[part]["seconds"] for part in PARTS if own[part]}
            runs.append(found)
            print(f"{count} ranks, state shared out: {sharded}: {found['efficiency']}", file=sys.stderr)
    text = json.dumps({"device": options.device, "updates": options.updates, "runs": runs}, indent=1)
    print(text)
    if options.output:
        with open(options.output, "w") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    main()
