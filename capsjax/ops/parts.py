"""A function of a batch, computed for some examples at a time: nothing it makes on the way is kept.

What is kept from the forward to the backward pass are its arguments and its results; the rest is
computed again, for as many examples at a time.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from capsjax.ops._arrays import split

T = TypeVar("T")

# Bytes of the largest array of a part. Not fewer: smaller programs on an accelerator are bound by
# their launch, and a loop on a CPU by its overhead. Not more: then it is memory that is the limit.
SMALLEST_PART = 16 * 2**20
LARGEST_PART = 256 * 2**20

PARTS = 16
"""How many parts there are of a batch that is between the two."""


def number_of_parts(batch: int, bytes_of_one: int) -> int:
    """Into how many parts a batch is cut, of which an example has an array of so many bytes.

    One, so that everything is kept, where it is no larger than the smallest part.

    Examples:
        >>> from capsjax.ops.parts import number_of_parts
        >>> [number_of_parts(batch, 2**20) for batch in (16, 64, 256, 8192)]
        [1, 4, 16, 32]
    """
    total = batch * bytes_of_one
    if total <= SMALLEST_PART:
        return 1
    largest = max(SMALLEST_PART, min(total // PARTS, LARGEST_PART))
    fewest = -(-batch // max(1, largest // bytes_of_one))
    # Parts of equal size have nothing to be filled up; up to twice as many are no loss.
    return next((n for n in range(fewest, 2 * fewest) if batch % n == 0), fewest)


def in_parts(function: Callable[..., T], parts: int, *arrays: Any) -> T:
    """What a function returns of trees of arrays, `[batch, ...]` as all that it returns.

    It must compute every example by itself.

    Args:
        function: of trees of arrays with a smaller leading axis.
        parts: into how many the batch is cut; the last are filled up with examples of the first.
        *arrays: trees of arrays, of which all have the same leading axis.

    Examples:
        >>> import jax.numpy as jnp
        >>> from capsjax.ops.parts import in_parts
        >>> in_parts(lambda x: x**2, 2, jnp.arange(3.0))
        Array([0., 1., 4.], dtype=float32)
    """
    batch = jax.tree.leaves(arrays)[0].shape[0]
    size = -(-batch // parts)

    # A part has every `parts`th example: so one of a batch that is spread over devices is, too.
    def cut(x: jax.Array) -> jax.Array:
        missing = parts * size - batch
        whole = jnp.concatenate([x, x[:missing]]) if missing else x
        return jnp.moveaxis(split(whole, 0, size, parts), 1, 0)

    def join(x: jax.Array) -> jax.Array:
        return jax.lax.collapse(jnp.moveaxis(x, 0, 1), 0, 2)[:batch]

    # A loop keeps what is computed again apart from what was computed first.
    of_part = jax.checkpoint(lambda part: function(*part), prevent_cse=False)
    return jax.tree.map(join, jax.lax.map(of_part, jax.tree.map(cut, arrays)))
