"""A rank of a real run is killed in the middle of a language model update, and half as many ranks go on (`bench/scaling.py --fault`)."""
import contextlib
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import time

# All must be out by then.
LIMIT = 60
# Update 1 is the embedder's; checkpoints are of updates 0, 2, 4 …. Update 6 begins without one: in its middle the rank is killed. Update
# 4 begins without one too, so it says how long an update takes.
SAVE_EVERY, LAST_CHECKPOINT, KILLED_IN = 2, 4, 6
# The resumed run's last update.
LAST = 8
PATIENCE = 600
# What a language model update logs, and no other.
OF_LANGUAGE_MODEL = "objective/approxkl"


def wait(condition, what, process):
    """Waits until `condition` gives something; nothing may end meanwhile."""
    until = time.monotonic() + PATIENCE
    while True:
        if found := condition():
            return found
        if process.poll() is not None or time.monotonic() > until:
            raise RuntimeError(f"{what}: not within {PATIENCE} s, or the run ended before (exit code {process.poll()})")
        time.sleep(0.002)


def demo(options, folder, environment):
    """A demo's dataset, models and configuration: the demo is stopped when its training begins."""
    command = [options.program, "demo", "--out", str(folder), "--no-serve", "--device", options.device]
    # All processors make it, whatever ranks get.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, env={**os.environ, "NCCL_NVLS_ENABLE": environment["NCCL_NVLS_ENABLE"]})
    config = folder / "run" / "config.toml"
    wait(config.is_file, "the demo's training", process)
    process.send_signal(signal.SIGINT)
    time.sleep(1)
    # The second signal ends at once: its checkpoint is not needed.
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
    process.wait()
    return config


def updates(run):
    """When each of the language model's updates was logged, by number, and how often."""
    found = {}
    with contextlib.suppress(FileNotFoundError):
        for line in (run / "metrics.jsonl").read_text().splitlines():
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                if OF_LANGUAGE_MODEL in entry:
                    found.setdefault(entry["step"], []).append(entry["wall_time"])
    return found


def ranks_of(launcher):
    """Process numbers by rank."""
    found = {}
    children = pathlib.Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    for child in children:
        with contextlib.suppress(OSError):
            for variable in pathlib.Path(f"/proc/{child}/environ").read_bytes().split(b"\0"):
                if variable.startswith(b"RANK="):
                    found[int(variable[5:])] = int(child)
    return found


def lives(process):
    """Whether a process computes still: a dead one that nobody has waited for does not."""
    try:
        state = pathlib.Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def launch(options, ranks, words, said, environment):
    command = [options.program, "launch", "--nproc", str(ranks), "--", "train", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=said, env=environment)


def kill_and_measure(options, ranks, words, run, folder, environment):
    """Kills the last rank in the middle of an update, and says how the others ended."""
    said = folder / "killed.log"
    with open(said, "wb") as file:
        launcher = launch(options, ranks, words, file, environment)
        try:
            wait(lambda: KILLED_IN - 1 in updates(run), f"update {KILLED_IN - 1}", launcher)
            logged = updates(run)
            pace = logged[4][0] - logged[3][0]
            processes = ranks_of(launcher)
            time.sleep(max(0, logged[KILLED_IN - 1][0] + pace / 2 - time.time()))
            os.kill(processes[ranks - 1], signal.SIGKILL)
            killed = time.monotonic()
            out = {}
            # Somewhat longer than they may take, so that a failure says how long it took.
            while len(out) < len(processes) and time.monotonic() - killed < 2 * LIMIT:
                for rank, process in processes.items():
                    if rank not in out and not lives(process):
                        out[rank] = time.monotonic() - killed
                time.sleep(0.002)
            launcher.wait(max(1, 2 * LIMIT - (time.monotonic() - killed)))
            ended = time.monotonic() - killed
        finally:
            if launcher.poll() is None:
                launcher.kill()
                launcher.wait()
    said = said.read_text(errors="replace")
    first = re.search(r"launch: rank (\d+) was the first to end: (signal: \d+)", said)
    in_update = KILLED_IN not in updates(run)
    return {
        "killed_rank": ranks - 1,
        "update_seconds": pace,
        "killed_in_update": KILLED_IN if in_update else None,
        "seconds_until_out": [out.get(rank) for rank in range(ranks)],
        "seconds_until_launcher_out": ended,
        "launcher_exit_code": launcher.returncode,
        "launcher_said": first and first.group(0),
        "ended_in_time": len(out) == ranks and max(out.values()) < LIMIT and ended < LIMIT,
        "named": bool(first) and int(first.group(1)) == ranks - 1 and launcher.returncode == 1,
    }


def resume(options, ranks, run, folder, environment):
    """Goes on with the run, and says from where to where."""
    said = folder / "resumed.log"
    words = ["--resume", "--output", str(run), "--stop_after", str(LAST), "--device", options.device]
    before = updates(run)
    with open(said, "wb") as file:
        launcher = launch(options, ranks, words, file, environment)
        try:
            code = launcher.wait(PATIENCE)
        finally:
            if launcher.poll() is None:
                launcher.kill()
                launcher.wait()
    text = said.read_text(errors="replace")
    found = re.search(r"going on after update (\d+)", text)
    after = updates(run)
    # Those up to the checkpoint stay as they were logged; those after it are made again, once each.
    kept = all(after.get(step) == before[step] for step in range(2, LAST_CHECKPOINT + 1))
    again = range(LAST_CHECKPOINT + 1, LAST + 1)
    new = all(len(after.get(step, [])) == 1 and after[step] != before.get(step) for step in again)
    went_on_from = int(found.group(1)) if found else None
    return {
        "resumed_ranks": ranks,
        "resumed_exit_code": code,
        "went_on_from": went_on_from,
        "went_on_to": max(after, default=None),
        "went_on": code == 0 and went_on_from == LAST_CHECKPOINT and kept and new and max(after) == LAST,
        "resumed_said": None if code == 0 else text[-2000:],
    }


def trial(options, ranks, environment):
    """The whole test with so many ranks; `holds` sums it up."""
    with contextlib.ExitStack() as stack:
        folder = options.work or stack.enter_context(tempfile.TemporaryDirectory(prefix="langptune-fault-"))
        folder = pathlib.Path(folder).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        run = folder / "run"
        if run.exists():
            sys.exit(f"{run}: there is a run already; give another --work")
        if options.demo:
            config = pathlib.Path(options.demo).absolute() / "run" / "config.toml"
            if not config.is_file():
                sys.exit(f"{config}: no such file; --demo is a folder that `langptune demo --out` has made")
        else:
            config = demo(options, folder / "demo", environment)
        settings = {
            "config": config, "output": run, "device": options.device, "num_iterations": 1, "num_emb_updates": 1,
            "num_lm_updates": 100_000, "noptepochs": 4, "save_every": SAVE_EVERY, "print_sample_output_freq": 1_000_000, "run_eval": "false",
        }
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        killed = kill_and_measure(options, ranks, words, run, folder, environment)
        checkpoints = sorted(path.name for path in (run / "checkpoints").iterdir() if path.name.startswith("update-"))
        resumed = resume(options, max(1, ranks // 2), run, folder, environment)
    found = {"ranks": ranks, **killed, "last_checkpoint": checkpoints[-1] if checkpoints else None, **resumed}
    holds = killed["killed_in_update"] and killed["ended_in_time"] and killed["named"] and resumed["went_on"]
    return {**found, "limit_seconds": LIMIT, "holds": bool(holds)}
