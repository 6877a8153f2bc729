"""Sizes of networks of convolutional capsules, checked."""

import math
from typing import Any

from capsjax import _checks


def square(name: str, value: Any) -> int:
    """The number of elements of a square matrix of at least 2x2.

    Raises:
        ValueError: it is none.
    """
    value = _checks.positive_integer(name, value)
    if value < 4 or math.isqrt(value) ** 2 != value:
        raise ValueError(f"{name} must be the square of at least 2, such as 16, not {value}")
    return value


def together(what: str, **lists: Any) -> list[tuple[int, ...]]:
    """Several lists of sizes as one of tuples, one for each layer.

    Args:
        what: a layer, for the message.
        **lists: by the name of the argument, sizes of at least 1.

    Raises:
        ValueError: a value is none, or the lists are of different lengths.
    """
    checked = [_checks.positive_integers(name, values) for name, values in lists.items()]
    if len({len(values) for values in checked}) > 1:
        lengths = ", ".join(
            f"{name} has {len(values)}" for name, values in zip(lists, checked, strict=True)
        )
        raise ValueError(f"each {what} needs a value of each of its sizes, but {lengths}")
    return list(zip(*checked, strict=True))
