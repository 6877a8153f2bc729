"""The gradient that the fused kernels of every accelerator have in common."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def differentiable(kernels: Any) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """Makes `(w, u) -> s`, the output capsules before squash of all iterations, of three kernels.

    Args:
        kernels: has the methods `forward(w, u)`, which computes `s [R, ...]` of matrices and poses;
            `squash(s)`; `cotangent(w, u, s, totals, ds)`, which adds to the gradient of each `s`
            that through all later iterations, where `totals` are the sums of the outputs of the
            iterations before each; and `gradients(w, u, totals, ds)`, which are those of `w` and
            `u` from these.
    """

    @jax.custom_vjp
    def iterate(w: jax.Array, u: jax.Array) -> jax.Array:
        return kernels.forward(w, u)

    def forward(w: jax.Array, u: jax.Array) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        s = kernels.forward(w, u)
        return s, (w, u, s)

    def backward(residuals: tuple[jax.Array, ...], ds: jax.Array) -> tuple[jax.Array, jax.Array]:
        w, u, s = residuals
        v = kernels.squash(s)
        totals = jnp.cumsum(v, axis=0) - v
        ds = kernels.cotangent(w, u, s, totals, ds)
        return kernels.gradients(w, u, totals, ds)

    iterate.defvjp(forward, backward)
    return iterate
