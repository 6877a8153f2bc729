"""What is compared of two implementations of dense routing: values and gradients, in the table."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import strategies as st

from capsjax.routing import Dynamic, route_dense
from tests.tolerance import assert_close

SIZES = st.tuples(
    st.integers(1, 5),  # examples
    st.integers(1, 37),  # input capsules: below and above a tile, and no multiple of it
    st.integers(2, 11),  # output capsules
    st.integers(1, 9),  # and their dimension
    st.integers(1, 9),  # that of the input capsules
)


def draw(*shape, seed=0, dtype="float32"):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def inputs(batch, n_in, n_out, dim, in_dim, dtype="float32"):
    """Matrices and poses, of a size at which the routing has something to decide."""
    scale = n_in**-0.25
    kernel = jnp.asarray(scale, dtype) * draw(n_in, n_out, dim, in_dim, dtype=dtype)
    return kernel, jnp.asarray(scale, dtype) * draw(batch, n_in, in_dim, seed=1, dtype=dtype)


def value_and_gradients(function, kernel, pose):
    """Capsules, coupling, and the gradients of both with respect to matrices and poses."""
    values, pullback = jax.vjp(function, kernel, pose)
    weights = (jnp.sin(jnp.arange(x.size, dtype=x.dtype)).reshape(x.shape) for x in values)
    return *values, *pullback(tuple(weights))


def assert_as_from_votes(functions, routing: Dynamic, kernel, pose):
    """Each `f(kernel, pose)` gives the capsules and coupling that the routing gives for votes."""

    def from_votes(kernel, pose):
        activation = jnp.zeros(pose.shape[:2])
        routed = route_dense(routing, kernel, pose, activation, implementation="xla")
        return routed.pose, routed.coupling

    @jax.jit
    def run(kernel, pose):
        return [value_and_gradients(f, kernel, pose) for f in (from_votes, *functions)]

    expected, *results = run(kernel, pose)
    n_in, n_out, dim, in_dim = kernel.shape
    votes = n_in * in_dim  # what an output capsule sums up
    lengths = (votes, votes, votes * len(pose), votes * n_out * dim)
    for actual in results:
        for a, e, n in zip(actual, expected, lengths, strict=True):
            assert a.dtype == e.dtype
            assert_close(a, e, dtype=pose.dtype, reduction_length=n)
