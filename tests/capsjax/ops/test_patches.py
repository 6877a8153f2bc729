"""Windows over a grid against plain loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from capsjax.ops.patches import Windows
from tests.tolerance import assert_close

CASES = [
    Windows.of((5, 6), 3, 1, "VALID"),
    Windows.of((5, 6), 3, 2, "VALID"),
    Windows.of((5, 6), 2, 3, "VALID"),  # not every element is seen
    Windows.of((5, 6), 3, 2, "SAME"),
    Windows.of((3, 4), 2, 1, ((1, 0), (0, 2))),
    Windows.of((5, 6), 2, 1, ((-1, 1), (0, -2))),
]
EACH = pytest.mark.parametrize("windows", CASES, ids=str)
B, J = 2, 3


def elements(windows):
    """For each window and element of it where on the padded grid it lies."""
    for p, q in itertools.product(*map(range, windows.counts)):
        for tap in range(windows.size**2):
            y = p * windows.stride + tap // windows.size
            x = q * windows.stride + tap % windows.size
            yield p, q, tap, y, x


@EACH
def test_a_window_shows_what_it_lies_on(windows):
    grid = np.random.default_rng(0).standard_normal((2, *windows.grid, B)).astype(np.float32)
    padded = lax.pad(grid, np.float32(0), [(*p, 0) for p in ((0, 0), *windows.padding, (0, 0))])
    seen = jax.jit(windows.gather)(jnp.asarray(grid))
    assert seen.shape == (2, *windows.counts, windows.size**2, B)
    for p, q, tap, y, x in elements(windows):
        np.testing.assert_array_equal(seen[:, p, q, tap], padded[:, y, x])


@EACH
@pytest.mark.parametrize("scale", [1, 300])
def test_a_softmax_is_over_all_windows_that_see_an_element(windows, scale):
    shape = (*windows.counts, windows.size**2, B, J)
    logits = scale * np.random.default_rng(0).standard_normal(shape)
    coupling = jax.jit(windows.softmax)(jnp.asarray(logits, jnp.float32))
    logits = np.asarray(logits, np.float32).astype(np.float64)
    by_element = {}
    for p, q, tap, y, x in elements(windows):
        by_element.setdefault((y, x), []).append((p, q, tap))
    expected = np.zeros(shape)
    for places in by_element.values():
        for b in range(B):
            of_capsule = np.concatenate([logits[place][b] for place in places])
            e = np.exp(of_capsule - of_capsule.max())
            for place, share in zip(places, (e / e.sum()).reshape(-1, J), strict=True):
                expected[place][b] = share
    # The logits differ by as much as `scale`, and so does what rounding them does.
    assert_close(coupling, expected, dtype="float32", reduction_length=scale * windows.size**2 * J)


def test_windows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="a 4x4 kernel does not fit on an input of 3x9"):
        Windows.of((3, 9), 4, 1, "VALID")
    with pytest.raises(ValueError, match="unknown padding 'FULL', choose from: VALID, SAME"):
        Windows.of((3, 9), 2, 1, "FULL")
    for padding in ((1, 1), ((1.5, 1), (0, 0)), ((1, 1),)):
        with pytest.raises(ValueError, match="padding must be VALID, SAME or two pairs of whole"):
            Windows.of((3, 9), 2, 1, padding)
