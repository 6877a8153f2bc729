"""What is measured, and how cost grows: with one quantity of a sweep, and with the devices.

**Weak** scaling gives each device the same share of a batch that grows with them, **strong**
scaling shares one batch out among them. Ideally a step takes the same time in the one, and the time
of one device divided by their number in the other; the efficiency is the ideal time over the real.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from train.bench.timing import Line, fit_line
from train.config.fit_config import FitConfig
from train.learn.network import has_iterations

GROWING_ITERATIONS = (1, 2, 3, 4, 5)
GROWING_TYPES = (8, 16, 32, 64, 128)
"""On the paper's network, 36 positions each: 288 to 4,608 primary capsules."""

COLUMNS = {"batch": "batch_size", "iterations": "iterations", "capsules": "primary_capsules"}
"""What can grow, and the column of a table that holds it."""

_WORDS = {
    "model": "{}",
    "batch_size": "batch {}",
    "dtype": "{}",
    "iterations": "{} iterations",
    "implementation": "routing {}",
    "primary_types": "{} types",
    "primary_capsules": "{} capsules",
}
POINT = tuple(name for name in _WORDS if name != "primary_types")
"""The columns that tell the rows of a table apart."""

Growing = Literal["batch", "iterations", "capsules"]
Row = Mapping[str, Any]


def list_configs(
    recipes: Sequence[FitConfig],
    varied: Mapping[str, Sequence[Any] | None],
    grow: Sequence[Growing] = (),
    *,
    largest_batch: int,
    devices: int,
) -> list[tuple[Row, FitConfig]]:
    """What is measured, each once: the varied columns of its row, and the configuration.

    Args:
        recipes: one for each network; what they say counts where there is no list.
        varied: lists by the name of their column, all combinations of which are measured. Those of
            "implementation" are of the model's option `routing_implementation`, "none" for None.
        grow: quantities that grow, one at a time, for each of the combinations.
        largest_batch: where a growing batch ends at the latest.
        devices: how many share a batch, with which a growing one begins.

    Raises:
        UserError: if a value is out of its range.
    """
    growing: dict[str, dict[str, Sequence[Any]]] = {
        "batch": {"batch_size": doubled(devices, largest_batch)},
        "iterations": {"iterations": GROWING_ITERATIONS},
        "capsules": {"primary_types": GROWING_TYPES},
    }
    found: list[tuple[Row, FitConfig]] = []
    for config in recipes:
        own = {
            "model": config.model.name if len(recipes) > 1 else None,
            "batch_size": config.schedule.batch_size,
            "dtype": config.model.dtype,
            "iterations": config.model.routing_iterations if has_iterations(config.model) else None,
            "implementation": None,
            "primary_types": None,
        }
        lists = {name: varied.get(name) or [value] for name, value in own.items()}
        sweeps = [lists | growing[name] for name in grow] or [lists]
        points = [point for chosen in sweeps for point in itertools.product(*chosen.values())]
        rows = [dict(zip(lists, point, strict=True)) for point in dict.fromkeys(points)]
        found += [(row, _configured(config, row)) for row in rows]
    return found


def _configured(recipe: FitConfig, row: Row) -> FitConfig:
    options, chosen = dict(recipe.model.options), row["implementation"]
    if chosen:
        options["routing_implementation"] = None if chosen == "none" else chosen
    if row["primary_types"]:
        options["primary_types"] = row["primary_types"]
    return recipe.changed(
        batch_size=row["batch_size"],
        dtype=row["dtype"],
        routing_iterations=row["iterations"] or recipe.model.routing_iterations,
        model_options=options,
    )


def describe(row: Row) -> str:
    """The columns of a row that tell it apart, as far as it has them, in words."""
    known = ((words, row.get(name)) for name, words in _WORDS.items())
    return ", ".join(words.format(value) for words, value in known if value is not None)


def doubled(first: int, last: int) -> list[int]:
    """`first`, twice that, and so on up to `last`."""
    sizes = [first]
    while 2 * sizes[-1] <= last:
        sizes.append(2 * sizes[-1])
    return sizes


@dataclass(frozen=True)
class Growth:
    """The rows of a table, two at least, that differ in one quantity alone, in ascending order."""

    axis: str  # the quantity, one of `COLUMNS`
    same: Row  # the columns that stay
    values: list[int]  # of the quantity
    rows: list[Row]
    line: Line  # of the seconds of a step


def growths(rows: Iterable[Row]) -> list[Growth]:
    """Finds everything that grows in a table; rows with a failure do not count."""
    found = []
    ran = [row for row in rows if row["failure"] is None]
    for axis, column in COLUMNS.items():
        groups: dict[tuple, dict[int, Row]] = {}
        for row in ran:
            if row[column] is not None:
                same = tuple((name, row[name]) for name in POINT if name != column)
                groups.setdefault(same, {})[row[column]] = row
        for same, members in groups.items():
            if len(members) > 1:
                values, ascending = map(list, zip(*sorted(members.items()), strict=True))
                line = fit_line(values, [row["step_seconds"] for row in ascending])
                found.append(Growth(axis, dict(same), values, ascending, line))
    return found


def scaling_points(batch_size: int, devices: int) -> list[tuple[str, int, int]]:
    """Kind of scaling, devices and batch of all that is run, on 1, 2, 4, ... and all devices.

    The batch is that of each device for "weak" scaling, and of all of them for "strong", where a
    number of devices that cannot share it equally is left out.
    """
    counts = list(dict.fromkeys([*doubled(1, devices), devices]))
    weak = [("weak", count, batch_size * count) for count in counts]
    return weak + [("strong", count, batch_size) for count in counts if batch_size % count == 0]
