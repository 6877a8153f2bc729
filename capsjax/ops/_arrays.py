"""Operations on arrays that several implementations have in common."""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from capsjax.capsules import accumulation_dtype


def product(
    subscripts: str, a: jax.Array, b: jax.Array, precision: lax.PrecisionLike = None
) -> jax.Array:
    """`jnp.einsum` of two arrays, summed up and returned in `accumulation_dtype` of the first."""
    dtype = accumulation_dtype(a.dtype)
    return jnp.einsum(subscripts, a, b, precision=precision, preferred_element_type=dtype)


def pad(x: jax.Array, by_axis: dict[int, tuple[int, int, int]], value: ArrayLike = 0) -> jax.Array:
    """`lax.pad` of the given axes: low, high (a negative number crops) and between two elements."""
    padding = [by_axis.get(axis, (0, 0, 0)) for axis in range(x.ndim)]
    return lax.pad(x, jnp.asarray(value, x.dtype), padding)


def spread(x: jax.Array, by_axis: dict[int, tuple[int, int, int]], value: float = 0) -> jax.Array:
    """Puts the elements of the given axes from a start into zeros of a size, a stride apart."""
    padding = {}
    for axis, (start, size, stride) in by_axis.items():
        padding[axis] = (start, size - start - (x.shape[axis] - 1) * stride - 1, stride - 1)
    return pad(x, padding, value)


def split(x: jax.Array, axis: int, *sizes: int) -> jax.Array:
    """Cuts one axis into several; the opposite of `lax.collapse`.

    One axis at a time: a reshape that does more loses track of axes that a mesh shards.
    """
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


UNKNOWN_SIZE = 128
"""What is counted with where a batch has no size before its program runs."""


def known(size: int) -> int:
    """The size of an axis, or `UNKNOWN_SIZE` where it is symbolic, as in `jax.export`.

    For choices of speed alone: the numbers are the same for every size.
    """
    return size if isinstance(size, int) else UNKNOWN_SIZE
