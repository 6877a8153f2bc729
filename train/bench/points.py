"""What is measured: the points of a sweep, each a change to one configuration."""

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from train.config.fit_config import FitConfig

GROWING_ITERATIONS = (1, 2, 3, 4, 5)
GROWING_TYPES = (8, 16, 32, 64, 128)
"""On the paper's network, 36 positions each: 288 to 4,608 primary capsules."""


@dataclass(frozen=True)
class Point:
    """What a measurement changes in the configuration.

    Attributes:
        batch_size: images in a step, over all devices.
        dtype: of the computation.
        iterations: of the routing.
        implementation: the model's option `routing_implementation`, `"none"` for None; None if the
            option is not given.
        primary_types: the model's option of that name; None if it is not changed.
    """

    batch_size: int
    dtype: str
    iterations: int
    implementation: str | None = None
    primary_types: int | None = None

    def apply(self, config: FitConfig) -> FitConfig:
        """The configuration with this point's values.

        Raises:
            UserError: if a value is out of its range.
        """
        options = dict(config.model.options)
        if self.implementation is not None:
            named = None if self.implementation == "none" else self.implementation
            options["routing_implementation"] = named
        if self.primary_types is not None:
            options["primary_types"] = self.primary_types
        return config.changed(
            batch_size=self.batch_size,
            dtype=self.dtype,
            routing_iterations=self.iterations,
            model_options=options,
        )

    def __str__(self) -> str:
        """The point in words."""
        words = [f"batch {self.batch_size}", self.dtype, f"{self.iterations} iterations"]
        if self.implementation is not None:
            words.append(f"routing {self.implementation}")
        if self.primary_types is not None:
            words.append(f"{self.primary_types} types")
        return ", ".join(words)


def sweep(
    config: FitConfig,
    *,
    batch_sizes: Sequence[int] | None = None,
    dtypes: Sequence[str] | None = None,
    iterations: Sequence[int] | None = None,
    implementations: Sequence[str] | None = None,
    primary_types: Sequence[int] | None = None,
    grow: Iterable[str] = (),
    largest_batch: int,
    devices: int,
) -> list[Point]:
    """All combinations of the lists, and for each of them what is to grow.

    Args:
        config: gives what has no list.
        batch_sizes: images in a step.
        dtypes: of the computation.
        iterations: of the routing.
        implementations: of the routing.
        primary_types: types of primary capsules.
        grow: which of "batch", "iterations" and "capsules" grow, one at a time.
        largest_batch: where a growing batch ends, at the latest.
        devices: how many share a batch.

    Returns:
        The points, each once.
    """
    lists: dict[str, Sequence[Any]] = {
        "batch_size": batch_sizes or [config.schedule.batch_size],
        "dtype": dtypes or [config.model.dtype],
        "iterations": iterations or [config.model.routing_iterations],
        "implementation": implementations or [None],
        "primary_types": primary_types or [None],
    }
    growing: dict[str, dict[str, Sequence[Any]]] = {
        "batch": {"batch_size": _doubled(devices, largest_batch)},
        "iterations": {"iterations": GROWING_ITERATIONS},
        "capsules": {"primary_types": GROWING_TYPES},
    }
    sweeps = [lists | growing[name] for name in grow] or [lists]
    return list(
        dict.fromkeys(
            Point(**dict(zip(chosen, values, strict=True)))
            for chosen in sweeps
            for values in itertools.product(*chosen.values())
        )
    )


def _doubled(first: int, last: int) -> list[int]:
    sizes = [first]
    while 2 * sizes[-1] <= last:
        sizes.append(2 * sizes[-1])
    return sizes
