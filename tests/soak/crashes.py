"""Kills a run at random moments, during saves too, and demands the parameters of one left alone.

    make soak                                    # 50 moments, some minutes
    .venv/bin/python -m tests.soak.crashes --kills 5

Every time the run has to go on from a complete checkpoint; in the end all that a checkpoint holds
must be equal, bit for bit, to that of an uninterrupted run. Exits with 1 if it is not.
"""

import argparse
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from train.evaluate import load_state
from train.run import load_run
from train.writers import read_metrics

TINY = (
    *("--model-options", "conv_features=8", "primary_types=2", "decoder_hidden=[8]"),
    *("--batch-size", "16", "--max-shift", "1", "--ema-decay", "0.9"),
    *("--log-every", "5", "--checkpoint-every", "5", "--evaluate-every", "1000"),
)
STEPS_PER_KILL = 120
SECONDS = 4.0
"""A run is killed within this time after it has begun to train."""


def start(out: Path, steps: int) -> subprocess.Popen:
    """Starts or goes on with a run."""
    arguments = ("fit", "digits", "--out", str(out), "--resume", "--steps", str(steps), *TINY)
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "train", *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def begun(out: Path) -> float:
    """When the run last wrote a line of metrics."""
    path = out / "metrics.jsonl"
    return path.stat().st_mtime if path.exists() else 0.0


def kill_once(out: Path, steps: int, moment: random.Random) -> str:
    """Lets a run train for a random time and kills it; tells what was there then."""
    before = begun(out)
    process = start(out, steps)
    while begun(out) == before and process.poll() is None:
        time.sleep(0.01)
    time.sleep(moment.uniform(0, SECONDS))
    ended = process.poll() is not None
    process.kill()
    process.wait()
    if ended:
        return f"ended by itself with code {process.returncode}"
    names = sorted(path.name for path in (out / "checkpoints").iterdir())
    complete = [int(name) for name in names if name.isdecimal()]
    saving = len(names) > len(complete)
    rows = read_metrics(out / "metrics.jsonl")
    told = max((row["step"] for row in rows), default=0)
    note = ", in the middle of a save" if saving else ""
    return f"at step {told}, last complete checkpoint {max(complete, default=None)}{note}"


def state(out: Path) -> list[np.ndarray]:
    """All that the last checkpoint holds."""
    _, found = load_state(load_run(out), "last", devices=1)
    found = found._replace(key=jax.random.key_data(found.key))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(found)]


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="moments (default: 50)")
    parser.add_argument("--seed", type=int, default=0, help="chooses the moments (default: 0)")
    options = parser.parse_args()
    steps, moment = STEPS_PER_KILL * options.kills, random.Random(options.seed)
    saves = 0
    with tempfile.TemporaryDirectory() as folder:
        killed, whole = Path(folder) / "killed", Path(folder) / "whole"
        for number in range(1, options.kills + 1):
            found = kill_once(killed, steps, moment)
            saves += "save" in found
            print(f"{number}/{options.kills}: {found}", flush=True)
            if "ended" in found:
                return 1
        for out in (killed, whole):
            if code := start(out, steps).wait():
                print(f"{out.name} ended with code {code}")
                return 1
        same = all(map(np.array_equal, state(killed), state(whole)))
    print(
        f"{options.kills} kills, {saves} of them in the middle of a save; after {steps} steps the "
        f"state is {'the same, bit for bit' if same else 'NOT the same'}."
    )
    return int(not same)


if __name__ == "__main__":
    sys.exit(main())
