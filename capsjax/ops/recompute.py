"""Dynamic routing of dense capsules that stores no votes: they are recomputed from what made them.

Forward and backward pass go over the input capsules tile by tile. What is kept from one to the
other are the matrices, the poses and the outputs of each iteration.
"""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from capsjax.capsules import SquashFunction, accumulation_dtype
from capsjax.ops import tiles
from capsjax.ops._arrays import known, product

# Bytes of the largest array of a tile, a few of which are alive at once. On a CPU they should stay
# in the second-level cache (measured where two cores have 2 MiB of it); an accelerator wants few
# and large products (a guess: what the caches of today's hold).
CPU_TILE_BYTES = 640 * 2**10
ACCELERATOR_TILE_BYTES = 32 * 2**20


def route_recomputing(
    kernel: jax.Array,
    pose: jax.Array,
    *,
    iterations: int,
    squash: SquashFunction,
    detach: bool = False,
    platform: str | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Procedure 1 of Sabour, Frosst and Hinton 2017, arXiv:1710.09829, from poses on.

    Of matrices `[I, J, D, K]` and poses `[B, I, K]`, both in the dtype of the computation, the
    output capsules `[B, J, D]` and the coupling `[B, I, J]` they were made with, in
    `accumulation_dtype` of that. A coupling that is not used is not computed. The options are those
    of `capsjax.routing.Dynamic`. The platform is the one that this is compiled for, where that is
    known: what others do is not traced then.
    """
    dtype = accumulation_dtype(pose.dtype)
    squash_each = jax.vmap(squash, in_axes=-1, out_axes=-1)

    def route(kernel: jax.Array, pose: jax.Array, tile_bytes: int) -> tuple[jax.Array, jax.Array]:
        n_in, n_out, dim, in_dim = kernel.shape
        batch = pose.shape[0]
        bytes_of_one = n_out * in_dim * max(1, known(batch)) * dtype.itemsize
        of_batch = tiles.cut(kernel, pose, max(1, tile_bytes // bytes_of_one))
        total = jnp.zeros((n_out, dim, batch), dtype)
        # The coupling coefficients of the first iteration are all equal: one product.
        w, u = of_batch
        s = product("njdr,nrb->jdb", w, u.reshape(len(u), w.shape[-1], batch)) / n_out
        for _ in range(iterations - 1):
            total = total + squash_each(s)
            s = _attend(of_batch, total, detach=detach)
        c = tiles.couplings(of_batch, total, n_in)
        c = lax.stop_gradient(c) if detach else c
        return squash_each(s).transpose(2, 0, 1), c

    def on_cpu(kernel: jax.Array, pose: jax.Array) -> tuple[jax.Array, jax.Array]:
        # What a CPU does element by element it does in float32 anyway: once is cheaper.
        return route(kernel.astype(dtype), pose.astype(dtype), CPU_TILE_BYTES)

    if platform == "cpu":
        return on_cpu(kernel, pose)
    elsewhere = functools.partial(route, tile_bytes=ACCELERATOR_TILE_BYTES)
    return lax.platform_dependent(kernel, pose, cpu=on_cpu, default=elsewhere)


@functools.partial(jax.jit, static_argnames="detach")  # traced once for all iterations
def _attend(of_batch: tiles.Tiles, total: jax.Array, *, detach: bool) -> jax.Array:
    """`s` of a later iteration, before which the outputs have summed up to `total`."""

    # What a tile computes is computed again in the backward pass, so that nothing of it is stored.
    @functools.partial(jax.checkpoint, prevent_cse=False)  # a loop keeps the two apart already
    def of_tile(tile: tiles.Tiles, total: jax.Array) -> jax.Array:
        c = tiles.coupling(*tile, total)
        return tiles.outputs(*tile, lax.stop_gradient(c) if detach else c)

    def add(s: jax.Array, tile: tiles.Tiles) -> tuple[jax.Array, None]:
        return s + of_tile(tile, total), None

    s, _ = lax.scan(add, jnp.zeros_like(total), of_batch)
    return s
