"""`compare`: trains networks and routings on the same data, and tells them apart."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.config.checked import flag
from train.options.command import option, settings
from train.options.shared import DataDir, Recorded
from train.options.values import positive, several
from train.system.errors import UserError

NO_OPTIONS = (
    *("seed", "dataset", "model", "routing"),
    *("stop_at_accuracy", "patience", "log_every", "evaluate_every", "checkpoint_every"),
    *("init_from", "freeze"),
)
"""The settings that are compared, and those of runs that are watched; all cells have the others."""


@dataclass(kw_only=True)
class Compare(DataDir, Recorded):
    """Train networks and routings on the same data, and tell them apart.

    Trains each model with each routing on each data set, from several seeds at once, and writes
    tables and figures: accuracy and its spread, paired differences with their confidence,
    likelihood, calibration, robustness, speed, memory. What is done is kept: the same command goes
    on after an interruption.
    """

    models: list[str] = option(["capsnet"], "networks", metavar="NAME")
    routings: list[str] = option(
        ["published"],
        "names, FILE.py:NAME of your own (whose code is run), or published, the one that a model "
        "came with",
        metavar="NAME",
    )
    datasets: list[str] = option(["digits"], "data sets", metavar="NAME")
    seeds: int = option(
        3,
        "networks of each kind, with the seeds 0 to N - 1, trained at once",
        metavar="N",
        parse=positive,
    )
    recipe: str | None = option(
        None,
        "train all networks as this recipe says: its images, optimiser and schedule, each network "
        "with its own loss (default: each by its own recipe, which the table shows)",
        metavar="PRESET",
    )
    out: Path = option(Path("runs/compare"), "folder of the tables and figures")
    robustness_examples: int = option(
        2000,
        "test images that are turned, scaled, sheared, moved and made noisy",
        metavar="N",
        parse=positive,
    )
    folds: int | None = option(
        None,
        "cross-validation, to choose by: train as many times without one part of the training "
        "images, and measure on that part; the test split is left alone",
        metavar="K",
        parse=several,
    )
    overwrite: bool = option(False, "measure anew what the folder has from other options")
    settings: dict[str, Any] = settings(leave_out=NO_OPTIONS)

    def run(self) -> int:
        """Trains what is missing, and writes and prints the tables."""
        for name in ("validation", "test_examples") if self.folds else ():
            if name in self.settings:
                raise UserError(
                    f"{flag(name)} says nothing with --folds, which measures on parts of the "
                    "training images: leave it out."
                )
        from train.study.compare.cells import list_cells
        from train.study.compare.comparison import compare
        from train.system.caches import keep_compiled_programs

        part = f"compare-{self.out.resolve().name}"
        self.reserve(part, "compare")
        keep_compiled_programs()
        cells = compare(
            list_cells(self.models, self.routings, self.datasets, self.settings, self.recipe),
            out=self.out,
            command=self.line,
            seeds=self.seeds,
            robustness_examples=self.robustness_examples,
            folds=self.folds,
            data_dir=self.data_dir,
            overwrite=self.overwrite,
        )
        self.keep(part, {"kind": "compare", "cells": cells})
        return 0
