"""`check`: compares every number of two networks with the same weights."""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from parity.user_module import SIDES, InputLayout
from train.config.checked import flag
from train.options.command import Command, option
from train.system.errors import UserError
from train.system.progress import each

Found = tuple[bool, str, Any]
"""Whether everything agrees, what is printed, and what JSON has."""

MODULE = "your own module"


def height_and_width(text: str) -> tuple[int, int]:
    """`28x28` as two numbers."""
    sides = text.lower().split("x")
    if len(sides) != 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form HxW, such as 28x28")
    return int(sides[0]), int(sides[1])


@dataclass(kw_only=True)
class Check(Command):
    """Compare every number of two networks with the same weights.

    Gives a PyTorch CapsNet and capsjax the same weights and inputs, compares every intermediate, in
    training and in test, loss, gradient and 20 steps of training, and names the first stage that
    parts. Exits with 0 if everything agrees, 1 if something does not, 2 on bad input.
    """

    x64: bool = option(False, "compute in float64 (default: float32, of a module of yours both)")
    layout: str | None = option(
        None,
        "the PyTorch implementation to compare with (default: reference, the paper's); with "
        "--against what its weights are called, a name, a TOML file or auto (default: auto)",
        metavar="NAME",
    )
    routing: str | None = option(
        None,
        "compare CapsNet with this routing instead, a name of capsjax.list_routings()",
        metavar="NAME",
    )
    model: str | None = option(
        None, "compare this network, a name of capsjax.list_models()", metavar="NAME"
    )
    all: bool = option(False, "compare every routing and every model, in float32 and in float64")
    sizes: Literal["tiny", "paper"] | None = option(
        None, "a tiny network, or one of the paper's sizes (default: both, where there are both)"
    )
    data_dir: Path | None = option(
        None,
        "folder with MNIST's official files (default: the digits of scikit-learn)",
        metavar="DIR",
    )
    seed: int = option(0, "of weights and images")
    json: Path | None = option(None, "write the result as JSON", metavar="FILE")
    report: Path | None = option(None, "write report.md and its figures there", metavar="DIR")
    verbose: bool = option(False, "print every case, not the worst of each stage")
    against: str | None = option(
        None,
        "compare with this module instead, made by calling CLASS or a function without arguments; "
        "the file's code is run",
        metavar="FILE.py:CLASS",
        group=MODULE,
    )
    weights: Path | None = option(
        None, "its weights, which capsjax is given, too", metavar="FILE", group=MODULE
    )
    output: str | None = option(
        None,
        "which output holds capsule lengths or poses: an index or a key, with dots where they are "
        "nested (default: the one that has such a shape)",
        metavar="KEY",
        group=MODULE,
    )
    output_is: Literal["lengths", "softmax", "squared"] | None = option(
        None,
        "what it returns of the lengths (default: what the layout says, most often lengths)",
        group=MODULE,
    )
    input: InputLayout | None = option(
        None,
        "how it wants its images (default: what it takes, tried in this order)",
        group=MODULE,
    )
    image_shape: tuple[int, int] | None = option(
        None,
        "size of its images (default: that of the decoder, or what it takes of "
        f"{', '.join(map(str, SIDES))})",
        metavar="HxW",
        parse=height_and_width,
        group=MODULE,
    )

    def run(self) -> int:
        """Compares, and prints and writes what was found."""
        from parity.check import report
        from train.bench.report import Report
        from train.system.caches import keep_compiled_programs

        keep_compiled_programs()
        self._refuse_what_contradicts()
        report.require_writable(self.json, self.report)
        if self.against is not None:
            passed, text, values = self._own_module(self.against)
        else:
            passed, text, values = self._everything() if self.all else self._one()
        Report(text, values).deliver(json=self.json, plot=None)
        return 0 if passed else 1

    def _refuse_what_contradicts(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise UserError(f"--seed is {str(self.seed)[:20]}, but must be from 0 to 2^63 - 1.")
        if self.verbose and (self.all or self.against is not None):
            given = "--all" if self.all else "--against"
            raise UserError(f"--verbose is of a single PyTorch implementation: leave {given} out.")
        if self.against is not None:
            for name in ("all", "routing", "model", "sizes"):
                if getattr(self, name):
                    raise UserError(
                        f"{flag(name)} and --against both say what to compare: give one of them."
                    )
            return
        for name in ("weights", "output", "output_is", "input", "image_shape"):
            if getattr(self, name) is not None:
                raise UserError(f"{flag(name)} is of a module of yours: name that with --against.")
        what = [name for name in ("all", "routing", "model", "layout") if getattr(self, name)]
        if len(what) > 1:
            raise UserError(
                f"--{what[0]} and --{what[1]} both say what to compare: give one of them."
            )
        if self.all and self.sizes is not None:
            raise UserError("--all compares tiny networks: leave --sizes out.")
        if self.all and (self.x64 or self.report is not None):
            given = "--x64" if self.x64 else "--report"
            raise UserError(f"--all compares everything in both precisions: leave {given} out.")

    def _own_module(self, spec: str) -> Found:
        from parity.user_module.checking import as_json, compare_module, text

        if self.weights is None:
            raise UserError("--against needs the module's weights: give --weights FILE.")
        if self.report is not None:
            raise UserError("--report is not made with --against: take --json.")
        outcome = compare_module(
            spec,
            self.weights,
            layout=self.layout or "auto",
            output=self.output,
            output_is=self.output_is,
            input_layout=self.input,
            image_size=self.image_shape,
            x64=self.x64,
            data_dir=self.data_dir,
            seed=self.seed,
        )
        return outcome.passed, text(outcome), as_json(outcome)

    def _everything(self) -> Found:
        from parity.check import report
        from parity.check.runner import check_all

        results = check_all(data_dir=self.data_dir, seed=self.seed, progress=_progress)
        passed = all(result.passed for both in results.values() for result in both)
        values = {name: [*map(report.as_json, both)] for name, both in results.items()}
        return passed, report.summary(results), values

    def _one(self) -> Found:
        """Compares with one PyTorch network, and writes its report."""
        from parity.check import report
        from parity.check.runner import check
        from parity.check.subjects import find_subject

        given = (what for what in ("routing", "model") if getattr(self, what) is not None)
        what = next(given, "layout")
        sizes = None if self.sizes is None else (self.sizes,)
        result = check(
            find_subject(what, getattr(self, what) or "reference", sizes),
            x64=self.x64,
            data_dir=self.data_dir,
            seed=self.seed,
            progress=_progress,
        )
        if self.report is not None:
            report.write_report(self.report, result)
        text = f"{report.table(result, verbose=self.verbose)}\n{report.verdict(result)}"
        return result.passed, text, report.as_json(result)


def _progress(jobs: Iterator, total: int) -> Iterator:
    return each(jobs, total, str)
