"""What `python -m train bench` measures: training, its start, inference, feeds, memory, scaling."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from train.bench import charts, report
from train.bench.ceilings import measure_machine
from train.bench.costs import footprint
from train.bench.forward import BATCH_SIZES, measure_forward
from train.bench.memory import largest_batch
from train.bench.report import Report
from train.bench.start import seconds_of_parts, seconds_to_begin
from train.bench.sweep import Growing, Row, describe, growths, list_configs, scaling_points
from train.bench.timing import NO_END, Rounds, rates, seconds_of, time_rounds
from train.bench.training import measure_speed, measure_training, smallest_program
from train.bench.worker import in_own_process
from train.config.fit_config import FitConfig
from train.data import Dataset, Feed, Order, Split, catalog, is_resident, load_dataset, npz
from train.data.catalog import MADE_OF_MNIST
from train.data.feeds.feed import ResidentFeed
from train.data.feeds.streaming import StreamingFeed
from train.data.made.generated import GeneratedSplit
from train.learn.network import require_precision
from train.learn.pmap import data_mesh
from train.learn.user_routing import trusted
from train.system.errors import DoesNotFitError, UserError
from train.system.machine import describe_machine, process_bytes
from train.system.progress import each

_TRAINING, _TEST = 60_000, 256
"""Images of an imitated data set."""
_PACKAGES = ("jax", "jaxlib", "flax", "optax")
WORKERS = (0, 1, 2)


class Benchmark:
    """Measures a configuration on its data set, on all devices if None; each method reports.

    Of several, one for each network, `training`, `forward` and `start` measure all, and the others
    the first.

    Raises:
        UserError: here and from each method, on bad input, or if nothing of it can run.
    """

    def __init__(
        self, *configs: FitConfig, data_dir: Path | None, devices: int | None, rounds: Rounds
    ) -> None:
        self.recipes = configs
        # A benchmark chooses nothing: a batch may be as large as the training split.
        self.configs = [config.changed(validation=0) for config in configs]
        self.config, self.devices, self.rounds = self.configs[0], devices, rounds
        data = self.config.data
        whole, self.synthetic = load_or_imitate(data.dataset, data_dir=data_dir, layout=data.layout)
        self.dataset = data.choose(whole)

    def training(
        self, varied: Mapping[str, Sequence[Any] | None], grow: Sequence[Growing] = ()
    ) -> Report:
        """What a step costs, and how that grows; arguments as of `list_configs`."""
        machine = self._machine(varied.get("dtype") or [self.config.model.dtype])
        images, count = len(self.dataset.train), machine["devices"]
        configs = list_configs(self.configs, varied, grow, largest_batch=images, devices=count)
        rows = self._measure(configs, measure_training, self.dataset, self.devices, self.rounds)
        grown = growths(rows)
        text = [
            report.machine_lines(machine, self.dataset.name, images, self.synthetic),
            report.training_tables(rows, machine),
            "\n".join(map(report.growth_sentence, grown)),
        ]
        growing = [{**dataclasses.asdict(growth), "rows": growth.values} for growth in grown]
        names = ", ".join(config.model.name for config in self.configs)
        title = f"{self.config.preset}: {names} on {count} x "
        return self._report(
            "\n\n".join(text).rstrip(),
            {"rows": rows, "growth": growing, "machine": machine},
            charts.draw_all(rows, grown, title + machine["device_kind"]),
        )

    def forward(self, varied: Mapping[str, Sequence[Any] | None]) -> Report:
        """What a forward pass costs on one device; by default at each of `BATCH_SIZES`."""
        varied = {**varied, "batch_size": varied.get("batch_size") or BATCH_SIZES}
        configs = list_configs(self.configs, varied, largest_batch=0, devices=1)
        rows = self._measure(configs, measure_forward, self.dataset, self.rounds)
        return self._report(report.forward_table(rows, self.dataset.name), {"rows": rows})

    def start(
        self, fits: Sequence[Callable[[Path], object]], imports: str, data_dir: Path | None
    ) -> Report:
        """How long training takes to begin: from the start of `fit` to its first line of metrics.

        Those of each network are of `seconds_to_begin`, and import a module; the folder has the
        official files, if they are not at hand.
        """
        rows, several = [], len(self.configs) > 1
        rounds = [
            (number, config, fit)
            for number in range(1, self.rounds.repetitions + 1)
            for config, fit in zip(self.recipes, fits, strict=True)
        ]
        for _, config, fit in each(rounds, len(rounds), "round {0[0]}, {0[1].model.name}".format):
            # Bad input is told here, and not found out by the process of the command.
            parts = seconds_of_parts(imports, config, data_dir, self.devices, trusted())
            model = config.model.name if several else None
            rows.append({"model": model, "start": seconds_to_begin(fit), **parts})
        return self._report(report.start_table(rows, self.config.preset), {"rows": rows})

    def _measure(
        self, configs: Sequence[tuple[Row, FitConfig]], measure: Callable[..., Any], *given: Any
    ) -> list[dict[str, Any]]:
        """A row for each configuration; where a batch does not fit, larger ones are not tried.

        Measured is it and what is given, in a process of its own.

        Raises:
            UserError: if no configuration can run.
        """
        rows = []
        too_large: dict[str, int] = {}  # a row without its batch -> the batch that did not fit
        for varied, config in each(configs, len(configs), lambda pair: describe(pair[0])):
            row: dict[str, Any] = {**varied, "failure": None}
            others = describe({**varied, "batch_size": None})
            if row["batch_size"] >= too_large.get(others, row["batch_size"] + 1):
                continue
            try:
                row |= in_own_process(measure, config, *given)
            except UserError as error:
                row["failure"] = str(error)
                if isinstance(error, DoesNotFitError):
                    too_large[others] = row["batch_size"]
            rows.append(row)
        if all(row["failure"] for row in rows):
            raise UserError(rows[0]["failure"])
        return rows

    def feeds(self) -> Report:
        """How many images a second the feeds bring onto the devices, without any training.

        They are the resident feed, where examples fit, and the streaming one with as many worker
        processes as `WORKERS` says; examples that are made are made by this process alone.
        """
        split, batch = self.dataset.train, self.config.schedule.batch_size
        mesh, seed = data_mesh(batch, self.devices), self.config.seed
        order = Order.of(split, batch_size=batch, seed=seed)
        workers = WORKERS[:1] if isinstance(split, GeneratedSplit) else WORKERS
        feeds: list[tuple[str, int, Feed]] = [
            ("streaming", n, StreamingFeed(split, order, mesh, workers=n)) for n in workers
        ]
        if is_resident(split, "auto", mesh):
            feeds.insert(0, ("resident", 0, ResidentFeed(split.in_memory(), order, mesh)))
        rows = []
        for name, count, feed in feeds:
            bring = _bring(feed)
            row = {"feed": name, "workers": count, "first_batch_seconds": seconds_of(bring, 1)}
            rows.append({**row, **rates(batch, time_rounds(bring, self.rounds))})
        return self._report(report.feed_table(rows, batch), {"feeds": rows})

    def memory(self, budget: int) -> Report:
        """The largest batch whose step fits into so many bytes of each device.

        On a CPU, whose devices share the memory of this process, what that takes apart from the
        step counts too.
        """
        on_cpu = jax.default_backend() == "cpu"
        program = smallest_program(self.config, self.dataset, self.devices)
        count, multiple = program.mesh.devices.size, program.config.schedule.batch_size
        start = max(multiple, self.config.schedule.batch_size // 2 // multiple * multiple)
        besides: int | None = None

        def needed(size: int) -> int:
            nonlocal besides
            plan = footprint(program.lower(size).compile())
            if not on_cpu:
                return plan["total"]
            if besides is None:  # now that the compiler has had its share, too
                besides = process_bytes()
            # The arguments are there already.
            return besides + count * (plan["total"] - plan["arguments"])

        prediction = largest_batch(needed, budget, multiple=multiple, start=start)
        text = report.prediction_lines(prediction, budget)
        if on_cpu:
            text += "\non a CPU that is the memory of the whole process, the program included"
        return self._report(text, {"budget_bytes": budget, "prediction": prediction})

    def scaling(self) -> Report:
        """Weak and strong scaling over the devices present."""
        machine, batch = self._machine([self.config.model.dtype]), self.config.schedule.batch_size
        points, rows = scaling_points(batch, machine["devices"]), []
        timed: dict[tuple[int, int], dict[str, Any]] = {}
        for kind, devices, size in each(
            points, len(points), lambda point: "{} {} {}".format(*point)
        ):
            if (devices, size) not in timed:
                config = self.config.changed(batch_size=size)
                timed[devices, size] = in_own_process(
                    measure_speed, config, self.dataset, devices, self.rounds
                )
            found, alone = timed[devices, size], timed[1, batch]["step_seconds"]
            ideal = alone if kind == "weak" else alone / devices
            row = {"kind": kind, "devices": devices, "batch_size": size}
            rows.append({**row, "efficiency": ideal / found["step_seconds"], **found})
        return self._report(
            report.scaling_lines(rows, machine),
            {"rows": rows, "machine": machine},
            {"scaling.png": charts.draw_scaling(rows, self.config.preset)},
        )

    def _machine(self, dtypes: Sequence[str]) -> dict[str, Any]:
        """The devices and their ceilings, from a process that leaves the devices to the others."""
        for dtype in dtypes:
            require_precision(self.config.changed(dtype=dtype))
        found = in_own_process(measure_machine, dtypes, self.devices, self.rounds.short)
        return describe_machine(_PACKAGES) | found

    def _report(
        self, text: str, found: dict[str, Any], drawn: dict[str, Any] | None = None
    ) -> Report:
        about = {
            "preset": self.config.preset,
            "configs": [dataclasses.asdict(config) for config in self.configs],
            "data": {"name": self.dataset.name, "synthetic": self.synthetic},
            "machine": describe_machine(_PACKAGES),
        }
        return Report(text, about | found, drawn or {})


def load_or_imitate(
    name: str, *, data_dir: Path | None = None, layout: npz.Layout = npz.AS_WRITTEN
) -> tuple[Dataset, bool]:
    """A data set that is at hand, or random images of its shape, and whether it is an imitation.

    Those cost as much to train on. Nothing is downloaded; `data_dir` may hold the official files.

    Raises:
        UserError: if the files are not what they should be.
    """
    made = MADE_OF_MNIST.get(name)
    source = catalog.SOURCES.get("mnist" if made else name)
    if source is None or data_dir is not None or catalog.is_at_hand(name):
        return load_dataset(name, data_dir=data_dir, layout=layout), False
    random = np.random.default_rng(0)

    def split(size: int) -> Split:
        return Split(
            images=random.integers(0, 256, (size, *source.image_shape), dtype=np.uint8),
            labels=random.integers(0, len(source.class_names), size, dtype=np.int32),
        )

    imitation = Dataset(source.name, split(_TRAINING), split(_TEST), source.class_names)
    return made(imitation) if made else imitation, True


def _bring(feed: Feed) -> Callable[[int], None]:
    """What brings so many batches onto the devices."""
    batches, select = feed.batches(0, NO_END), jax.jit(feed.select)

    def run(times: int) -> None:
        for batch in itertools.islice(batches, times):
            arrived = select(feed.constants, batch)
        jax.block_until_ready(arrived)

    return run
