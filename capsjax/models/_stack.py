"""Layers of convolutional capsules, one above the other, and their sizes."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from flax import nnx

from capsjax import _checks
from capsjax.layers import ConvCaps, GridShape


def square(name: str, value: Any) -> int:
    """The number of elements of a square matrix of at least 2x2.

    Raises:
        ValueError: it is none.
    """
    value = _checks.positive_integer(name, value)
    if value < 4 or math.isqrt(value) ** 2 != value:
        raise ValueError(f"{name} must be the square of at least 2, such as 16, not {value}")
    return value


def sizes_by_layer(what: str = "capsule layer", **lists: Any) -> list[tuple[int, ...]]:
    """Turns lists of sizes, by the names of their arguments, into one of tuples, one a layer.

    Raises:
        ValueError: a size is no integer of at least 1, or the lists are of different lengths.
    """
    checked = [_checks.positive_integers(name, values) for name, values in lists.items()]
    if len({len(values) for values in checked}) > 1:
        lengths = ", ".join(
            f"{name} has {len(values)}" for name, values in zip(lists, checked, strict=True)
        )
        raise ValueError(f"each {what} needs a value of each of its sizes, but {lengths}")
    return list(zip(*checked, strict=True))


def conv_caps_stack(
    grid: GridShape,
    layers: Sequence[tuple[int, ...]],
    kernel_init: Callable[[int, int, int], nnx.Initializer],
    **options: Any,
) -> tuple[nnx.List[ConvCaps], GridShape]:
    """Makes layers of convolutional capsules, whose poses are of the dimension of those below.

    Args:
        grid: of the capsules below the first layer.
        layers: of each, from below, its types, the side of its windows and the stride of these.
        kernel_init: types below, types and the side of a window -> initialiser of the matrices.
        **options: of every `ConvCaps`.

    Returns:
        The layers, and the grid of the last one.
    """
    made = nnx.List[ConvCaps]()
    for types, kernel_size, stride in layers:
        layer = ConvCaps(
            grid,
            types,
            grid.dim,
            kernel_size=kernel_size,
            stride=stride,
            kernel_init=kernel_init(grid.types, types, kernel_size),
            **options,
        )
        made.append(layer)
        grid = layer.output_shape
    return made, grid
