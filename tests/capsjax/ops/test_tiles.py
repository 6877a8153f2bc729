"""The two sums of an iteration against votes in NumPy, and how capsules are cut into tiles."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.ops import tiles
from tests.capsjax.ops.dense_cases import draw, inputs
from tests.tolerance import assert_close

B, I, J, D, K = 3, 7, 4, 5, 6  # noqa: E741


@pytest.fixture(scope="module")
def votes():
    kernel, pose = inputs(B, I, J, D, K)
    return np.einsum("ijdk,bik->bijd", *(np.asarray(x, np.float64) for x in (kernel, pose)))


@functools.partial(jax.jit, static_argnums=3)
def iteration(kernel, pose, total, size):
    """Couplings, of all tiles and of each, and outputs."""
    cut = tiles.cut(kernel, pose, size)
    parts = [tiles.coupling(w, u, total) for w, u in zip(*cut, strict=True)]
    s = sum(tiles.outputs(*tile, part) for *tile, part in zip(*cut, parts, strict=True))
    return tiles.couplings(cut, total, I), s


@pytest.mark.parametrize("size", [1, 3, 7, 50])
def test_couplings_and_outputs_are_those_of_votes(votes, size):
    total = draw(J, D, B, seed=2)
    couplings, s = iteration(*inputs(B, I, J, D, K), total, size)
    b = np.einsum("bijd,jdb->bij", votes, np.asarray(total, np.float64))
    c = np.exp(b) / np.exp(b).sum(axis=2, keepdims=True)
    assert_close(couplings, c, dtype="float32", reduction_length=D * K)
    expected = np.einsum("bij,bijd->jdb", c, votes)
    assert_close(s, expected, dtype="float32", reduction_length=I * K)


def test_tiles_are_of_equal_size_and_filled_up_with_zeros():
    kernel, pose = jnp.ones((I, J, D, K)), jnp.ones((B, I, K))
    w, u = tiles.cut(kernel, pose, 3)
    assert (w.shape, u.shape) == ((3, J, D, 3 * K), (3, 3, K, B))
    assert tiles.cut(kernel, pose, 6).u.shape == (2, 4, K, B)
    assert float(w.sum()) == kernel.size
    assert float(u.sum()) == pose.size
    assert not u[-1, 1:].any()


def test_coarse_capsules_are_summed_in_float32():
    kernel, pose = jnp.ones((1024, 2, 1, 1), "bfloat16"), jnp.ones((1, 1024, 1), "bfloat16")
    (w,), (u,) = tiles.cut(kernel, pose, 1024)
    s = tiles.outputs(w, u, jnp.ones((2, 1024, 1)).at[:, 0].set(3.0))
    assert s.dtype == jnp.float32
    np.testing.assert_array_equal(s, np.full((2, 1, 1), 1026))
