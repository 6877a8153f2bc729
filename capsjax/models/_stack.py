"""Layers of convolutional capsules, one above the other, and their sizes."""

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any

from flax import nnx

from capsjax._checks import positive_integer, sizes_by_layer
from capsjax.layers import ConvCaps, GridShape


def _square(name: str, value: Any) -> int:
    """The number of elements of a square matrix of at least 2x2."""
    value = positive_integer(name, value)
    if value < 4 or math.isqrt(value) ** 2 != value:
        raise ValueError(f"{name} must be the square of at least 2, such as 16, not {value}")
    return value


PoseDim = Annotated[int, _square]


def conv_caps_stack(
    grid: GridShape,
    sizes: tuple[Sequence[int], Sequence[int], Sequence[int]],
    kernel_init: Callable[[int, int, int], nnx.Initializer],
    **options: Any,
) -> tuple[nnx.List[ConvCaps], GridShape]:
    """Makes layers of convolutional capsules, whose poses are of the dimension of those below.

    The sizes are the types of each layer, from below, the sides of their windows, and the strides
    of these; `kernel_init` makes an initialiser of the types below, the types and the side; options
    are those of every `ConvCaps`. Returned are the layers, and the grid of the last one. A
    ValueError if a size is no integer of at least 1, or there are more of one kind.
    """
    made = nnx.List[ConvCaps]()
    named = dict(zip(("caps_types", "caps_kernels", "caps_strides"), sizes, strict=True))
    for types, kernel_size, stride in sizes_by_layer("capsule layer", **named):
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
