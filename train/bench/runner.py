"""What `python -m train bench` does with its options: it measures, prints and writes."""

import argparse
import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax

from train.bench import scaling
from train.bench.data import load_or_imitate
from train.bench.feed import measure_feeds
from train.bench.figures import draw_all, draw_scaling
from train.bench.growth import growths
from train.bench.measure import measure_machine, measure_training, predict_memory
from train.bench.memory import DoesNotFitError
from train.bench.points import Point, sweep
from train.bench.process import in_own_process
from train.bench.tables import (
    feed_table,
    growth_sentence,
    machine_lines,
    prediction_lines,
    scaling_lines,
    tables,
)
from train.config.fit_config import FitConfig
from train.config.saved import to_values
from train.data import Dataset
from train.learn.network import require_precision
from train.learn.step import data_mesh
from train.system.errors import UserError
from train.system.files import write_json
from train.system.machine import describe_machine
from train.system.progress import each

_PACKAGES = ("jax", "jaxlib", "flax", "optax")


def run(config: FitConfig, options: argparse.Namespace) -> None:
    """Measures, prints what was found, and writes what was asked for.

    Args:
        config: what to measure.
        options: those of `add_bench_options`, `--devices` and `--data-dir`.

    Raises:
        UserError: on bad input, or if nothing of it can run.
    """
    _require_folder(options.json)
    if options.link_bandwidth and not options.scaling:
        raise UserError("--link-bandwidth is for --scaling: give that too, or leave it out.")
    dataset, synthetic = load_or_imitate(config.data.dataset, data_dir=options.data_dir)
    about = {
        "preset": config.preset,
        "config": to_values(config),
        "data": {"name": dataset.name, "synthetic": synthetic},
    }
    if options.feed:
        found = _feed(config, dataset, options)
    elif options.predict_memory:
        found = _predict(config, dataset, options)
    elif options.scaling:
        found = _scaling(config, dataset, options)
    else:
        found = _train(config, dataset, options, synthetic)
    if options.json:
        try:
            write_json(options.json, {**about, **found})
        except OSError as error:
            raise _unwritable(options.json, error) from error


def _feed(config: FitConfig, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    rows = measure_feeds(
        dataset,
        batch_size=config.schedule.batch_size,
        seed=config.seed,
        mesh=data_mesh(config.schedule.batch_size, options.devices),
        repetitions=options.repetitions,
        seconds=options.seconds,
    )
    print(feed_table(rows, config.schedule.batch_size))
    return {"machine": describe_machine(_PACKAGES), "feeds": rows}


def _predict(config: FitConfig, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    on_cpu = jax.default_backend() == "cpu"
    prediction = predict_memory(
        config, dataset, options.devices, options.predict_memory, with_program=on_cpu
    )
    print(prediction_lines(prediction, options.predict_memory))
    if on_cpu:
        print("on a CPU that is the memory of the whole process, the program itself included")
    return {
        "machine": describe_machine(_PACKAGES),
        "budget_bytes": options.predict_memory,
        "prediction": dataclasses.asdict(prediction),
    }


def _scaling(config: FitConfig, dataset: Dataset, options: argparse.Namespace) -> dict[str, Any]:
    require_precision(config)
    rounds = {"repetitions": options.repetitions, "seconds": options.seconds}
    machine = describe_machine(_PACKAGES) | in_own_process(
        measure_machine, [config.model.dtype], options.devices, **_shorter(rounds)
    )
    measured = scaling.measure(config, dataset, machine["devices"], rounds)
    rows = scaling.measured_rows(measured, config.schedule.batch_size, machine["devices"])
    predicted = (
        scaling.predicted_rows(
            measured, config.schedule.batch_size, options.predict_devices, options.link_bandwidth
        )
        if options.link_bandwidth
        else []
    )
    print(scaling_lines(rows, predicted, machine, options.link_bandwidth))
    _draw(
        options.plot,
        lambda folder: [draw_scaling(folder / "scaling.png", rows, predicted, config.preset)],
    )
    return {"machine": machine, "rows": rows, "predicted": predicted}


def _train(
    config: FitConfig, dataset: Dataset, options: argparse.Namespace, synthetic: bool
) -> dict[str, Any]:
    dtypes = options.dtypes or [config.model.dtype]
    for dtype in dtypes:
        require_precision(config.changed(dtype=dtype))
    rounds = {"repetitions": options.repetitions, "seconds": options.seconds}
    # This process leaves the devices alone, so that the others find them free.
    machine = describe_machine(_PACKAGES) | in_own_process(
        measure_machine, dtypes, options.devices, **_shorter(rounds)
    )
    points = sweep(
        config,
        batch_sizes=options.batch_sizes,
        dtypes=options.dtypes,
        iterations=options.iterations,
        implementations=options.implementations,
        primary_types=options.primary_types,
        grow=options.grow,
        largest_batch=len(dataset.train),
        devices=machine["devices"],
    )
    rows = _measure(config, dataset, points, options.devices, rounds)
    if all(row["failure"] for row in rows):
        raise UserError(rows[0]["failure"])
    grown = growths(rows)
    print(machine_lines(machine, dataset.name, len(dataset.train), synthetic), end="\n\n")
    print(tables(rows, machine))
    if grown:
        print("", *map(growth_sentence, grown), sep="\n")
    title = (
        f"{config.preset}: {config.model.name} on {machine['devices']} x {machine['device_kind']}"
    )
    _draw(options.plot, lambda folder: draw_all(folder, rows, grown, title))
    return {
        "machine": machine,
        "rows": rows,
        "growth": [{**dataclasses.asdict(growth), "rows": growth.values} for growth in grown],
    }


def _measure(
    config: FitConfig,
    dataset: Dataset,
    points: Sequence[Point],
    devices: int | None,
    rounds: dict[str, Any],
) -> list[dict[str, Any]]:
    """A row for each point; where a batch does not fit, larger ones are not tried."""
    configs = [point.apply(config) for point in points]  # told before anything is measured
    rows = []
    too_large: dict[Point, int] = {}  # a point without its batch -> the batch that did not fit
    for point, changed in each(
        zip(points, configs, strict=True), len(points), lambda pair: str(pair[0])
    ):
        family = dataclasses.replace(point, batch_size=0)
        if point.batch_size >= too_large.get(family, point.batch_size + 1):
            continue
        row: dict[str, Any] = {**dataclasses.asdict(point), "failure": None}
        try:
            row |= in_own_process(measure_training, changed, dataset, devices, **rounds)
        except UserError as error:
            row["failure"] = str(error)
            if isinstance(error, DoesNotFitError):
                too_large[family] = point.batch_size
        rows.append(row)
    return rows


def _draw(folder: Path | None, draw: Callable[[Path], Sequence[Path]]) -> None:
    """Draws into a folder, if there is to be one, and tells which files came of it."""
    if folder is None:
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        print("", *draw(folder), sep="\n")
    except OSError as error:
        raise _unwritable(folder, error) from error


def _shorter(rounds: dict[str, Any]) -> dict[str, Any]:
    """Ceilings are the fastest of their rounds, which need not be long."""
    return {**rounds, "seconds": rounds["seconds"] / 4}


def _require_folder(path: Path | None) -> None:
    if path is not None and not path.absolute().parent.is_dir():
        raise UserError(f"{path} cannot be written: {path.parent} is no folder.")


def _unwritable(path: Path, error: OSError) -> UserError:
    return UserError(f"{error.filename or path} cannot be written ({error.strerror or error}).")
