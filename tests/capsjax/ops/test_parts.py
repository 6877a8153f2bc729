"""What is computed part by part: the same numbers, and nothing kept that is not asked for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.ops.parts import LARGEST_PART, SMALLEST_PART, in_parts, number_of_parts
from tests.tolerance import assert_close


@pytest.mark.parametrize("batch", [1, 7, 16, 31, 100, 128, 10_000])
@pytest.mark.parametrize("bytes_of_one", [1, 2**10, 2**20, 2**24, 2**30])
def test_a_part_is_neither_small_nor_large(batch, bytes_of_one):
    parts = number_of_parts(batch, bytes_of_one)
    size = -(-batch // parts)
    assert 1 <= parts <= batch
    assert size == 1 or size * bytes_of_one <= LARGEST_PART
    assert parts == 1 or batch * bytes_of_one > SMALLEST_PART


def test_a_batch_with_nothing_in_it_is_one_part():
    assert number_of_parts(0, 2**30) == number_of_parts(5, 0) == 1


@pytest.mark.parametrize("parts", [2, 3, 5, 7])
def test_parts_are_the_whole_with_gradients_and_keys(parts):
    x = jnp.asarray(np.random.default_rng(0).standard_normal((7, 3)), jnp.float32)
    # What rbg draws depends on how many keys there are.
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 7)
    weight = jnp.arange(3.0)

    def function(weight, x, keys):
        noise = jax.vmap(lambda key: jax.random.normal(key, (3,)))(keys)
        return {"y": jnp.tanh(weight[None] * x + noise), "n": jnp.sum(x, axis=1)}

    def loss(weight, x, run):
        made = run(lambda *arrays: function(weight, *arrays), x, keys)
        return jnp.sum(made["y"] ** 2) + jnp.sum(made["n"] ** 3), made

    def by_parts(function, *arrays):
        return in_parts(function, parts, *arrays)

    every = jax.value_and_grad(loss, argnums=(0, 1), has_aux=True)
    expected = every(weight, x, lambda function, *arrays: function(*arrays))
    for ours, theirs in zip(
        jax.tree.leaves(every(weight, x, by_parts)), jax.tree.leaves(expected), strict=True
    ):
        assert_close(ours, theirs, reduction_length=21)
