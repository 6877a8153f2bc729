"""`bench`: times capsjax and PyTorch at the same work."""

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, get_args

from train.options.command import option
from train.options.shared import Recorded
from train.options.values import new_file, positive, seconds
from train.system.errors import UserError
from train.system.machine import available_cores

MODULE = "your own module"
Name = Literal["capsjax", "torch-reference", "torch-fast", "torch-compile"]
DEFAULT: list[Name] = ["capsjax", "torch-reference", "torch-fast"]
Dtype = Literal["float32", "bfloat16"]


@dataclass(kw_only=True)
class Bench(Recorded):
    """Time capsjax and PyTorch at the same work.

    Times a training step and a forward pass of published networks in capsjax and in PyTorch: in one
    run, in turns, each in a process of its own on the same cores. Images and labels are random.
    """

    program: ClassVar[str] = "python -m parity"

    model: list[str] = option(
        ["capsnet"], "networks, names of capsjax.list_models()", metavar="NAME"
    )
    batch_size: list[int] = option([32, 128], "images in a step", metavar="N")
    contenders: list[Name] = option(
        DEFAULT, f"who takes part, of {', '.join(get_args(Name))}", metavar="NAME"
    )
    dtype: list[Dtype] = option(["float32"], "of the computation", metavar="NAME")
    routing_iterations: int | None = option(
        None, "routing iterations (default: the published ones)", metavar="N", parse=positive
    )
    repetitions: int = option(7, "rounds", metavar="N", parse=positive)
    seconds: float = option(2.0, "about how long a turn is", metavar="S", parse=seconds)
    cores: int = option(
        available_cores(), "cores for each contender (default: all)", metavar="N", parse=positive
    )
    against: str | None = option(
        None,
        "with this module too, made by calling CLASS or a function without arguments; the file's "
        "code is run",
        metavar="FILE.py:CLASS",
        group=MODULE,
    )
    output: str | None = option(
        None,
        "which output holds capsule lengths or poses: an index or a key, with dots where they are "
        "nested (default: the one that has such a shape)",
        metavar="KEY",
        group=MODULE,
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
        if self.output is not None and self.against is None:
            raise UserError("--output is of a module of yours: name that with --against.")
        if self.against is not None and len(self.model) > 1:
            raise UserError("--against is beside one network: name one with --model.")
        report = bench(
            self.model,
            self.contenders,
            self.batch_size,
            dtypes=self.dtype,
            iterations=self.routing_iterations,
            rounds=Rounds(self.repetitions, self.seconds),
            cores=self.cores,
            against=self.against,
            output=self.output,
            chart="" if self.plot is None else self.plot.name,
        )
        report.deliver(json=self.json, plot=None if self.plot is None else self.plot.parent)
        self.keep("bench", {"kind": "bench", "text": report.text, **report.values})
        return 0
