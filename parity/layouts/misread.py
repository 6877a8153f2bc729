"""A row of a table whose axes are in another order than those of its tensors, found by trying."""

import dataclasses
import itertools
import operator
import re
from collections.abc import Iterator

from parity.layouts.match import Arrays, match
from parity.layouts.table import Layout, Row

MOST_AXES = 6
"""Of a row whose orders are tried, of which there are many more otherwise."""


def misread_row(layout: Layout, tensors: Arrays) -> str | None:
    """The one row that, read in another order of its axes, makes all tensors fit; None if none is.

    A wrong order gives wrong sizes, with which right tensors do not agree, and they are blamed.
    """
    found = {
        row.source.text: (row, other)
        for row, other in _others(layout)
        if match(_with(layout, row, other), tensors).fits
    }
    if len(found) != 1:
        return None
    ((name, (row, other)),) = found.items()
    return f"{name!r} has the axes {row.axes.source!r}, but with {other!r} all tensors fit"


def _others(layout: Layout) -> Iterator[tuple[Row, str]]:
    """Each row with each other order of its axes, those that are most like it last."""
    for row in layout.rows:
        words = re.findall(r"\([^)]*\)|\S+", row.axes.source)
        if len(words) > MOST_AXES:
            continue
        orders = itertools.permutations(words)
        moved = {" ".join(o): sum(map(operator.ne, o, words)) for o in orders}
        for order in sorted(moved, key=lambda order: -moved[order]):
            # Kernels are square: y and x the other way round would fit as well.
            if moved[order] and not re.search(r"\bx\b.*\by\b", order):
                yield row, order


def _with(layout: Layout, row: Row, order: str) -> Layout:
    axes = row.axes._replace(source=order)
    changed = dataclasses.replace(row, axes=axes)
    rows = tuple(changed if one is row else one for one in layout.rows)
    return dataclasses.replace(layout, rows=rows)
