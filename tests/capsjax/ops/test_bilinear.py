"""The votes of matrix capsules, whose two gradients are products of their own."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from capsjax.layers.routed import make_votes
from tests.tolerance import assert_close

BELOW, ABOVE, SIDE = 5, 3, 2


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


KERNEL = draw(BELOW, ABOVE, SIDE, SIDE)
POSE = draw(4, 6, BELOW, SIDE * SIDE, seed=1)
votes = functools.partial(make_votes, "matrix")


def by_einsum(kernel, pose):
    matrices = pose.reshape(*pose.shape[:-1], SIDE, SIDE)
    made = jnp.einsum("...imn,ijnl->...ijml", matrices, kernel)
    return made.reshape(*made.shape[:-2], SIDE * SIDE)


def loss(function):
    """A function of both that is not linear in either."""
    return lambda kernel, pose: jnp.sum(jnp.sin(function(kernel, pose)))


def directional(function, seed):
    """The derivative in some direction."""
    tangents = draw(*KERNEL.shape, seed=seed), draw(*POSE.shape, seed=seed + 1)
    return lambda *primals: jax.jvp(function, primals, tangents)[1]


DERIVATIVES = {
    "itself": lambda f: f,
    "backwards": lambda f: jax.grad(loss(f), argnums=(0, 1)),
    "forwards": lambda f: directional(f, 2),
    "forwards, then backwards": lambda f: jax.grad(directional(loss(f), 2), argnums=(0, 1)),
    "backwards, then forwards": lambda f: directional(jax.grad(loss(f), argnums=(0, 1)), 2),
    "a third": lambda f: directional(jax.grad(directional(loss(f), 2), argnums=(0, 1)), 4),
    "recomputed": lambda f: jax.grad(loss(jax.checkpoint(f)), argnums=(0, 1)),
}


@pytest.mark.parametrize("name", DERIVATIVES)
def test_every_derivative_is_that_of_the_plain_product(name):
    ours, theirs = (jax.jit(DERIVATIVES[name](f))(KERNEL, POSE) for f in (votes, by_einsum))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert_close(a, b, reduction_length=4 * 6 * BELOW * ABOVE * SIDE * 8)


@pytest.mark.parametrize("axes", [(None, 0), (None, 2), (0, None), (0, 0), (3, 1)])
@pytest.mark.parametrize("name", ["itself", "backwards"])
def test_mapped_over_examples_and_over_kernels_it_is_the_same(name, axes):
    def several(array, axis, seed):
        others = draw(*array.shape, seed=seed)
        return array if axis is None else jnp.stack([array, others], axis)

    arrays = several(KERNEL, axes[0], 7), several(POSE, axes[1], 8)

    def mapped(function):
        derived = function if name == "itself" else jax.grad(loss(function))
        return jax.vmap(jax.vmap(derived, in_axes=(None, 0)), in_axes=axes)(*arrays)

    assert_close(mapped(votes), mapped(by_einsum), reduction_length=4 * 6 * BELOW * ABOVE * SIDE)


def test_a_gradient_of_votes_is_turned_once():
    """Each further turn would be a copy of all votes."""
    kernel, pose, g = draw(72, 16, 4, 4), draw(8, 9, 72, 16), draw(8, 9, 72, 16, 16)
    gradients = jax.jit(lambda kernel, pose, g: jax.vjp(votes, kernel, pose)[1](g))
    text = gradients.lower(kernel, pose, g).compile().as_text()
    program = text[text.index("ENTRY") :]
    made = re.findall(r"= f32\[([\d,]+)\]\S* (?!parameter|bitcast)", program)
    assert [math.prod(map(int, of.split(","))) for of in made].count(g.size) == 1
