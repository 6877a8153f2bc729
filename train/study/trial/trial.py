"""Trying a claim: trains the networks that are missing, measures all, and writes what was seen."""

import functools
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from train.config.checked import flag
from train.config.config_file import completed
from train.config.fit_config import FitConfig
from train.loop.loop import fit
from train.run.folder import CONFIG, load_run
from train.study.results import brief, kept, origin, results_folder, write_results
from train.study.trial import search
from train.study.trial.baselines import summary
from train.study.trial.definition import Arm, Budget, Claim
from train.study.trial.verdict import Measured, draw_quantities, markdown, text
from train.system.errors import DivergedError, PreemptedError
from train.system.files import write_json, writing
from train.system.progress import Progress

Plain = dict[str, Any]
"""Plain values, for JSON."""


class Job(NamedTuple):
    """A network to train, and what is to be measured of it, given the folder of its run."""

    name: str  # for people
    slug: str  # for files
    config: FitConfig
    measure: Callable[[Path], Plain]
    quantities: Sequence[str] = ()  # the names of what is measured
    diverged: Plain | None = None  # stands for it where it diverges; None: that ends all


class Place(NamedTuple):
    """Where networks are trained, and where what was measured of each is kept."""

    out: Path
    cells: Path
    command: str
    data_dir: Path | None
    overwrite: bool


def try_claim(
    claim: Claim,
    *,
    out: Path,
    command: str,
    cells: Path | None = None,
    budget: Budget = "small",
    seeds: int = 3,
    data_dir: Path | None = None,
    overwrite: bool = False,
) -> Plain:
    """Tries a claim and prints the verdict; goes on where it was interrupted.

    Everything is left in `out`, with the command that asked for it; runs of other options that are
    there are replaced if `overwrite`. What was measured of a network is kept in a file of its own
    in `cells`, by default in `out`, which is all that is needed to go on on another machine. The
    seeds of an arm's networks are those from 0 on. On any but the small budget, its learning rate
    is searched for first (`train.study.trial.search`). Returns the plain values of `results.json`.
    A UserError on bad input, or if the folder cannot be written.
    """
    # The paper's values are of its networks: nothing that is reduced stands beside them.
    arms = [arm if budget == "paper" else arm._replace(paper={}) for arm in claim.arms(budget)]
    place = Place(out, cells or out / "cells", command, data_dir, overwrite)
    with results_folder(out, claim.says):
        tried: list[list[Plain]] = []
        if budget != "small":
            tried = _run([_tries(arm) for arm in arms], place)
            arms = [
                search.searched(
                    arm, {each["config"]["learning_rate"]: each["accuracy"] for each in of_arm}
                )
                for arm, of_arm in zip(arms, tried, strict=True)
            ]
        networks = _run([_networks(claim, arm, seeds, data_dir) for arm in arms], place)
        measured = [Measured.joined([Measured.of(each) for each in of_arm]) for of_arm in networks]
        of_run = out / "runs" / f"{arms[0].slug}-0" / "figures"
        copied = [name for name in claim.figures if (of_run / name).exists()]
        with writing(out):
            for name in copied:
                shutil.copyfile(of_run / name, out / name)
        figures = {"quantities.png": draw_quantities(claim, measured)}
        page = markdown(claim, measured, budget, command, [*figures, *copied])
        values = {
            "claim": claim.says,
            "source": claim.source,
            "budget": budget,
            "arms": [of_arm.plain() for of_arm in measured],
            "measured": _origins([each for of_arm in [*tried, *networks] for each in of_arm]),
        }
        names = write_results(out, command, page, figures, values)
    print(text(claim, measured, budget))
    print(f"{out}: {', '.join([*names, *copied])}; runs/ has every network")
    return values


def _tries(arm: Arm) -> list[Job]:
    """The networks that try learning rates for an arm."""
    return [
        Job(
            f"{arm.name}, trying the learning rate {rate:g}",
            f"{arm.slug}-rate-{rate:g}",
            config,
            lambda run: {"accuracy": summary(run)["validation.accuracy"]},
            diverged={"accuracy": 0.0, "diverged": True},
        )
        for rate, config in search.candidates(arm).items()
    ]


def _networks(claim: Claim, arm: Arm, seeds: int, data_dir: Path | None) -> list[Job]:
    """The networks of an arm."""

    def measure(run: Path) -> Plain:
        # Quantity by quantity: what several have in common is computed once.
        values = {
            quantity.name: np.atleast_1d(quantity.of(run, data_dir))[None]
            for quantity in claim.quantities
        }
        ended = summary(run)
        return Measured(
            arm, values, ended["parameters"], [ended["steps"]], ended["wall_seconds"]
        ).plain()

    return [
        Job(
            f"{arm.name}, seed {seed}",
            f"{arm.slug}-{seed}",
            arm.config.changed(seed=seed),
            measure,
            [quantity.name for quantity in claim.quantities],
        )
        for seed in range(seeds)
    ]


def _run(jobs_of_arms: Sequence[Sequence[Job]], place: Place) -> list[list[Plain]]:
    """What was measured of the networks of each arm; trains and measures those that are missing."""
    jobs = [job for of_arm in jobs_of_arms for job in of_arm]
    files = {job.slug: place.cells / f"{job.slug}.json" for job in jobs}
    found = {
        job.slug: kept(files[job.slug], functools.partial(_differing, job), place.overwrite)
        for job in jobs
    }
    missing = [job for job in jobs if found[job.slug] is None]
    with Progress(len(missing), "network") as progress:
        for number, job in enumerate(missing, start=1):
            progress.begin(f"[{number}/{len(missing)}] {job.name}; about {progress.left} left")
            values = {
                **origin(place.command),
                **_measured(job, place),
                "config": job.config.flat(),
            }
            with writing(place.cells):
                place.cells.mkdir(parents=True, exist_ok=True)
                write_json(files[job.slug], values)
            found[job.slug] = values
            progress.advance()
    # None is missing any more.
    return [[found[job.slug] or {} for job in of_arm] for of_arm in jobs_of_arms]


def _measured(job: Job, place: Place) -> Plain:
    """Trains a network, if it is not yet, and measures it."""
    run = place.out / "runs" / job.slug
    saved = load_run(run) if (run / CONFIG).exists() else None
    if saved is not None and saved.config != job.config:
        saved = None
    # What is half done of the same network is gone on with, also by a command that replaces others.
    overwrite = place.overwrite and saved is None
    if saved is None or saved.result() is None:
        try:
            fit(
                job.config,
                out=run,
                data_dir=place.data_dir,
                resume=not overwrite,
                overwrite=overwrite,
            )
        except DivergedError as error:
            if job.diverged is None:
                raise
            print(f"note: {job.name}: {error}", file=sys.stderr)
            return job.diverged
        except PreemptedError as stopped:
            # Studies have no --resume, which a run by itself names.
            said = f"{job.name} was asked to stop: the same command goes on from what is written."
            raise PreemptedError(said) from stopped
    return job.measure(run)


def _differing(job: Job, values: Plain) -> str:
    """In what that was measured before is not of this network."""
    before = completed(values["config"])
    names = [flag(name) for name, value in job.config.flat().items() if before[name] != value]
    if set(job.quantities) != set(values.get("values", ())):
        names.append("quantities")
    return f"another {', '.join(names)}" if names else ""


def _origins(cells: Sequence[Mapping[str, Any]]) -> list[Plain]:
    """Commits, dates and machines that the values come from, each once."""
    found = list(map(brief, cells))
    return [each for number, each in enumerate(found) if each not in found[:number]]
