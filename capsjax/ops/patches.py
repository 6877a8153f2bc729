"""Windows over a grid: gathers what each sees, and sums back over all of them."""

import dataclasses
from collections.abc import Callable
from operator import index
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from capsjax import _checks
from capsjax.ops._arrays import pad, spread
from capsjax.ops._meshes import sharded_by_compiler

Padding = tuple[tuple[int, int], tuple[int, int]]


@dataclasses.dataclass(frozen=True)
class Windows:
    """Square windows over a grid."""

    grid: tuple[int, int]  # height and width
    size: int  # of a side
    stride: int  # in both directions
    padding: Padding  # zeros above and below, left and right of the grid

    @classmethod
    def of(cls, grid: tuple[int, int], size: int, stride: int, padding: str | Padding) -> "Windows":
        """The same with `"VALID"` for no padding and `"SAME"` for as many windows as strides fit.

        A ValueError if none fits, size or stride is no positive integer, or the padding is none.
        """
        size = _checks.positive_integer("kernel_size", size)
        stride = _checks.positive_integer("stride", stride)
        if isinstance(padding, str):
            if padding not in ("VALID", "SAME"):
                raise ValueError(f"unknown padding {padding!r}, choose from: VALID, SAME")
            pairs: Any = lax.padtype_to_pads(grid, (size, size), (stride, stride), padding)
        else:
            pairs = padding
        try:
            above_below, left_right = ((index(low), index(high)) for low, high in pairs)
        except (TypeError, ValueError) as error:
            raise ValueError(
                "padding must be VALID, SAME or two pairs of whole numbers, for above and below, "
                f"left and right, not {padding!r}"
            ) from error
        windows = cls(grid, size, stride, (above_below, left_right))
        if min(windows.counts) < 1:
            raise ValueError(
                f"a {size}x{size} kernel does not fit on an input of {grid[0]}x{grid[1]}: choose a "
                "smaller kernel"
            )
        return windows

    @property
    def counts(self) -> tuple[int, int]:
        """The number of windows below one another and side by side, `P` and `Q`."""
        p, q = (
            (n + low + high - self.size) // self.stride + 1
            for n, (low, high) in zip(self.grid, self.padding, strict=True)
        )
        return p, q

    def gather(self, x: jax.Array) -> jax.Array:
        """`[batch, H, W, ...]` -> `[batch, P, Q, size * size, ...]`, zero outside of the grid."""
        sides = enumerate(self.padding, start=1)
        return self._seen(pad(x, {axis: (low, high, 0) for axis, (low, high) in sides}))

    def softmax(self, logits: jax.Array) -> jax.Array:
        """A softmax over all that an element of the grid is connected with, through any window.

        The logits are `[P, Q, size * size, B, J]`, of `B` capsules at each element with `J` at each
        window. The sum over windows and `J` becomes one for each capsule that is seen.
        """
        highest = lax.stop_gradient(jnp.max(logits, axis=-1))
        shift = self._seen(self._over_windows(highest, jnp.maximum, -jnp.inf)[None])[0]
        e = jnp.exp(logits - shift[..., None])
        total = self._seen(self._over_windows(jnp.sum(e, axis=-1), jnp.add, 0)[None])[0]
        return e / total[..., None]

    def _seen(self, padded: jax.Array) -> jax.Array:
        """`gather` of a grid that has its padding already."""
        p, q = (positions(n, self.size, self.stride) for n in padded.shape[1:3])

        def see(grid: jax.Array) -> jax.Array:
            return grid[:, p[:, None, :, None], q[None, :, None, :]]

        seen = sharded_by_compiler(see, padded, like=padded)
        return seen.reshape(padded.shape[0], *self.counts, self.size**2, *padded.shape[3:])

    def _over_windows(
        self, x: jax.Array, combine: Callable[..., jax.Array], nothing: float
    ) -> jax.Array:
        """`[P, Q, size * size, B]` -> the padded grid `[H', W', B]`, windows combined."""
        sides = [n + low + high for n, (low, high) in zip(self.grid, self.padding, strict=True)]
        combined = jnp.full((*sides, x.shape[-1]), jnp.asarray(nothing, x.dtype))
        for tap in range(self.size**2):
            places = zip(divmod(tap, self.size), sides, strict=True)
            by_axis = {axis: (*place, self.stride) for axis, place in enumerate(places)}
            combined = combine(combined, spread(x[:, :, tap], by_axis, nothing))
        return combined


def positions(size: int, taps: int, stride: int) -> np.ndarray:
    """`[windows, taps]`: where along an axis of a padded size each window looks."""
    first = stride * np.arange((size - taps) // stride + 1, dtype=np.int32)
    return first[:, None] + np.arange(taps, dtype=np.int32)
