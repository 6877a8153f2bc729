"""Arrays that agree, by the table of `parity.check.tolerance`."""

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from parity.check import tolerance


def limits(dtype: DTypeLike, reduction_length: int = 1) -> float:
    """The relative difference allowed between two computations of the same numbers.

    Args:
        dtype: the coarsest dtype in which either was computed.
        reduction_length: how many terms the longest sum on the way has.
    """
    name = jnp.dtype(dtype).name
    # Coarse numbers are summed in float32: the rounding of their own dtype does not add up.
    summed = "float32" if name == "bfloat16" else name
    return max(tolerance.limit("test", name), tolerance.limit("test", summed, reduction_length))


def assert_close(actual, expected, *, dtype=None, reduction_length: int = 1) -> None:
    """Fails where `actual` differs from `expected` by more than the table allows.

    The difference of each element is held against the largest magnitude in `expected`: an element
    that cancels to almost nothing carries the rounding of the large terms it came from. So an
    `expected` of zeros must be met exactly. Both must be finite and of the same shape.

    Args:
        actual: what the code under test gave.
        expected: what is known to be right.
        dtype: the coarsest dtype in which either was computed; by default, that of the arrays.
            Integers and booleans must be equal.
        reduction_length: how many terms the longest sum on the way has.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        raise AssertionError(f"shape {actual.shape}, expected {expected.shape}")
    dtype = _coarsest(actual, expected) if dtype is None else dtype
    relative = 0.0 if dtype is None else limits(dtype, reduction_length)
    if actual.size == 0:
        return

    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    for name, array in (("actual", actual), ("expected", expected)):
        if not np.isfinite(array).all():
            where = _index(~np.isfinite(array))
            raise AssertionError(f"{name} is {array[where]} at {where}")
    scale = np.abs(expected).max()
    difference = np.abs(actual - expected)
    wrong = difference > relative * scale
    if wrong.any():
        where = _index(difference == difference.max())
        raise AssertionError(
            f"{wrong.sum()} of {wrong.size} elements differ by more than "
            f"{relative:.2e} x {scale:.6g} (dtype {dtype}, reduction length {reduction_length}); "
            f"the worst is {difference.max():.2e} at {where}: "
            f"{actual[where]:.9g}, expected {expected[where]:.9g}"
        )


def _coarsest(*arrays: np.ndarray) -> np.dtype | None:
    """The floating dtype with the largest epsilon among the arrays; None if none is floating."""
    floating = [a.dtype for a in arrays if jnp.issubdtype(a.dtype, jnp.floating)]
    return max(floating, key=lambda d: float(jnp.finfo(d).eps), default=None)


def _index(mask: np.ndarray) -> tuple[int, ...]:
    """The first index at which the mask holds."""
    return tuple(int(i) for i in np.argwhere(mask)[0])
