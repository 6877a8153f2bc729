"""The two sums of an iteration of dynamic routing on tiles of input capsules, without votes.

The logits of dynamic routing are linear in the outputs so far. With `V`, the sum of the outputs of
all iterations before this one, `b_ij = u_hat_ij . V_j`, and with `u_hat_ij = W_ij u_i`,

    b_ij = sum_k u_ik (sum_d W_ijdk V_jd)        s_jd = sum_ik W_ijdk (c_ij u_ik)

so that an iteration is two products of matrices for each output capsule, and all it has to know of
those before it is `V`. Both can be computed for some input capsules at a time, a tile.

Shapes are those that these products want: the examples of the batch come last. A tile has `T` input
capsules of dimension `K`, which `J` matrices take to dimension `D` each:

- `w [J, D, T * K]`, matrices, and `u [T, K, B]`, poses, in the dtype of the computation;
- `total [J, D, B]`, the `V` above, in `accumulation_dtype` of that, as are all results.

Input capsules whose poses are zero add nothing, and so a tile may be filled up with zeros.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from capsjax.ops._arrays import product


class Tiles(NamedTuple):
    """All input capsules of a batch: `w [n, J, D, T * K]` and `u [n, T, K, B]` of `n` tiles."""

    w: jax.Array
    u: jax.Array


def cut(kernel: jax.Array, pose: jax.Array, size: int) -> Tiles:
    """Cuts matrices `[I, J, D, K]` and poses `[B, I, K]` into tiles of `size` at the most.

    The tiles are of equal size; zeros fill up the last one.
    """
    n_in, n_out, dim, in_dim = kernel.shape
    count = math.ceil(n_in / size)
    size = math.ceil(n_in / count)
    missing = count * size - n_in
    kernel = jnp.pad(kernel, [(0, missing), (0, 0), (0, 0), (0, 0)])
    pose = jnp.pad(pose, [(0, 0), (0, missing), (0, 0)])
    w = kernel.reshape(count, size, n_out, dim, in_dim).transpose(0, 2, 3, 1, 4)
    u = pose.transpose(1, 2, 0).reshape(count, size, in_dim, pose.shape[0])
    return Tiles(w.reshape(count, n_out, dim, size * in_dim), u)


def couplings(tiles: Tiles, total: jax.Array, n_in: int) -> jax.Array:
    """Coupling coefficients of all `n_in` input capsules, `[B, I, J]`, a tile at a time."""
    c = lax.map(jax.checkpoint(lambda tile: coupling(tile.w, tile.u, total)), tiles)
    c = c.transpose(3, 0, 2, 1)
    return c.reshape(c.shape[0], c.shape[1] * c.shape[2], c.shape[3])[:, :n_in]


def coupling(w: jax.Array, u: jax.Array, total: jax.Array) -> jax.Array:
    """Coupling coefficients `[J, T, B]`, a softmax over the output capsules."""
    projected = product("jdn,jdb->jnb", w, total.astype(w.dtype))
    projected = projected.reshape(w.shape[0], *u.shape)
    b = jnp.sum(projected * u[None].astype(projected.dtype), axis=2)
    return jax.nn.softmax(b, axis=0)


def outputs(w: jax.Array, u: jax.Array, c: jax.Array) -> jax.Array:
    """The terms that this tile adds to the output capsules before squash, `[J, D, B]`."""
    weighted = c.astype(u.dtype)[:, :, None] * u[None]
    return product("jdn,jnb->jdb", w, weighted.reshape(w.shape[0], w.shape[2], u.shape[-1]))
