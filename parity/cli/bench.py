"""`bench`: times capsjax and PyTorch at the same work."""

import os
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from train.cli.command_line import Command, option

CONTENDER_NAMES = ("capsjax", "torch-reference", "torch-fast", "torch-compile")
DEFAULT = ("capsjax", "torch-reference", "torch-fast")


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(kw_only=True)
class Bench(Command):
    """Time capsjax and PyTorch at the same work.

    Times a training step and a forward pass of the paper's CapsNet in capsjax and in PyTorch: in
    one run, in turns, each in a process of its own on the same cores.
    """

    batch_size: list[int] = option([32, 128], "images in a step", metavar="N")
    contenders: list[str] = option(
        list(DEFAULT), f"who takes part, of {', '.join(CONTENDER_NAMES)}", metavar="NAME"
    )
    baseline: str = option("torch-fast", "who ratios are to", metavar="NAME")
    dtype: Literal["float32", "bfloat16"] = option("float32", "of the computation")
    routing_iterations: int = option(3, "routing iterations", metavar="N")
    repetitions: int = option(7, "rounds", metavar="N")
    seconds: float = option(2.0, "about how long a turn is", metavar="S")
    cores: int = option(available_cores(), "cores for each contender (default: all)", metavar="N")
    json: Path | None = option(None, "write the figures there", metavar="FILE")
    plot: Path | None = option(None, "draw a bar chart (PNG) there", metavar="FILE")

    def run(self) -> int:
        """Measures, prints what was found, and writes what was asked for."""
        from parity.bench.runner import run

        run(Namespace(**vars(self)))
        return 0
