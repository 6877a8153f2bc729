"""What `python -m train bench` measures: training, the feeds, the memory, or scaling."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from train.bench import charts, report
from train.bench.ceilings import measure_machine
from train.bench.data import load_or_imitate, measure_feeds
from train.bench.memory import predict_memory
from train.bench.report import Report
from train.bench.sweep import Row, Sweep, describe, growths, scaling_points
from train.bench.timing import Rounds
from train.bench.training import measure_speed, measure_training
from train.bench.worker import in_own_process
from train.config.config_file import to_values
from train.config.fit_config import FitConfig
from train.learn.network import require_precision
from train.learn.pmap import data_mesh
from train.system.errors import DoesNotFitError, UserError
from train.system.machine import describe_machine
from train.system.progress import each

_PACKAGES = ("jax", "jaxlib", "flax", "optax")
_CEILING_SHARE = 0.25
"""A round of a ceiling is so much shorter: the fastest counts."""


class Benchmark:
    """Measures one configuration on one data set, on all devices if None; each method reports.

    Raises:
        UserError: here and from each method, on bad input, or if nothing of it can run.
    """

    def __init__(
        self, config: FitConfig, *, data_dir: Path | None, devices: int | None, rounds: Rounds
    ) -> None:
        # A benchmark chooses nothing: a batch may be as large as the training split.
        self.config, self.devices, self.rounds = config.changed(validation=0), devices, rounds
        self.dataset, self.synthetic = load_or_imitate(config.data.dataset, data_dir=data_dir)

    def training(self, sweep: Sweep) -> Report:
        """What a step costs at each point of a sweep, and how that grows."""
        machine = self._machine(sweep.dtypes or [self.config.model.dtype])
        images, count = len(self.dataset.train), machine["devices"]
        rows = self._measure(sweep.configs(self.config, largest_batch=images, devices=count))
        if all(row["failure"] for row in rows):
            raise UserError(rows[0]["failure"])
        grown = growths(rows)
        text = [
            report.machine_lines(machine, self.dataset.name, images, self.synthetic),
            report.training_tables(rows, machine),
            "\n".join(map(report.growth_sentence, grown)),
        ]
        growing = [{**dataclasses.asdict(growth), "rows": growth.values} for growth in grown]
        title = f"{self.config.preset}: {self.config.model.name} on {count} x "
        return self._report(
            "\n\n".join(text).rstrip(),
            {"rows": rows, "growth": growing, "machine": machine},
            charts.draw_all(rows, grown, title + machine["device_kind"]),
        )

    def _measure(self, configs: Sequence[tuple[Row, FitConfig]]) -> list[dict[str, Any]]:
        """A row for each configuration; where a batch does not fit, larger ones are not tried."""
        rows = []
        too_large: dict[str, int] = {}  # a row without its batch -> the batch that did not fit
        for varied, config in each(configs, len(configs), lambda pair: describe(pair[0])):
            row: dict[str, Any] = {**varied, "failure": None}
            others = describe({**varied, "batch_size": None})
            if row["batch_size"] >= too_large.get(others, row["batch_size"] + 1):
                continue
            try:
                row |= in_own_process(
                    measure_training, config, self.dataset, self.devices, self.rounds
                )
            except UserError as error:
                row["failure"] = str(error)
                if isinstance(error, DoesNotFitError):
                    too_large[others] = row["batch_size"]
            rows.append(row)
        return rows

    def feeds(self) -> Report:
        """How many images a second the feeds bring onto the devices, without any training."""
        batch = self.config.schedule.batch_size
        rows = measure_feeds(
            self.dataset,
            batch_size=batch,
            seed=self.config.seed,
            mesh=data_mesh(batch, self.devices),
            rounds=self.rounds,
        )
        return self._report(report.feed_table(rows, batch), {"feeds": rows})

    def memory(self, budget: int) -> Report:
        """The largest batch whose step fits into so many bytes of a device."""
        on_cpu = jax.default_backend() == "cpu"
        prediction = predict_memory(
            self.config, self.dataset, self.devices, budget, with_program=on_cpu
        )
        text = report.prediction_lines(prediction, budget)
        if on_cpu:
            text += "\non a CPU that is the memory of the whole process, the program included"
        found = {"budget_bytes": budget, "prediction": prediction}
        return self._report(text, found)

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
        rounds = self.rounds.shorter(_CEILING_SHARE)
        found = in_own_process(measure_machine, dtypes, self.devices, rounds)
        return describe_machine(_PACKAGES) | found

    def _report(
        self, text: str, found: dict[str, Any], drawn: dict[str, Any] | None = None
    ) -> Report:
        about = {
            "preset": self.config.preset,
            "config": to_values(self.config),
            "data": {"name": self.dataset.name, "synthetic": self.synthetic},
            "machine": describe_machine(_PACKAGES),
        }
        return Report(text, about | found, drawn or {})
