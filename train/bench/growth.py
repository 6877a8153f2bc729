"""How cost grows with one quantity where everything else stays."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

AXES = {"batch": "batch_size", "iterations": "iterations", "capsules": "primary_capsules"}
"""What can grow, and the column that holds it."""

_POINT = ("batch_size", "dtype", "iterations", "implementation", "primary_capsules")


@dataclass(frozen=True)
class Growth:
    """The rows of a table that differ in one quantity alone.

    Attributes:
        axis: what grows, of `AXES`.
        same: the columns that stay, with their values.
        rows: in ascending order, two at least.
        fixed_seconds: what a step costs at nothing of it, by a straight line through all rows.
        seconds_each: what each more adds, by that line.
        off_by: the largest relative distance of a row from the line.
    """

    axis: str
    same: dict[str, Any]
    rows: list[dict[str, Any]]
    fixed_seconds: float
    seconds_each: float
    off_by: float

    @property
    def values(self) -> list[int]:
        """The quantity in each row."""
        return [row[AXES[self.axis]] for row in self.rows]


def growths(rows: Sequence[dict[str, Any]]) -> list[Growth]:
    """Finds everything that grows in a table; rows with a failure do not count."""
    found = []
    ran = [row for row in rows if row["failure"] is None]
    for axis, column in AXES.items():
        groups: dict[tuple, dict[int, dict[str, Any]]] = {}
        for row in ran:
            if row[column] is not None:
                same = tuple((name, row[name]) for name in _POINT if name != column)
                groups.setdefault(same, {})[row[column]] = row
        for same, members in groups.items():
            if len(members) > 1:
                ascending = [members[value] for value in sorted(members)]
                found.append(
                    Growth(axis, dict(same), ascending, *_line(sorted(members), ascending))
                )
    return found


def _line(values: Sequence[int], rows: Sequence[dict[str, Any]]) -> tuple[float, float, float]:
    """Value at zero, slope and largest relative error of the line that fits relatively best."""
    seconds = np.array([row["step_seconds"] for row in rows])
    slope, fixed = np.polyfit(np.array(values, float), seconds, 1, w=1 / seconds)
    off = np.abs(fixed + slope * np.array(values) - seconds) / seconds
    return float(fixed), float(slope), float(off.max())
