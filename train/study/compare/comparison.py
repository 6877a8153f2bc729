"""Comparing: trains the cells that are missing, measures them, writes tables and figures."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import nnx

from train.config.settings import DataConfig
from train.data import Dataset, Order, fold
from train.learn.network import (
    build_model,
    out_of_memory_is_bad_input,
    require_fitting_routing,
)
from train.learn.trainer import require_fitting
from train.run.folder import CONFIG
from train.study.compare import findings
from train.study.compare.cells import Cell, difference
from train.study.compare.measures import measure, over_folds
from train.study.compare.seeds import SeedsTrainer
from train.study.results import COMPARISON, brief, kept, origin, results_folder, write_results
from train.system.errors import UserError
from train.system.files import write_json, write_whole, writing
from train.system.progress import Progress
from train.system.tables import aligned

SHOWN = ("model", "routing", "dataset", "accuracy", "spread", "against first", "images/s")
"""The columns that are printed; the files have all."""


def compare(
    cells: Sequence[Cell],
    *,
    out: Path,
    command: str,
    seeds: int = 3,
    robustness_examples: int = 2000,
    folds: int | None = None,
    data_dir: Path | None = None,
    overwrite: bool = False,
) -> list[dict[str, Any]]:
    """Compares networks and prints a table; goes on where it was interrupted.

    Everything is left in `out`, with the command that asked for it; results of other options that
    are there are measured anew if `overwrite`. The seeds of a cell's networks are those from 0 on.
    To see how robust they are, `robustness_examples` test images are changed. With
    `folds`, networks are trained and measured on that many parts of the training split instead, see
    `train.data.fold`. Returns what is known of each cell. A UserError on bad input, or if the
    folder cannot be written; a DivergedError if a network diverges, and the cells before are kept.
    """
    wanted = {cell.dataset: cell.config.data for cell in cells}
    loaded = {name: _load(data, data_dir) for name, data in wanted.items()}
    datasets = {cell.name: _parts(cell, loaded[cell.dataset], folds) for cell in cells}
    for cell in cells:
        require_fitting(cell.config, loaded[cell.dataset])
        for dataset in datasets[cell.name]:  # refused if it is less than a batch
            Order.of(dataset.train, batch_size=cell.config.schedule.batch_size, seed=0)
        network = (cell.config, dataset.image_shape, dataset.num_classes)
        require_fitting_routing(*network)
        nnx.eval_shape(functools.partial(build_model, *network))
    identities = {
        cell.name: cell.identity(
            seeds, robustness_examples, folds, loaded[cell.dataset].fingerprints
        )
        for cell in cells
    }
    if (out / CONFIG).exists():
        raise UserError(f"{out} holds a run of fit: choose another --out.")
    with results_folder(out, COMPARISON):
        files = {cell.name: out / "cells" / f"{cell.name}.json" for cell in cells}
        known = {
            cell.name: kept(
                files[cell.name],
                functools.partial(difference, identities[cell.name]),
                overwrite,
            )
            for cell in cells
        }
        missing = [cell for cell in cells if known[cell.name] is None]
        steps = [
            cell.config.schedule.total_steps(len(dataset.train))
            for cell in missing
            for dataset in datasets[cell.name]
        ]
        with Progress(sum(steps), "step") as progress:
            for number, cell in enumerate(missing, start=1):
                progress.begin(f"[{number}/{len(missing)}] {cell.name}")
                result = _train(
                    cell, datasets[cell.name], seeds, robustness_examples, progress, number == 1
                )
                result |= {"identity": identities[cell.name], "origin": brief(origin(command))}
                with writing(out):
                    (out / "cells").mkdir(exist_ok=True)
                    write_json(files[cell.name], result)
                known[cell.name] = result
                accuracy = 100 * float(np.mean(result["accuracy"]))
                progress.note(f"{cell.name}: {accuracy:.2f} %; about {progress.left} left")
                jax.clear_caches()
        results = [found for cell in cells if (found := known[cell.name])]
        with writing(out):
            write_whole(out / "table.csv", findings.csv_text(results).encode())
        figures = {
            "errors.png": findings.draw_errors(results),
            "robustness.png": findings.draw_robustness(results),
        }
        page = findings.markdown(results, command)
        names = write_results(out, command, page, figures, {"cells": results})
    print(aligned(findings.table(results, SHOWN)))
    print(*findings.limits(results), *findings.saving(results), sep="\n")
    print(f"{out}: {', '.join([*names, 'table.csv'])}")
    return results


def _load(data: DataConfig, data_dir: Path | None) -> Dataset:
    dataset = data.load(data_dir).in_memory()
    if (count := dataset.train.labels_per_image) != 1:
        raise UserError(
            f"images of {data.dataset} are of {count or 'any number of'} classes each, but "
            "likelihood and calibration are compared for one: leave it out of --datasets."
        )
    return dataset


def _parts(cell: Cell, loaded: Dataset, folds: int | None) -> list[Dataset]:
    """What the networks of a cell are trained and measured on: each fold, if there are any."""
    if folds is None:
        return [cell.config.data.choose(loaded)]
    whole = dataclasses.replace(cell.config.data, validation=0).choose(loaded)
    return [fold(whole, number, folds) for number in range(folds)]


def _train(
    cell: Cell,
    datasets: Sequence[Dataset],
    seeds: int,
    robustness_examples: int,
    progress: Progress,
    measures_saving: bool,
) -> dict[str, Any]:
    saved, measured, skipped = None, [], 0
    with out_of_memory_is_bad_input(cell.config.schedule.batch_size):
        for dataset in datasets:
            trainer = SeedsTrainer(cell.config, dataset, range(seeds))
            if measures_saving and seeds > 1 and saved is None:
                alone = SeedsTrainer(cell.config, dataset, [0]).seconds_per_step()
                saved = {"alone": alone, "together": trainer.seconds_per_step(), "seeds": seeds}
            trainer.train(progress.advance)
            measured.append(measure(cell.config, trainer.states, dataset, robustness_examples))
            skipped += int(np.sum(trainer.states.skipped.total))
    images = [len(dataset.test) for dataset in datasets]
    return {
        "model": cell.model,
        "routing": cell.routing,
        "dataset": cell.dataset,
        "label": cell.label,
        "seeds": list(range(seeds)),
        "batch_size": cell.config.schedule.batch_size,
        "test_examples": sum(images),
        "robustness_examples": sum(min(robustness_examples, count) for count in images),
        **over_folds(measured, images),
        "images_per_second": trainer.images_per_second,
        "step_bytes": trainer.step_bytes,
        "parameters": trainer.parameters,
        "steps": trainer.total,
        "skipped_updates": skipped,
        "device_kind": jax.devices()[0].device_kind,
        "saved": saved,
    }
