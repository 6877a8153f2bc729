"""Kills a run at random moments, during saves too, and demands the parameters of one left alone.

    make soak                                    # 50 moments, some minutes
    .venv/bin/python -m tests.soak.crashes --kills 5

Every time the run has to go on from a complete checkpoint; in the end all that a checkpoint holds
must be equal, bit for bit, to that of an uninterrupted run. Exits with 1 if it is not.
"""

import argparse
import multiprocessing
import os
import random
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.soak.tiny import ARGUMENTS
from tests.train.saved import arrays
from train.run.log import read_metrics
from train.system.progress import Progress

CADENCE = ("--log-every", "5", "--checkpoint-every", "5", "--evaluate-every", "1000")
STEPS_PER_KILL = 120
SECONDS = 4.0
"""A run is killed within this time after it has begun to train."""


_processes = multiprocessing.get_context("forkserver")
# What a run imports, once for all of them: that is most of what a tiny one takes.
_processes.set_forkserver_preload(["train.loop.loop", "train.system.progress", "sklearn.datasets"])


def start(out: Path, steps: int) -> multiprocessing.process.BaseProcess:
    """Starts or goes on with a run, as `python -m train fit` does."""
    arguments = ("fit", "digits", "--out", str(out), "--resume", "--steps", str(steps))
    process = _processes.Process(target=_run, args=([*arguments, *ARGUMENTS, *CADENCE],))
    process.start()
    return process


def _run(arguments: list[str]) -> None:
    os.environ |= {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    from train.__main__ import main

    sys.exit(main(arguments))


def complete(out: Path) -> tuple[int, bool]:
    """The last complete checkpoint's step, 0 without any, and whether there are incomplete ones."""
    folder = out / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.exists() else []
    steps = [int(name) for name in names if name.isdecimal()]
    return max(steps, default=0), len(names) > len(steps)


def last_step(out: Path) -> int:
    """The last step that has a line of metrics."""
    return max((row["step"] for row in read_metrics(out / "metrics.jsonl")), default=0)


def losses(out: Path) -> list[tuple]:
    """What the metrics hold of each step."""
    rows = read_metrics(out / "metrics.jsonl")
    return [(row["step"], row["split"], row["loss"], row["accuracy"]) for row in rows]


def inode(out: Path) -> int:
    """Of the metrics, which every process begins anew."""
    path = out / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else 0


def kill_once(out: Path, steps: int, seconds: float) -> str:
    """Lets a run train for a time and kills it; returns what was there then."""
    (goes_on_from, _), file = complete(out), inode(out)
    process = start(out, steps)
    while process.is_alive() and (inode(out) == file or last_step(out) <= goes_on_from):
        time.sleep(0.01)
    time.sleep(seconds)
    ended = not process.is_alive()
    process.kill()
    process.join()
    assert not ended, f"a run ended by itself with code {process.exitcode}"
    checkpoint, saving = complete(out)
    note = ", in the middle of a save" if saving else ""
    return f"at step {last_step(out)}, last complete checkpoint {checkpoint}{note}"


def crash(
    folder: Path,
    kills: int,
    *,
    steps_per_kill: int = STEPS_PER_KILL,
    seconds: float = SECONDS,
    seed: int = 0,
) -> str:
    """Kills a run at random moments and compares what comes of it with one that was left alone.

    Args:
        folder: where the two runs go.
        kills: how many moments.
        steps_per_kill: by this many times the kills the runs have ended.
        seconds: a run is killed within this time after it has begun to train.
        seed: chooses the moments.

    Returns:
        What happened, in a sentence.

    Raises:
        AssertionError: if a run ends by itself, or the two differ in any bit.
    """
    steps, moment = steps_per_kill * kills, random.Random(seed)
    killed, whole = folder / "killed", folder / "whole"
    undisturbed = start(whole, steps)
    saves = 0
    with Progress(kills) as progress:
        for _ in range(kills):
            found = kill_once(killed, steps, moment.uniform(0, seconds))
            saves += "save" in found
            progress.begin(found)
            progress.advance()
    for process in (start(killed, steps), undisturbed):
        process.join()
        assert process.exitcode == 0, f"a run ended with code {process.exitcode}"
    assert losses(killed) == losses(whole), "the two runs have other losses"
    assert all(map(np.array_equal, arrays(killed), arrays(whole))), "the two runs differ"
    return (
        f"{kills} kills, {saves} of them in the middle of a save; after {steps} steps the state is "
        "the same, bit for bit."
    )


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="moments (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments (default: 0)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        try:
            print(crash(Path(folder), options.kills, seed=options.seed))
        except AssertionError as failed:
            print(f"FAILED: {failed}")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
