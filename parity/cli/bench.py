"""`bench`: times capsjax and PyTorch at the same work."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from train.options.command import Command, option
from train.options.values import new_file, positive, seconds
from train.system.errors import UserError
from train.system.machine import available_cores

Name = Literal["capsjax", "torch-reference", "torch-fast", "torch-compile"]
DEFAULT: list[Name] = ["capsjax", "torch-reference", "torch-fast"]


@dataclass(kw_only=True)
class Bench(Command):
    """Time capsjax and PyTorch at the same work.

    Times a training step and a forward pass of the paper's CapsNet in capsjax and in PyTorch: in
    one run, in turns, each in a process of its own on the same cores.
    """

    batch_size: list[int] = option([32, 128], "images in a step", metavar="N")
    contenders: list[Name] = option(
        DEFAULT, f"who takes part, of {', '.join(get_args(Name))}", metavar="NAME"
    )
    baseline: Name = option("torch-fast", "who ratios are to")
    dtype: Literal["float32", "bfloat16"] = option("float32", "of the computation")
    routing_iterations: int = option(3, "routing iterations", metavar="N", parse=positive)
    repetitions: int = option(7, "rounds", metavar="N", parse=positive)
    seconds: float = option(2.0, "about how long a turn is", metavar="S", parse=seconds)
    cores: int = option(
        available_cores(), "cores for each contender (default: all)", metavar="N", parse=positive
    )
    json: Path | None = option(None, "write the figures there", metavar="FILE", parse=new_file)
    plot: Path | None = option(None, "draw a bar chart (PNG) there", metavar="FILE", parse=new_file)

    def run(self) -> int:
        """Measures, prints what was found, and writes what was asked for."""
        from parity.bench.benchmark import bench
        from train.bench.timing import Rounds

        if min(self.batch_size) < 1:
            raise UserError(f"--batch-size is {min(self.batch_size)}, but must be more than 0.")
        if self.cores > available_cores():
            raise UserError(f"--cores is {self.cores}, but there are {available_cores()}.")
        report = bench(
            self.contenders,
            self.batch_size,
            baseline=self.baseline,
            dtype=self.dtype,
            iterations=self.routing_iterations,
            rounds=Rounds(self.repetitions, self.seconds),
            cores=self.cores,
            chart="" if self.plot is None else self.plot.name,
        )
        report.deliver(json=self.json, plot=None if self.plot is None else self.plot.parent)
        return 0
