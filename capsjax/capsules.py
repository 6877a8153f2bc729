"""Capsules, and the two functions every vector capsule is made with: norm and squash."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike


class Capsules(NamedTuple):
    """A layer of capsules: what each one sees, and how sure it is that it is there.

    Attributes:
      pose: `[..., n, d]`, the instantiation parameters of `n` capsules of dimension `d`. A matrix
        pose of 4x4 is flattened row-major to `d = 16`.
      activation: `[..., n]`, the presence of each capsule. For vector capsules it is the length of
        the pose.
    """

    pose: jax.Array
    activation: jax.Array


def accumulation_dtype(dtype: DTypeLike) -> jnp.dtype:
    """The dtype in which norms, softmax and losses of `dtype` values are computed.

    At least float32, and float64 for float64 values.
    """
    return jnp.promote_types(dtype, jnp.float32)


def norm(x: jax.Array, axis: int = -1, *, keepdims: bool = False) -> jax.Array:
    """Euclidean length, exact and with a zero gradient at zero.

    The values are scaled by the largest of them before they are squared, so that nothing overflows
    or underflows on the way: 1e-30 and 1e30 have a length in float32.

    Args:
      x: `[..., d, ...]`, any floating dtype.
      axis: the axis that holds the `d` components.
      keepdims: keep `axis` with size 1.

    Returns:
      `x` without `axis`, computed and returned in `accumulation_dtype(x.dtype)`.
    """
    x = x.astype(accumulation_dtype(x.dtype))
    scale = lax.stop_gradient(jnp.max(jnp.abs(x), axis=axis, keepdims=True))
    is_zero = scale == 0
    scale = jnp.where(is_zero, 1, scale)
    sum_of_squares = jnp.sum(jnp.square(x / scale), axis=axis, keepdims=True)
    # Where x is zero the square root is taken of one instead: its gradient there is infinite.
    length = scale * jnp.sqrt(jnp.where(is_zero, 1, sum_of_squares))
    length = jnp.where(is_zero, 0, length)
    return length if keepdims else jnp.squeeze(length, axis)


def squash(s: jax.Array, axis: int = -1) -> jax.Array:
    """Shrinks short vectors to almost zero and long ones to a length just below 1.

    `v = |s|^2 / (1 + |s|^2) * s / |s|` (Sabour, Frosst and Hinton 2017, arXiv:1710.09829,
    equation 1). Written as `s * |s| / (1 + |s|^2)` nothing is divided by the length, so the value
    and the gradient at zero are zero, as they are in the limit.

    Args:
      s: `[..., d, ...]`, any floating dtype.
      axis: the axis that holds the `d` components of a capsule.

    Returns:
      The shape of `s`, computed and returned in `accumulation_dtype(s.dtype)`.
    """
    s = s.astype(accumulation_dtype(s.dtype))
    length = norm(s, axis, keepdims=True)
    # x / (1 + x^2) is the same for x and 1/x: of the two, the one below 1 cannot overflow.
    is_long = length > 1
    ratio = jnp.where(is_long, 1 / jnp.where(is_long, length, 1), length)
    return s * (ratio / (1 + jnp.square(ratio)))
