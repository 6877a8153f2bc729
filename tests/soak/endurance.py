"""Trains for 20,000 steps and demands that memory, open files and threads stay as they are.

    .venv/bin/python -m tests.soak.endurance --steps 2000

A tiny network is logged, evaluated and saved all the way. What the process holds is looked at
several times a second. The last tenth of the run may hold no more memory than the second tenth did,
but for 3 %, and no more files and threads than the tenths of the first half. Of these a save takes
some for a moment, so it is the fewest of a tenth that count: what is never given back is held all
the time. Exits with 1 if it holds more. Linux only.
"""

import argparse
import os
import statistics
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.soak.tiny import tiny
from train.loop.loop import fit
from train.run.log import read_metrics

SECONDS = 0.2
TENTHS = 10
MORE_MEMORY = 1.03


@dataclass(frozen=True)
class Sample:
    """What the process holds at a moment.

    Attributes:
        step: how far the run is.
        megabytes: memory that is really there.
        files: open file descriptors.
        threads: of the whole process.
    """

    step: int
    megabytes: float
    files: int
    threads: int


def look(metrics: Path) -> Sample:
    """Looks at this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    rows = read_metrics(metrics)
    return Sample(
        step=rows[-1]["step"] if rows else 0,
        megabytes=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        files=len(os.listdir("/proc/self/fd")),
        threads=len(os.listdir("/proc/self/task")),
    )


def endure(out: Path, steps: int) -> list[Sample]:
    """Trains, and returns what was seen meanwhile."""
    samples: list[Sample] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(SECONDS):
            samples.append(look(out / "metrics.jsonl"))

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        config = tiny(steps=steps, log_every=100, evaluate_every=1000, checkpoint_every=500)
        fit(config, out=out, devices=1)
    finally:
        ended.set()
        watching.join()
    return samples


def by_tenth(samples: list[Sample], steps: int) -> list[Sample]:
    """What was seen in each tenth of a run: medians, and the fewest files and threads."""
    tenths: list[list[Sample]] = [[] for _ in range(TENTHS)]
    for sample in samples:
        if 0 < sample.step < steps:
            tenths[sample.step * TENTHS // steps].append(sample)
    return [
        Sample(
            step=round(statistics.median(sample.step for sample in tenth)),
            megabytes=statistics.median(sample.megabytes for sample in tenth),
            files=min(sample.files for sample in tenth),
            threads=min(sample.threads for sample in tenth),
        )
        for tenth in tenths
        if tenth
    ]


def main() -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20_000, help="how long (default: 20,000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tenths = by_tenth(endure(Path(folder) / "run", options.steps), options.steps)
    print("| step | memory, MB | fewest open files | fewest threads |\n|---|---|---|---|")
    for tenth in tenths:
        print(f"| {tenth.step:,} | {tenth.megabytes:,.1f} | {tenth.files} | {tenth.threads} |")
    early, late = tenths[1 : TENTHS // 2], tenths[-1]
    flat = (
        late.megabytes <= MORE_MEMORY * early[0].megabytes
        and late.files <= max(tenth.files for tenth in early)
        and late.threads <= max(tenth.threads for tenth in early)
    )
    print("flat" if flat else "NOT flat")
    return int(not flat)


if __name__ == "__main__":
    sys.exit(main())
