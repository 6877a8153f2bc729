"""`python -m train compare`: trains what is missing, and writes the tables and figures."""

import json
import shlex
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.data import Dataset, load_dataset
from train.learn.network import out_of_memory_is_bad_input, require_fitting_routing
from train.learn.own_routing import trust
from train.run.folder import CONFIG
from train.run.lock import locked
from train.study.compare.cells import Cell, difference, identity, list_cells
from train.study.compare.figures import draw_accuracy, draw_robustness
from train.study.compare.findings import csv_text, limits, markdown, rows
from train.study.compare.measures import measure
from train.study.compare.seeds import SeedsProgram
from train.system.errors import UserError
from train.system.files import write_figure, write_json, write_whole, writing
from train.system.machine import describe_machine
from train.system.progress import Progress
from train.system.tables import aligned

SHOWN = ("model", "routing", "dataset", "accuracy", "spread", "against first", "images/s")
"""The columns that are printed; the files have all."""


def run(options: Namespace, arguments: Sequence[str]) -> None:
    """Compares, and leaves everything in `options.out`; goes on where it was interrupted.

    Raises:
        UserError: on bad input, or if the folder cannot be written.
    """
    if options.seeds < 1:
        raise UserError(f"--seeds is {options.seeds}, but must be more than 0.")
    if options.robustness_examples < 1:
        raise UserError(
            f"--robustness-examples is {options.robustness_examples}, but must be more than 0."
        )
    if options.steps is not None and options.epochs is not None:
        raise UserError("--steps and --epochs both say how long to train: give one of them.")
    for routing in options.routings:
        trust(routing)
    changes = dict(options.settings)
    if "epochs" in changes:
        changes["steps"] = None
    cells = list_cells(options.models, options.routings, options.datasets, changes)
    datasets = {name: _load(name, options.data_dir) for name in options.datasets}
    for cell in cells:
        dataset = datasets[cell.dataset]
        require_fitting_routing(cell.config, dataset.image_shape, dataset.num_classes)
    out: Path = options.out
    if (out / CONFIG).exists():
        raise UserError(f"{out} holds a run of fit: choose another --out.")
    with writing(out):
        (out / "cells").mkdir(parents=True, exist_ok=True)
    with locked(out):
        results = _results(cells, datasets, options)
        command = shlex.join(["python", "-m", "train", *arguments])
        with writing(out):
            _write(out, results, command)
    print(_table(results))
    print(*limits(results), sep="\n")
    print(*_saving(results), sep="\n")
    print(f"{out}: table.md, table.csv, results.json, accuracy.png, robustness.png")


def _load(name: str, data_dir: Path | None) -> Dataset:
    dataset = load_dataset(name, data_dir=data_dir)
    if dataset.labels_per_image > 1:
        raise UserError(
            f"images of {name} are of {dataset.labels_per_image} classes each, but likelihood and "
            "calibration are compared for one: leave it out of --datasets."
        )
    return dataset.limited()


def _results(
    cells: Sequence[Cell], datasets: Mapping[str, Dataset], options: Namespace
) -> list[dict[str, Any]]:
    """The results of all cells: what is kept is read, the rest is trained and kept."""
    seeds = range(options.seeds)
    kept: dict[str, dict[str, Any] | None] = {}
    for cell in cells:
        wanted = identity(cell, seeds, options.robustness_examples)
        kept[cell.name] = _read(options.out, cell, wanted, overwrite=options.overwrite)
    missing = [cell for cell in cells if kept[cell.name] is None]
    steps = [
        cell.config.schedule.total_steps(len(datasets[cell.dataset].train)) for cell in missing
    ]
    with Progress(sum(steps), "step") as progress:
        for number, cell in enumerate(missing, start=1):
            progress.begin(f"[{number}/{len(missing)}] {cell.name}")
            first = cell is missing[0]
            result = _train(cell, datasets[cell.dataset], seeds, options, progress, first)
            with writing(options.out):
                write_json(_path(options.out, cell), result)
            kept[cell.name] = result
            accuracy = 100 * float(np.mean(result["accuracy"]))
            progress.note(f"{cell.name}: {accuracy:.2f} %; about {progress.left} left")
            jax.clear_caches()
    return [done for cell in cells if (done := kept[cell.name]) is not None]


def _train(
    cell: Cell,
    dataset: Dataset,
    seeds: Sequence[int],
    options: Namespace,
    progress: Progress,
    measures_saving: bool,
) -> dict[str, Any]:
    saved = None
    with out_of_memory_is_bad_input(cell.config.schedule.batch_size):
        program = SeedsProgram(cell.config, dataset, seeds)
        if measures_saving and len(seeds) > 1:
            alone = SeedsProgram(cell.config, dataset, seeds[:1]).seconds_per_step()
            saved = {"alone": alone, "together": program.seconds_per_step(), "seeds": len(seeds)}
        trained = program.train(progress.advance)
        measured = measure(cell.config, trained, dataset, options.robustness_examples)
    return {
        "identity": identity(cell, seeds, options.robustness_examples),
        "model": cell.model,
        "routing": cell.routing,
        "dataset": cell.dataset,
        "label": cell.label,
        "seeds": list(seeds),
        "batch_size": cell.config.schedule.batch_size,
        "test_examples": len(dataset.test),
        "robustness_examples": min(options.robustness_examples, len(dataset.test)),
        **measured,
        "images_per_second": trained.images_per_second,
        "step_bytes": trained.step_bytes,
        "parameters": trained.parameters,
        "steps": trained.steps,
        "skipped_updates": int(np.sum(trained.states.skipped.total)),
        "device_kind": jax.devices()[0].device_kind,
        "saved": saved,
    }


def _path(out: Path, cell: Cell) -> Path:
    return out / "cells" / f"{cell.name}.json"


def _read(
    out: Path, cell: Cell, wanted: Mapping[str, Any], *, overwrite: bool
) -> dict[str, Any] | None:
    """The kept result of a cell, if it is of these options."""
    path = _path(out, cell)
    if not path.exists():
        return None
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        kept = result["identity"]
        told = difference(kept, wanted)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # damaged: it is measured anew
    if kept == wanted:
        return result
    if overwrite:
        return None
    raise UserError(
        f"{path} was measured with {told or 'other options'}: choose another --out, or --overwrite "
        "to measure it anew."
    )


def _write(out: Path, results: Sequence[Mapping[str, Any]], command: str) -> None:
    text = "\n".join([markdown(results, command), *_saving(results), ""])
    write_whole(out / "table.md", text.encode())
    write_whole(out / "table.csv", csv_text(results).encode())
    machine = describe_machine(("jax", "flax", "optax"))
    write_json(out / "results.json", {"command": command, **machine, "cells": list(results)})
    for name, draw in (("accuracy", draw_accuracy), ("robustness", draw_robustness)):
        write_figure(out / f"{name}.png", draw(results))


def _saving(results: Sequence[Mapping[str, Any]]) -> list[str]:
    """What training all seeds at once saves, if there were more than one."""
    saved = next((result["saved"] for result in results if result["saved"]), None)
    if saved is None:
        return []
    ratio = saved["alone"] * saved["seeds"] / saved["together"]
    return [
        f"All {saved['seeds']} seeds at once: {1000 * saved['together']:.1f} ms a step, one alone "
        f"{1000 * saved['alone']:.1f} ms: {ratio:.2f} times as fast as one after the other (first "
        "cell)."
    ]


def _table(results: Sequence[Mapping[str, Any]]) -> str:
    return aligned([SHOWN, *([row[name] for name in SHOWN] for row in rows(results))])
