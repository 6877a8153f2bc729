"""Dynamic routing of dense capsules on a TPU: one Pallas kernel forward and two backward.

The kernels hold a tile of poses and matrices in on-chip memory, and what is made of them never
leaves it. What they write are the output capsules before squash of every iteration, all that the
backward pass needs besides the inputs. The arithmetic of a tile, and through `jax.vjp` that of its
gradient, is that of `capsjax.ops.tiles`.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from capsjax.capsules import accumulation_dtype, squash
from capsjax.ops import tiles
from capsjax.ops.fused_gradient import differentiable

EXAMPLES = 128  # of a tile: a register of a TPU has as many lanes
CAPSULES = 16  # of a tile: with poses of 8, the rows of a product are as many, too
ON_CHIP_BYTES = 64 * 2**20
"""The most that a kernel may use: every TPU since the fifth generation has as much."""


def unsupported(kernel_shape: tuple[int, ...]) -> str | None:
    """The reason why there is no kernel for matrices `[I, J, D, K]`; None where there is one."""
    _, n_out, dim, in_dim = kernel_shape
    # About six arrays [J, T * K, B] of a tile are alive at once, and four [J, D, B], in float32.
    needed = 4 * n_out * EXAMPLES * (6 * CAPSULES * in_dim + 4 * dim)
    if needed <= ON_CHIP_BYTES:
        return None
    return (
        f"has no room for {n_out} output capsules with matrices of {dim}x{in_dim}, which need "
        f"{needed / 2**20:.0f} MiB on a chip that has {ON_CHIP_BYTES / 2**20:.0f}"
    )


def route(
    kernel: jax.Array, pose: jax.Array, *, iterations: int, interpret: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Computes `fused.route_fused`; if to `interpret`, as ordinary JAX anywhere, and slowly."""
    batch, n_in, in_dim = pose.shape
    # Zeros change nothing: poses of 8, whose rows a TPU can regroup, and whole tiles of examples.
    rows = [(0, 0), (0, 0), (0, -in_dim % 8)]
    examples = (0, -batch % EXAMPLES if batch > EXAMPLES else 0)
    of_batch = tiles.cut(
        jnp.pad(kernel, [(0, 0), *rows]), jnp.pad(pose, [examples, *rows[1:]]), CAPSULES
    )
    s = differentiable(_Kernels(of_batch, iterations, interpret))(*of_batch)
    total = jnp.sum(squash(s[:-1], axis=2), axis=0)
    c = tiles.couplings(of_batch, total, n_in)
    return squash(s[-1], axis=1).transpose(2, 0, 1)[:batch], c[:batch]


class _Kernels:
    """The kernels for tiles and states `[R, J, D, B]`, on a grid of all three."""

    def __init__(self, of_batch: tiles.Tiles, iterations: int, interpret: bool) -> None:
        w, u = of_batch
        self.n_tiles, *self.outputs, _ = w.shape  # J and D
        batch = u.shape[-1]
        self.examples, self.iterations = min(batch, EXAMPLES), iterations
        self.states = jax.ShapeDtypeStruct(
            (iterations, *self.outputs, batch), accumulation_dtype(u.dtype)
        )
        self.batch_tiles = batch // self.examples
        self.w, self.u = (1, *w.shape[1:]), (1, *u.shape[1:3], self.examples)
        self.interpret = interpret

    def forward(self, w: jax.Array, u: jax.Array) -> jax.Array:
        return self._over_iterations(_forward_kernel, lambda r: r, w, u)

    def squash(self, s: jax.Array) -> jax.Array:
        return squash(s, axis=2)

    def cotangent(
        self, w: jax.Array, u: jax.Array, s: jax.Array, totals: jax.Array, ds: jax.Array
    ) -> jax.Array:
        backwards = self.iterations - 1
        return self._over_iterations(
            _cotangent_kernel, lambda r: backwards - r, w, u, s, totals, ds
        )

    def _over_iterations(
        self, kernel: Any, order: Callable[[Any], Any], w: jax.Array, u: jax.Array, *states: Any
    ) -> jax.Array:
        """Calls a kernel that writes one state after the other, in an order."""
        state = pl.BlockSpec((1, *self.outputs, self.examples), lambda b, r, i: (order(r), 0, 0, b))
        return pl.pallas_call(
            kernel,
            grid=(self.batch_tiles, self.iterations, self.n_tiles),
            in_specs=[
                pl.BlockSpec(self.w, lambda b, r, i: (i, 0, 0, 0)),
                pl.BlockSpec(self.u, lambda b, r, i: (i, 0, 0, b)),
                *[state] * len(states),
            ],
            out_specs=state,
            out_shape=self.states,
            scratch_shapes=[pltpu.VMEM((*self.outputs, self.examples), self.states.dtype)],
            compiler_params=_compiler_params("parallel", "arbitrary", "arbitrary"),
            interpret=self.interpret,
        )(w, u, *states)

    def gradients(
        self, w: jax.Array, u: jax.Array, totals: jax.Array, ds: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        by_tile = pl.BlockSpec(self.w, lambda i, b: (i, 0, 0, 0))
        by_both = pl.BlockSpec(self.u, lambda i, b: (i, 0, 0, b))
        states = pl.BlockSpec((*ds.shape[:3], self.examples), lambda i, b: (0, 0, 0, b))
        dw, du = pl.pallas_call(
            _gradient_kernel,
            grid=(self.n_tiles, self.batch_tiles),
            in_specs=[by_tile, by_both, states, states],
            out_specs=[by_tile, by_both],
            out_shape=[jax.ShapeDtypeStruct(x.shape, ds.dtype) for x in (w, u)],
            compiler_params=_compiler_params("parallel", "arbitrary"),
            interpret=self.interpret,
        )(w, u, totals, ds)
        return dw.astype(w.dtype), du.astype(u.dtype)


def _compiler_params(*semantics: Any) -> Any:
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=ON_CHIP_BYTES)


def _tile_outputs(w: jax.Array, u: jax.Array, total: jax.Array) -> jax.Array:
    return tiles.outputs(w, u, tiles.coupling(w, u, total))


def _forward_kernel(w_ref: Any, u_ref: Any, s_ref: Any, total_ref: Any) -> None:
    iteration, tile = pl.program_id(1), pl.program_id(2)

    @pl.when((iteration == 0) & (tile == 0))
    def _() -> None:
        total_ref[...] = jnp.zeros_like(total_ref)

    @pl.when(tile == 0)
    def _() -> None:
        s_ref[...] = jnp.zeros_like(s_ref)

    s_ref[0] += _tile_outputs(w_ref[0], u_ref[0], total_ref[...])

    @pl.when(tile == pl.num_programs(2) - 1)
    def _() -> None:
        total_ref[...] += squash(s_ref[0], axis=1)


def _cotangent_kernel(
    w_ref: Any, u_ref: Any, s_ref: Any, total_ref: Any, ds_ref: Any, out_ref: Any, dv_ref: Any
) -> None:
    """From the last iteration to the first, the gradient of each `s` through all later ones."""
    iteration, tile = pl.program_id(1), pl.program_id(2)

    @pl.when((iteration == 0) & (tile == 0))
    def _() -> None:
        dv_ref[...] = jnp.zeros_like(dv_ref)

    @pl.when(tile == 0)
    def _() -> None:
        of_squash = jax.vjp(functools.partial(squash, axis=1), s_ref[0])[1]
        out_ref[0] = ds_ref[0] + of_squash(dv_ref[...])[0]

    of_tile = functools.partial(_tile_outputs, w_ref[0], u_ref[0])
    of_total = jax.vjp(of_tile, total_ref[0])[1]
    dv_ref[...] += of_total(out_ref[0])[0]


def _gradient_kernel(
    w_ref: Any, u_ref: Any, total_ref: Any, ds_ref: Any, dw_ref: Any, du_ref: Any
) -> None:
    """A tile's matrices and poses get their gradient from all iterations at once."""

    @pl.when(pl.program_id(1) == 0)
    def _() -> None:
        dw_ref[...] = jnp.zeros_like(dw_ref)

    du_ref[...] = jnp.zeros_like(du_ref)
    for iteration in range(total_ref.shape[0]):
        total = total_ref[iteration]
        of_tile = functools.partial(_tile_outputs, total=total)
        of_inputs = jax.vjp(of_tile, w_ref[0], u_ref[0])[1]
        dw, du = of_inputs(ds_ref[iteration])
        dw_ref[0] += dw.astype(dw_ref.dtype)
        du_ref[0] += du.astype(du_ref.dtype)
