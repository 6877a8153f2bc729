"""Dynamic routing of dense capsules on a TPU: one Pallas kernel forward and two backward.

The kernels hold a tile of poses and matrices in on-chip memory, and what is made of them never
leaves it. What they write are the output capsules before squash of every iteration, all that the
backward pass needs besides the inputs. The arithmetic of a tile, and through `jax.vjp` that of its
gradient, is that of `capsjax.ops.agreement`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from capsjax.capsules import accumulation_dtype, squash
from capsjax.ops import agreement

EXAMPLES = 128  # of a tile: a register of a TPU has as many lanes
CAPSULES = 16  # of a tile: with poses of 8, the rows of a product are as many, too
ON_CHIP_BYTES = 64 * 2**20
"""What a kernel may ask for: every TPU since the fifth generation has as much."""


def route(
    kernel: jax.Array, pose: jax.Array, *, iterations: int, interpret: bool = False
) -> tuple[jax.Array, jax.Array]:
    """What `fused.route_fused` describes.

    Args:
        kernel: `[I, J, D, K]`.
        pose: `[B, I, K]`.
        iterations: at least 1.
        interpret: whether the kernels run as ordinary JAX, on any platform and slowly.
    """
    batch, n_in, in_dim = pose.shape
    # Zeros change nothing: poses of 8, whose rows a TPU can regroup, and whole tiles of examples.
    rows = [(0, 0), (0, 0), (0, -in_dim % 8)]
    examples = (0, -batch % EXAMPLES if batch > EXAMPLES else 0)
    tiles = agreement.cut(
        jnp.pad(kernel, [(0, 0), *rows]), jnp.pad(pose, [examples, *rows[1:]]), CAPSULES
    )
    s = _iterate(*tiles, iterations, interpret)
    total = jnp.sum(squash(s[:-1], axis=2), axis=0)
    c = agreement.couplings(tiles, total, n_in)
    return squash(s[-1], axis=1).transpose(2, 0, 1)[:batch], c[:batch]


def lack(kernel_shape: tuple[int, ...]) -> str | None:
    """Why there is no kernel for matrices `[I, J, D, K]`; None where there is one."""
    _, n_out, dim, in_dim = kernel_shape
    # About six arrays [J, T * K, B] of a tile are alive at once, and four [J, D, B], in float32.
    needed = 4 * n_out * EXAMPLES * (6 * CAPSULES * in_dim + 4 * dim)
    if needed <= ON_CHIP_BYTES:
        return None
    return (
        f"has no room for {n_out} output capsules with matrices of {dim}x{in_dim}, which need "
        f"{needed / 2**20:.0f} MiB on a chip that has {ON_CHIP_BYTES / 2**20:.0f}"
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _iterate(w: jax.Array, u: jax.Array, iterations: int, interpret: bool) -> jax.Array:
    """The output capsules before squash of every iteration, `[R, J, D, B]`."""
    shapes = _Blocks(w, u, iterations)
    return pl.pallas_call(
        _forward_kernel,
        grid=shapes.grid,
        in_specs=[shapes.w, shapes.u],
        out_specs=shapes.state(lambda r: r),
        out_shape=shapes.states,
        scratch_shapes=[shapes.scratch],
        compiler_params=_compiler_params("parallel", "arbitrary", "arbitrary"),
        interpret=interpret,
    )(w, u)


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


def _tile_outputs(w: jax.Array, u: jax.Array, total: jax.Array) -> jax.Array:
    return agreement.outputs(w, u, agreement.coupling(w, u, total))


def _iterate_forward(
    w: jax.Array, u: jax.Array, iterations: int, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    s = _iterate(w, u, iterations, interpret)
    return s, (w, u, s)


def _iterate_backward(
    iterations: int, interpret: bool, residuals: tuple[jax.Array, ...], ds: jax.Array
) -> tuple[jax.Array, jax.Array]:
    w, u, s = residuals
    shapes = _Blocks(w, u, iterations)
    v = squash(s, axis=2)
    totals = jnp.cumsum(v, axis=0) - v  # of the iterations before each
    backwards = shapes.state(lambda r: iterations - 1 - r)
    ds = pl.pallas_call(
        _cotangent_kernel,
        grid=shapes.grid,
        in_specs=[shapes.w, shapes.u, backwards, backwards, backwards],
        out_specs=backwards,
        out_shape=shapes.states,
        scratch_shapes=[shapes.scratch],
        compiler_params=_compiler_params("parallel", "arbitrary", "arbitrary"),
        interpret=interpret,
    )(w, u, s, totals, ds)

    n_tiles, batch_tiles = shapes.grid[2], shapes.grid[0]
    by_tile = pl.BlockSpec((1, *w.shape[1:]), lambda i, b: (i, 0, 0, 0))
    by_both = pl.BlockSpec((1, *u.shape[1:3], shapes.examples), lambda i, b: (i, 0, 0, b))
    states = pl.BlockSpec((*s.shape[:3], shapes.examples), lambda i, b: (0, 0, 0, b))
    dw, du = pl.pallas_call(
        _gradient_kernel,
        grid=(n_tiles, batch_tiles),
        in_specs=[by_tile, by_both, states, states],
        out_specs=[by_tile, by_both],
        out_shape=[jax.ShapeDtypeStruct(x.shape, s.dtype) for x in (w, u)],
        compiler_params=_compiler_params("parallel", "arbitrary"),
        interpret=interpret,
    )(w, u, totals, ds)
    return dw.astype(w.dtype), du.astype(u.dtype)


_iterate.defvjp(_iterate_forward, _iterate_backward)


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


class _Blocks:
    """How the arrays are cut for a grid of (examples, iterations, input capsules)."""

    def __init__(self, w: jax.Array, u: jax.Array, iterations: int) -> None:
        n_tiles, n_out, dim, _ = w.shape
        batch = u.shape[-1]
        dtype = accumulation_dtype(u.dtype)
        self.examples = min(batch, EXAMPLES)
        self.grid = (batch // self.examples, iterations, n_tiles)
        self.w = pl.BlockSpec((1, *w.shape[1:]), lambda b, r, i: (i, 0, 0, 0))
        self.u = pl.BlockSpec((1, *u.shape[1:3], self.examples), lambda b, r, i: (i, 0, 0, b))
        self.states = jax.ShapeDtypeStruct((iterations, n_out, dim, batch), dtype)
        self.scratch = pltpu.VMEM((n_out, dim, self.examples), dtype)

    def state(self, of: Any) -> pl.BlockSpec:
        """The output capsules of iteration `of(r)`."""
        _, n_out, dim, _ = self.states.shape
        return pl.BlockSpec((1, n_out, dim, self.examples), lambda b, r, i: (of(r), 0, 0, b))


def _compiler_params(*semantics: Any) -> Any:
    return pltpu.CompilerParams(dimension_semantics=semantics, vmem_limit_bytes=ON_CHIP_BYTES)
