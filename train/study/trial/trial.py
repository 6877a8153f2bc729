"""Trying a claim: trains the networks that are missing, measures all, and writes what was seen."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from train.config.fit_config import FitConfig
from train.loop.loop import fit
from train.run.folder import SUMMARY, load_run
from train.study.results import results_folder, write_results
from train.study.trial import search
from train.study.trial.baselines import summary
from train.study.trial.definition import Arm, Budget, Claim
from train.study.trial.verdict import Measured, draw_quantities, markdown, text
from train.system.files import writing
from train.system.progress import Progress, each


def try_claim(
    claim: Claim,
    *,
    out: Path,
    command: str,
    budget: Budget = "small",
    seeds: int = 3,
    data_dir: Path | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Tries a claim and prints the verdict; goes on where it was interrupted.

    Everything is left in `out`, with the command that asked for it; runs of other options that are
    there are replaced if `overwrite`. The seeds of an arm's networks are those from 0 on. On any
    but the small budget, its learning rate is searched for first (`train.study.trial.search`).
    Returns the plain values of `results.json`.

    Raises:
        UserError: on bad input, or if the folder cannot be written.
    """
    arms = claim.arms(budget)
    with results_folder(out):
        if budget != "small":
            arms = _search(arms, out / "rates", data_dir, overwrite)
        runs = {
            arm.name: [out / "runs" / f"{arm.slug}-{seed}" for seed in range(seeds)] for arm in arms
        }
        jobs = [
            (f"{arm.name}, seed {seed}", arm.config.changed(seed=seed), folder)
            for arm in arms
            for seed, folder in enumerate(runs[arm.name])
        ]
        _train(jobs, data_dir, overwrite)
        named = each(arms, len(arms), lambda arm: f"measuring {arm.name}")
        measured = [_measure(claim, arm, runs[arm.name], data_dir) for arm in named]
        of_run = load_run(runs[arms[0].name][0]).figures
        with writing(out):
            for figure in claim.figures:
                shutil.copyfile(of_run / figure, out / figure)
        figures = {"quantities.png": draw_quantities(claim, measured)}
        page = markdown(claim, measured, budget, command, [*figures, *claim.figures])
        about = {"claim": claim.says, "source": claim.source, "budget": budget}
        values = {**about, "arms": [of_arm.plain() for of_arm in measured]}
        names = write_results(out, command, page, figures, values)
    print(text(claim, measured, budget))
    print(f"{out}: {', '.join([*names, *claim.figures])}; runs/ has every network")
    return values


def _search(
    arms: Sequence[Arm], out: Path, data_dir: Path | None, overwrite: bool
) -> Sequence[Arm]:
    """The arms, each with the learning rate that does best on validation images."""
    tried = [search.candidates(arm) for arm in arms]
    runs = [
        {rate: out / f"{arm.slug}-{rate:g}" for rate in configs}
        for arm, configs in zip(arms, tried, strict=True)
    ]
    jobs = [
        (f"{arm.name}, trying the learning rate {rate:g}", config, folders[rate])
        for arm, configs, folders in zip(arms, tried, runs, strict=True)
        for rate, config in configs.items()
    ]
    _train(jobs, data_dir, overwrite)
    return list(map(search.searched, arms, runs))


def _train(
    jobs: Sequence[tuple[str, FitConfig, Path]], data_dir: Path | None, overwrite: bool
) -> None:
    """Trains the networks that are missing, as `fit` does: name, configuration, folder of each."""
    missing = [job for job in jobs if not _is_finished(job[2], job[1])]
    with Progress(len(missing), "network") as progress:
        for number, (name, config, folder) in enumerate(missing, start=1):
            progress.begin(f"[{number}/{len(missing)}] {name}; about {progress.left} left")
            fit(config, out=folder, data_dir=data_dir, resume=not overwrite, overwrite=overwrite)
            progress.advance()


def _is_finished(folder: Path, config: FitConfig) -> bool:
    """Whether a run of this configuration has come to its end there."""
    return (folder / SUMMARY).exists() and load_run(folder).config == config


def _measure(claim: Claim, arm: Arm, folders: list[Path], data_dir: Path | None) -> Measured:
    # Run by run: what several quantities have in common is computed once.
    values = [
        [np.atleast_1d(quantity.of(run, data_dir)) for quantity in claim.quantities]
        for run in folders
    ]
    names = [quantity.name for quantity in claim.quantities]
    summaries = [summary(run) for run in folders]
    return Measured(
        arm=arm,
        values=dict(zip(names, map(np.stack, zip(*values, strict=True)), strict=True)),
        parameters=summaries[0]["parameters"],
        steps=[ended["steps"] for ended in summaries],
        seconds=sum(ended["wall_seconds"] for ended in summaries),
    )
