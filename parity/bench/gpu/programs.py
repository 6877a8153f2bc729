"""`fit` and `parity check` on the device: an epoch, the recipe and the cases there is time for."""

import itertools
import shutil
import time
from collections.abc import Iterator
from typing import Any

from parity.bench.gpu.plan import Found, Task
from parity.check.runner import check
from parity.check.subjects import find_subject
from train.config.fit_config import FitConfig
from train.loop.loop import fit
from train.run.log import read_metrics
from train.system.errors import UserError
from train.system.progress import each

_MARGIN = 0.85
"""Share of the time that is left for which a run is planned."""

_CASES_SHARE = 0.6
"""Of the time: no case is begun after that. What a GPU computes besides comes after the cases."""


def measure_epoch(task: Task) -> Iterator[Found]:
    """Finds, under `run`, a short run (see `_fit`) at the fastest batch size."""
    plan = task.plan
    config = plan.training(task.best_batch).changed(epochs=plan.probe_epochs)
    yield {"run": _fit(task, config, f"epoch-{plan.dtype}")}


def measure_recipe(task: Task) -> Iterator[Found]:
    """Finds, under each dtype, `probe` and `run`: a short run, and one as long as time allows.

    The short one tells what an epoch takes. Both are of the recipe, at its own batch size; the
    learning rate falls over the run, however long that is.
    """
    plan = task.plan
    for number, dtype in enumerate(plan.fit_dtypes):
        until = time.monotonic() + task.left() / (len(plan.fit_dtypes) - number)
        config = plan.config.changed(dtype=dtype, epochs=plan.probe_epochs)
        probe = _fit(task, config, f"probe-{dtype}")
        yield {dtype: {"probe": probe}}
        once = probe["seconds"] - plan.probe_epochs * probe["epoch_seconds"]
        time_for_epochs = _MARGIN * (until - time.monotonic() - once)
        epochs = min(plan.config.schedule.epochs, time_for_epochs // probe["epoch_seconds"])
        if epochs >= 1:
            run = _fit(task, config.changed(epochs=epochs), f"recipe-{dtype}")
            yield {dtype: {"probe": probe, "run": run}}


def _fit(task: Task, config: FitConfig, name: str) -> Found:
    """Trains, and keeps the run without its checkpoints in the report's folder."""
    folder = task.scratch / name
    begun = time.monotonic()
    summary = fit(config, out=folder, data_dir=task.data_dir)
    seconds = time.monotonic() - begun
    rows = [row for row in read_metrics(folder / "metrics.jsonl") if row["split"] == "train"]
    shutil.copytree(
        folder,
        task.out / "runs" / name,
        ignore=shutil.ignore_patterns("checkpoints"),
        dirs_exist_ok=True,
    )
    last = rows[-1]
    # The first epoch compiles the training step, what follows it the evaluation.
    first = next(row for row in rows if row["epoch"] >= min(2, config.schedule.epochs - 1))
    examples = last["step"] * config.schedule.batch_size / last["epoch"]
    return {
        "summary": summary,
        "epochs": config.schedule.epochs,
        "dtype": config.model.dtype,
        "batch_size": config.schedule.batch_size,
        # Of an epoch without evaluation, of one with all there is, and of the whole run.
        "training_seconds": examples / summary["images_per_second"],
        "epoch_seconds": (last["wall_seconds"] - first["wall_seconds"])
        / (last["epoch"] - first["epoch"]),
        "seconds": seconds,
    }


def measure_parity(task: Task) -> Iterator[Found]:
    """Finds, under the name of each network, what was compared and whether it held.

    That is `passed`, the number of `comparisons` and of those `beyond` their limit, the
    `first_difference`, `cases` begun and `cases_there_are`. A UserError at the end if any is beyond
    its limit, or nothing was compared.
    """
    plan = task.plan
    wrong = []
    for number, size in enumerate(plan.parity_sizes):
        until = time.monotonic() + _CASES_SHARE * task.left() / (len(plan.parity_sizes) - number)
        counted = {"cases": 0, "cases_there_are": 0}

        def in_time(
            jobs: Iterator, total: int, until: float = until, counted: Found = counted
        ) -> Iterator[Any]:
            counted["cases_there_are"] = total
            shown = each(itertools.islice(jobs, plan.parity_cases), total, str)
            for job in itertools.takewhile(lambda _: time.monotonic() <= until, shown):
                counted["cases"] += 1
                yield job

        subject = find_subject("layout", "reference", (size,))
        result = check(subject, data_dir=task.data_dir, progress=in_time)
        first, limited = result.first_difference, result.limited
        found = {
            "passed": result.passed and bool(limited),
            "comparisons": len(limited),
            "beyond": sum(not comparison.held for comparison in limited),
            "first_difference": None if first is None else f"{first.stage} ({first.case})",
            **counted,
        }
        yield {size: found}
        if not found["passed"]:
            beyond = f"{found['beyond']:,} of {len(limited):,} comparisons are beyond their limits"
            wrong.append(f"{size}: {beyond if limited else 'no time was left to compare anything'}")
    if wrong:
        raise UserError("; ".join(wrong))
