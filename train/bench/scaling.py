"""How training scales with the number of devices: measured on those present, predicted for more.

**Weak** scaling gives each device the same share of a batch that grows with them, **strong**
scaling shares one batch out among them. Ideally a step takes the same time in the one, and the time
of one device divided by their number in the other; the efficiency is the ideal time over the real.

The prediction for N devices is

    T(N) = t(b) + 2 (N - 1) / N * G / W

with t(b) the time that one device takes for its b images, measured or on a straight line through
what was; G the bytes of a gradient; and W the bytes a second that a device sends over its
slowest link while it receives as many. The second term is what a ring needs to sum a gradient and
give every device the result, which no all-reduce can beat (Patarasuk and Yuan, 2009, "Bandwidth
optimal all-reduce algorithms for clusters of workstations"). Latency, and communication hidden
behind computation, are left out: they have opposite signs.
"""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import jax
import numpy as np

from train.bench.process import in_own_process
from train.bench.stepping import endless_batches, train
from train.bench.timing import time_rounds
from train.config.fit_config import FitConfig
from train.data import Dataset
from train.learn.network import out_of_memory_is_bad_input
from train.learn.program import assemble
from train.system.progress import each

Kind = Literal["weak", "strong"]
KINDS: tuple[Kind, ...] = ("weak", "strong")


@dataclass(frozen=True)
class Layout:
    """A batch and the devices that share it."""

    devices: int
    batch_size: int

    @property
    def share(self) -> int:
        """Images of each device."""
        return self.batch_size // self.devices

    def __str__(self) -> str:
        """In words."""
        return f"batch {self.batch_size} on {self.devices} device{'s' * (self.devices > 1)}"


def layouts(kind: Kind, batch_size: int, counts: Sequence[int]) -> list[Layout]:
    """What is run at each number of devices.

    Args:
        kind: "weak" gives each device `batch_size` images, "strong" all together.
        batch_size: see `kind`.
        counts: of devices; where a batch cannot be shared equally the count is left out.
    """
    if kind == "weak":
        return [Layout(count, batch_size * count) for count in counts]
    return [Layout(count, batch_size) for count in counts if batch_size % count == 0]


def doubled(last: int) -> list[int]:
    """1, 2, 4, ... up to `last`, which is always among them."""
    counts = [1]
    while 2 * counts[-1] <= last:
        counts.append(2 * counts[-1])
    return counts if counts[-1] == last else [*counts, last]


def measure_step(
    config: FitConfig, dataset: Dataset, devices: int, *, repetitions: int, seconds: float
) -> dict[str, Any]:
    """How long a training step takes, and the bytes that its devices have to sum.

    Raises:
        UserError: if it cannot be put together, or does not fit in memory.
    """
    with out_of_memory_is_bad_input(config.schedule.batch_size):
        program = assemble(config, dataset, devices=devices)
        batches = endless_batches(program)
        rounds = time_rounds(
            lambda times: train(program, batches, times), repetitions=repetitions, seconds=seconds
        )
    return {
        "step_seconds": statistics.median(rounds),
        "slowest_seconds": max(rounds),
        "fastest_seconds": min(rounds),
        "gradient_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(program.state.params)),
    }


def measure(
    config: FitConfig, dataset: Dataset, devices: int, rounds: dict[str, Any]
) -> dict[Layout, dict[str, Any]]:
    """Measures what weak and strong scaling up to so many devices need, and t(b) on one.

    Args:
        config: its `batch_size` is that of `layouts`.
        dataset: what it trains on.
        devices: the most.
        rounds: repetitions and seconds of `measure_step`.

    Raises:
        UserError: as `measure_step`.
    """
    batch = config.schedule.batch_size
    wanted = [Layout(1, size) for size in (batch, batch // 2, batch // 4) if size]
    for kind in KINDS:
        wanted += layouts(kind, batch, doubled(devices))
    wanted = list(dict.fromkeys(wanted))
    measured = {}
    for layout in each(wanted, len(wanted), str):
        changed = config.changed(batch_size=layout.batch_size)
        measured[layout] = in_own_process(measure_step, changed, dataset, layout.devices, **rounds)
    return measured


def measured_rows(
    measured: Mapping[Layout, dict[str, Any]], batch_size: int, devices: int
) -> list[dict[str, Any]]:
    """A row for each kind of scaling and number of devices."""
    alone = measured[Layout(1, batch_size)]["step_seconds"]
    return [
        _row(kind, layout, alone, measured[layout])
        for kind in KINDS
        for layout in layouts(kind, batch_size, doubled(devices))
    ]


def predicted_rows(
    measured: Mapping[Layout, dict[str, Any]],
    batch_size: int,
    counts: Sequence[int],
    link_bytes: float,
) -> list[dict[str, Any]]:
    """The same as `measured_rows`, predicted for these numbers of devices."""
    alone = measured[Layout(1, batch_size)]
    step_time = StepTime(
        {lay.batch_size: m["step_seconds"] for lay, m in measured.items() if lay.devices == 1}
    )
    return [
        _row(
            kind,
            layout,
            alone["step_seconds"],
            predict(layout, step_time, alone["gradient_bytes"], link_bytes),
        )
        for kind in KINDS
        for layout in layouts(kind, batch_size, counts)
    ]


def _row(kind: Kind, layout: Layout, alone: float, times: dict[str, Any]) -> dict[str, Any]:
    seconds = times["step_seconds"]
    return {
        "kind": kind,
        "devices": layout.devices,
        "batch_size": layout.batch_size,
        "images_per_second": layout.batch_size / seconds,
        # The ideal time of a step over the real one.
        "efficiency": (alone if kind == "weak" else alone / layout.devices) / seconds,
        **times,
    }


class StepTime:
    """t(b): what was measured on one device, and between and beyond it a straight line.

    Args:
        seconds: those of a step, by its batch; one at least.
    """

    def __init__(self, seconds: Mapping[int, float]) -> None:
        shares, times = np.array(list(seconds), float), np.array(list(seconds.values()))
        self._measured = dict(seconds)
        # Relative errors count alike.
        self._line = np.polyfit(shares, times, min(1, len(shares) - 1), w=1 / times)
        self._smallest = int(min(shares))

    def __call__(self, share: int) -> float:
        """Seconds for so many images: never fewer than the smallest batch took in proportion."""
        if share in self._measured:
            return self._measured[share]
        least = self._measured[self._smallest] * min(1.0, share / self._smallest)
        return max(float(np.polyval(self._line, share)), least)


def all_reduce_seconds(devices: int, gradient_bytes: int, link_bytes: float) -> float:
    """The time of the sum of a gradient over all devices, 2 (N - 1) / N * G / W."""
    return 2 * (devices - 1) / devices * gradient_bytes / link_bytes


def predict(
    layout: Layout, step_time: StepTime, gradient_bytes: int, link_bytes: float
) -> dict[str, float]:
    """The time of a step, and the part of it that is communication.

    Args:
        layout: the devices.
        step_time: of one device.
        gradient_bytes: G.
        link_bytes: W, bytes a second.
    """
    communication = all_reduce_seconds(layout.devices, gradient_bytes, link_bytes)
    return {
        "step_seconds": step_time(layout.share) + communication,
        "communication_seconds": communication,
    }
