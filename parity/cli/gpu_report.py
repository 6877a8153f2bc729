"""`gpu-report`: measures all that needs an accelerator, and writes one report."""

import math
from dataclasses import dataclass
from pathlib import Path

from train.options.command import Command, option
from train.system.errors import UserError


@dataclass(kw_only=True)
class GpuReport(Command):
    """Measure all that needs an accelerator, and write one report.

    Measures training, PyTorch beside it, routing, memory, parity and a run of MNIST's recipe on the
    device, each within its share of the time, and writes report.json and report.md after each part.
    Exits with 1 if a part failed, which the report tells.
    """

    out: Path = option(
        ...,
        "folder for report.json, report.md and the runs, without their checkpoints",
        metavar="DIR",
    )
    data_dir: Path | None = option(
        None,
        "folder with MNIST's official files, where tensorflow-datasets has not prepared it",
        metavar="DIR",
    )
    minutes: float = option(9.0, "the time there is (default: 9)", metavar="M")
    tiny: bool = option(False, "a dry run: tiny networks on the embedded digits")

    def run(self) -> int:
        """Measures, and writes the report."""
        from parity.bench.gpu.plan import Plan, tiny
        from parity.bench.gpu.report import report

        if not 0 < self.minutes < math.inf:
            raise UserError(f"--minutes is {self.minutes}, but must be more than 0.")
        if self.data_dir is not None and not self.data_dir.is_dir():
            raise UserError(
                f"--data-dir {self.data_dir} is no folder: name the one with the files."
            )
        return report(
            tiny() if self.tiny else Plan(),
            out=self.out,
            data_dir=self.data_dir,
            minutes=self.minutes,
            arguments=self.arguments,
        )
