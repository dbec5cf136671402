#!/usr/bin/env python3
"""The model on paper of docs/scaling.md: bytes on the wire against compute, for one update of every GPU's own 16 users.

    python bench/scaling_model.py                 # the tables
    python bench/scaling_model.py measured.json   # points of `bench/scaling.py --output measured.json` beside what is predicted for them

Beside measured points, compute is what one rank of the same call took; what ranks cost each other is the model's.

Compute times were measured on one H100 (docs/benchmarks.md); bandwidths and latencies are assumptions, named below. Prints the tables.
"""
import json
import sys

# Of NVLink's 450 GB/s each way and of 400 Gb/s InfiniBand's 50 GB/s, what large collectives reach; a ring's step between hosts or
# within one; a small collective over TCP costs rank 0 this for every rank.
NVLINK, INFINIBAND = 0.8 * 450e9, 0.85 * 50e9
STEP_WITHIN, STEP_BETWEEN = 2e-6, 6e-6
TCP_RANK, TCP_COLLECTIVES = 20e-6, 30
GPUS_OF_HOST, BUCKET = 8, 64 << 20

# Seconds on one GPU: sampling 32 responses, log-probabilities of 32 rollouts, training (4 epochs of 16 pairs and a step), a step
# alone, and what collecting and spreading parts adds to it (a step over NCCL with one rank, less a step alone).
MODELS = {
    "Gemma-2B, adapters of rank 1024": dict(
        trained=1_519_386_624, rollouts=1.655, scores=4 * 0.1745, training=4.732, step=0.0164, parts=0.0400 - 0.0164, steps=4
    ),
    "Llama-3-8B, last 4 blocks and head": dict(
        trained=1_397_796_864, rollouts=None, scores=None, training=4 * 16 * 0.0321, step=0.0143, parts=0.0342 - 0.0143, steps=4
    ),
}


def step_seconds(model, ranks, nics, bytes_each=4, bucket=BUCKET, hierarchical=False):
    """One optimizer step: moving the own part, copies, reduce-scatter and all-gather."""
    hosts = max(1, ranks // GPUS_OF_HOST)
    sent = model["trained"] * (bytes_each + 4) * (ranks - 1) / ranks
    # A ring goes through every host once: all its NICs together carry what each GPU sends.
    bandwidth = NVLINK if hosts == 1 else min(NVLINK, nics * INFINIBAND)
    buckets = -(-model["trained"] // bucket)
    if hierarchical and hosts > 1:
        # Within hosts first: between them each GPU has an eighth.
        within = model["trained"] * (bytes_each + 4) * (GPUS_OF_HOST - 1) / GPUS_OF_HOST / NVLINK
        share = model["trained"] / GPUS_OF_HOST * (bytes_each + 4) * (hosts - 1) / hosts
        wire = within + share / (nics * INFINIBAND / GPUS_OF_HOST)
        latency = 2 * buckets * ((GPUS_OF_HOST - 1) * STEP_WITHIN + (hosts - 1) * STEP_BETWEEN)
    else:
        wire = sent / bandwidth
        latency = 2 * buckets * (ranks - 1) * (STEP_WITHIN if hosts == 1 else STEP_BETWEEN)
    return model["step"] / ranks + model["parts"], wire, latency


def row(model, ranks, nics, pairs=16, **options):
    local, wire, latency = step_seconds(model, ranks, nics, **options)
    control = TCP_COLLECTIVES * (ranks - 1) * TCP_RANK
    steps = model["steps"]
    compute = (model["training"] - steps * model["step"]) * pairs / 16
    alone = compute + steps * model["step"]
    together = compute + steps * (local + wire + latency)
    training = alone / (together + control)
    update = None
    if model["rollouts"]:
        other = model["rollouts"] + model["scores"] * pairs / 16
        update = (alone + other) / (together + control + other)
    return local, wire, latency, control, training, update


def show(model, cases):
    print("| GPUs | NICs a host | what | copies, own part | wire | latency | control an update | training | whole update |")
    print("|---|---|---|---|---|---|---|---|---|")
    for ranks, nics, what, options in cases:
        local, wire, latency, control, training, update = row(model, ranks, nics, **options)
        whole = "–" if update is None else f"{100 * update:.1f} %"
        print(
            f"| {ranks} | {nics if ranks > GPUS_OF_HOST else '–'} | {what} | {1e3 * local:.0f} ms | {1e3 * wire:.0f} ms "
            f"| {1e3 * latency:.0f} ms | {1e3 * control:.0f} ms | {100 * training:.1f} % | {whole} |"
        )
    print()


# Of a card, which a measured step is not told by itself: an embedder's step alone, in seconds, and copies of parts by value moved.
EMBEDDER_STEP, PARTS_BY_VALUE = 0.008, (0.0400 - 0.0164) / 1_519_386_624
# What rank 0's TCP carries a second, to all others one after the other: assumed.
LOOPBACK = 2e9
# Dimensions of BERT-large's vectors.
WIDTH = 1024
NAMES = {"gemma-2b": "Gemma-2B, adapters of rank 1024", "llama-3-8b": "Llama-3-8B, last 4 blocks and head"}


def stage_seconds(stage, shapes, alone, timed, ranks, sharded, share):
    """Seconds that a stage is predicted to take on ranks of one host, each with `share` of the work that took `alone` by itself; None where
    there is no model of it."""
    load = timed["load"]
    if stage in ("rollouts", "sweep") and share < 1:
        # Bound by latency the more, the fewer texts there are.
        return None
    if stage in ("rollouts", "scores", "sweep"):
        return alone * share
    if stage == "catalogue":
        vectors = load["items"] * ranks * 4 * WIDTH
        return alone * share + (ranks - 1) * vectors / LOOPBACK
    steps = load["epochs"] if stage == "language_model" else 1
    if stage == "language_model":
        model = MODELS[NAMES[shapes]]
    else:
        trained = timed["embedder_trained"]
        model = dict(trained=trained, step=EMBEDDER_STEP, parts=trained * PARTS_BY_VALUE)
    local, wire, latency = step_seconds(model, ranks, GPUS_OF_HOST)
    if not sharded:
        # An all-reduce moves as much; every rank steps over everything, and nothing is cut into parts.
        local = model["step"]
    return (alone - steps * model["step"]) * share + steps * (local + wire + latency)


def beside(measured):
    """Every measured stage, and its prediction."""
    runs = [run for run in measured["runs"] if "failed" not in run]
    one = next((run["weak"] for run in runs if run["ranks"] == 1), None)
    if not one:
        sys.exit("no run of one rank to compare with")
    print("| ranks | scaling | ZeRO-2 | stage | seconds | predicted | efficiency | predicted | idle | communication |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for run in runs:
        for kind in ("weak", "strong"):
            for stage, part in ((run[kind] or {}).get("stages") or {}).items():
                if run["ranks"] == 1 or stage not in one["stages"]:
                    continue
                alone, share = one["stages"][stage]["seconds"], 1 if kind == "weak" else 1 / run["ranks"]
                expected = None
                if run["shapes"] in NAMES:
                    expected = stage_seconds(stage, run["shapes"], alone, run[kind], run["ranks"], run["sharded"], share)
                cells = [f"{part['seconds']:.3f} s", f"{expected:.3f} s" if expected else "–"]
                cells += [f"{100 * alone * share / seconds:.1f} %" if seconds else "–" for seconds in (part["seconds"], expected)]
                cells += [f"{100 * part[name]:.1f} %" for name in ("idle_share", "communication_share")]
                zero = "on" if run["sharded"] else "off"
                print(f"| {run['ranks']} | {kind} | {zero} | {stage.replace('_', ' ')} | {' | '.join(cells)} |")
    if not any(run["shapes"] in NAMES for run in runs):
        print("\nNothing is predicted for these shapes: the model is of the published runs' on GPUs.")


def main():
    if len(sys.argv) > 1:
        with open(sys.argv[1]) as file:
            return beside(json.load(file))
    plain = [(8, 8, "as it is", {})]
    plain += [(ranks, nics, "as it is", {}) for ranks in (64, 512) for nics in (8, 1)]
    changed = [
        (64, 1, "bf16 gradients", {"bytes_each": 2}),
        (64, 1, "64 users a GPU", {"pairs": 64}),
        (512, 8, "buckets of 1 GB", {"bucket": 256 << 20}),
        (512, 8, "hierarchical", {"hierarchical": True}),
        (512, 8, "hierarchical, 64 users a GPU", {"hierarchical": True, "pairs": 64}),
    ]
    for name, model in MODELS.items():
        print(f"### {name}: {model['trained'] / 1e9:.2f} billion trained values, {4 * model['trained'] / 1e9:.1f} GB of gradients\n")
        show(model, plain + changed)


if __name__ == "__main__":
    main()
