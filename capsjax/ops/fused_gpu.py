"""Dynamic routing of dense capsules on a GPU: one Pallas kernel forward and two backward.

A program instance holds a few examples, or a few input capsules, and goes over all of the other.
The votes of one input capsule are a product of poses and matrix in registers, computed anew in each
iteration and never written. What the kernels write are the output capsules before squash of every
iteration, all that the backward pass needs besides the inputs.

The kernels are compiled by Triton. Its arrays have powers of two for sizes, and 16 at least where
they are multiplied: everything is filled up with zeros, which add nothing, and output capsules that
are not there get no share of a softmax.

Names of sizes: B examples, I input capsules of dimension K, J output capsules of dimension D; in
the kernels J * D is one axis, `N`.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from capsjax.capsules import accumulation_dtype, squash

EXAMPLES = 16
"""Examples at a time: the fewest rows that a matrix product of Triton has."""

CAPSULES = 2
"""Input capsules of an instance that computes their gradients: what the registers hold."""

LARGEST = 512
"""Numbers of all output capsules of an example, J * D, that the registers hold."""

WARPS = 8


def lack(kernel_shape: tuple[int, ...]) -> str | None:
    """Why there is no kernel for matrices `[I, J, D, K]`; None where there is one."""
    _, n_out, dim, _ = kernel_shape
    numbers = pl.next_power_of_2(n_out) * pl.next_power_of_2(dim)
    if numbers <= LARGEST:
        return None
    return (
        f"has no room for {n_out} output capsules of dimension {dim}, which take {numbers} "
        f"registers of an example where {LARGEST} are to be had"
    )


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
    n_in, n_out, dim, in_dim = kernel.shape
    batch = len(pose)
    rows, columns = pl.next_power_of_2(n_out), pl.next_power_of_2(dim)
    depth = max(16, pl.next_power_of_2(in_dim))
    capsules = (0, -n_in % CAPSULES)
    w = jnp.pad(kernel, [capsules, (0, rows - n_out), (0, columns - dim), (0, depth - in_dim)])
    w = w.reshape(len(w), rows * columns, depth)
    u = jnp.pad(pose, [(0, -batch % EXAMPLES), capsules, (0, depth - in_dim)]).transpose(1, 0, 2)

    s = _iterate(w, u, (n_out, rows, columns), iterations, interpret)
    s = s.reshape(iterations, -1, rows, columns)[:, :batch, :n_out, :dim]
    total = jnp.sum(squash(s[:-1]), axis=0)
    projected = jnp.einsum(
        "ijdk,bjd->bijk", kernel, total.astype(kernel.dtype), preferred_element_type=s.dtype
    )
    logits = jnp.einsum("bijk,bik->bij", projected, pose.astype(s.dtype))
    return squash(s[-1]), jax.nn.softmax(logits, axis=-1)


Sizes = tuple[int, int, int]
"""The output capsules there are, and with those that fill up, and their dimension, filled up."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _iterate(
    w: jax.Array, u: jax.Array, sizes: Sizes, iterations: int, interpret: bool
) -> jax.Array:
    """Matrices `[I, N, K]` and poses `[I, B, K]` -> `s [R, B, N]` of every iteration."""
    blocks = _Blocks(w, u, iterations)
    return pl.pallas_call(
        functools.partial(_forward_kernel, sizes=sizes),
        grid=(blocks.batch // EXAMPLES,),
        in_specs=[blocks.all_matrices, blocks.poses_of_examples],
        out_specs=blocks.states_of_examples,
        out_shape=blocks.states,
        compiler_params=_compiler_params(),
        interpret=interpret,
    )(w, u)


def _iterate_forward(
    w: jax.Array, u: jax.Array, sizes: Sizes, iterations: int, interpret: bool
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    s = _iterate(w, u, sizes, iterations, interpret)
    return s, (w, u, s)


def _iterate_backward(
    sizes: Sizes,
    iterations: int,
    interpret: bool,
    residuals: tuple[jax.Array, ...],
    ds: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    w, u, s = residuals
    blocks = _Blocks(w, u, iterations)
    ds = pl.pallas_call(
        functools.partial(_cotangent_kernel, sizes=sizes),
        grid=(blocks.batch // EXAMPLES,),
        in_specs=[
            blocks.all_matrices,
            blocks.poses_of_examples,
            blocks.states_of_examples,
            blocks.states_of_examples,
        ],
        out_specs=blocks.states_of_examples,
        out_shape=blocks.states,
        compiler_params=_compiler_params(),
        interpret=interpret,
    )(w, u, s, ds)

    v = _squash(s, sizes)
    totals = jnp.cumsum(v, axis=0) - v  # of the iterations before each
    dw, du = pl.pallas_call(
        functools.partial(_gradient_kernel, sizes=sizes),
        grid=(len(w) // CAPSULES,),
        in_specs=[
            blocks.some_matrices,
            blocks.poses_of_capsules,
            blocks.all_states,
            blocks.all_states,
        ],
        out_specs=[blocks.some_matrices, blocks.poses_of_capsules],
        out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (w, u)],
        compiler_params=_compiler_params(),
        interpret=interpret,
    )(w, u, totals, ds)
    return dw, du


_iterate.defvjp(_iterate_forward, _iterate_backward)


def _forward_kernel(w_ref: Any, u_ref: Any, s_ref: Any, *, sizes: Sizes) -> None:
    n_in = w_ref.shape[0]
    total = jnp.zeros(s_ref.shape[1:], s_ref.dtype)
    for iteration in range(s_ref.shape[0]):

        def add(i: jax.Array, s: jax.Array, total: jax.Array = total) -> jax.Array:
            votes = _votes(w_ref[i], u_ref[i])
            return s + _each(_coupling(votes, total, sizes), sizes) * votes

        s = lax.fori_loop(0, n_in, add, jnp.zeros_like(total))
        s_ref[iteration] = s
        total += _squash(s, sizes)


def _cotangent_kernel(
    w_ref: Any, u_ref: Any, s_ref: Any, ds_ref: Any, out_ref: Any, *, sizes: Sizes
) -> None:
    """From the last iteration to the first, the gradient of each `s` through all later ones."""
    iterations, n_in = s_ref.shape[0], w_ref.shape[0]
    total = jnp.zeros(s_ref.shape[1:], s_ref.dtype)
    for iteration in range(iterations - 1):
        total += _squash(s_ref[iteration], sizes)
    dtotal = jnp.zeros_like(total)
    for iteration in reversed(range(iterations)):
        s = s_ref[iteration]
        _, of_squash = jax.vjp(lambda s: _squash(s, sizes), s)
        ds = ds_ref[iteration] + of_squash(dtotal)[0]
        out_ref[iteration] = ds
        if iteration == 0:
            return

        def add(
            i: jax.Array, sum_: jax.Array, total: jax.Array = total, ds: jax.Array = ds
        ) -> jax.Array:
            votes = _votes(w_ref[i], u_ref[i])
            db = _logit_gradient(votes, _coupling(votes, total, sizes), ds, sizes)
            return sum_ + _each(db, sizes) * votes

        dtotal = lax.fori_loop(0, n_in, add, dtotal)
        total -= _squash(s_ref[iteration - 1], sizes)


def _gradient_kernel(
    w_ref: Any, u_ref: Any, total_ref: Any, ds_ref: Any, dw_ref: Any, du_ref: Any, *, sizes: Sizes
) -> None:
    """A few capsules' matrices and poses get their gradient from all iterations and examples."""
    iterations, batch = total_ref.shape[0], u_ref.shape[1]
    for capsule in range(w_ref.shape[0]):
        w = w_ref[capsule]

        def add(block: jax.Array, dw: jax.Array, capsule: int = capsule, w: jax.Array = w) -> Any:
            examples = pl.ds(block * EXAMPLES, EXAMPLES)
            u = u_ref[capsule, examples]
            votes = _votes(w, u)
            dvotes = jnp.zeros_like(votes)
            for iteration in range(iterations):
                total, ds = total_ref[iteration, examples], ds_ref[iteration, examples]
                c = _coupling(votes, total, sizes)
                db = _logit_gradient(votes, c, ds, sizes)
                dvotes += _each(c, sizes) * ds + _each(db, sizes) * total
            dvotes = dvotes.astype(u.dtype)
            du_ref[capsule, examples] = _product(dvotes, w).astype(du_ref.dtype)
            return dw + _product(dvotes.T, u)

        dw = jnp.zeros(w.shape, accumulation_dtype(w.dtype))
        dw_ref[capsule] = lax.fori_loop(0, batch // EXAMPLES, add, dw).astype(dw_ref.dtype)


# --- The arithmetic of one input capsule and a few examples, votes `[B, N]`.


def _votes(w: jax.Array, u: jax.Array) -> jax.Array:
    """Matrix `[N, K]` and poses `[B, K]` -> `[B, N]`."""
    return _product(u, w.T)


def _coupling(votes: jax.Array, total: jax.Array, sizes: Sizes) -> jax.Array:
    """The softmax of `b_j = u_hat_j . V_j`, `[B, J]`; nothing for capsules that fill up."""
    there = lax.broadcasted_iota(jnp.int32, (len(votes), sizes[1]), 1) < sizes[0]
    b = jnp.where(there, _sum_each(votes * total, sizes), -jnp.inf)
    e = jnp.exp(b - jnp.max(b, axis=1, keepdims=True))
    return e / jnp.sum(e, axis=1, keepdims=True)


def _logit_gradient(votes: jax.Array, c: jax.Array, ds: jax.Array, sizes: Sizes) -> jax.Array:
    """The gradient `[B, J]` of the logits, where `s` is the sum of `c_j u_hat_j` and more."""
    dc = _sum_each(votes * ds, sizes)
    return c * (dc - jnp.sum(c * dc, axis=1, keepdims=True))


def _squash(s: jax.Array, sizes: Sizes) -> jax.Array:
    """Squashes `[..., N]`."""
    return squash(s.reshape(*s.shape[:-1], *sizes[1:])).reshape(s.shape)


def _sum_each(x: jax.Array, sizes: Sizes) -> jax.Array:
    """Sums the components of each output capsule, `[B, N]` -> `[B, J]`."""
    return jnp.sum(x.reshape(len(x), *sizes[1:]), axis=2)


def _each(x: jax.Array, sizes: Sizes) -> jax.Array:
    """A number for each output capsule as one for each component, `[B, J]` -> `[B, N]`."""
    full = jnp.broadcast_to(x[:, :, None], (len(x), *sizes[1:]))
    return full.reshape(len(x), -1)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A matrix product summed up in float32 at least, and not of rounded factors."""
    return jnp.dot(
        a,
        b,
        precision=lax.Precision.HIGHEST,
        preferred_element_type=accumulation_dtype(a.dtype),
    )


class _Blocks:
    """Which part of an array an instance sees, of examples or of input capsules."""

    def __init__(self, w: jax.Array, u: jax.Array, iterations: int) -> None:
        n_in, numbers, depth = w.shape
        self.batch = u.shape[1]
        dtype = accumulation_dtype(u.dtype)
        self.states = jax.ShapeDtypeStruct((iterations, self.batch, numbers), dtype)
        self.all_matrices = pl.BlockSpec(w.shape, lambda b: (0, 0, 0))
        self.all_states = pl.BlockSpec(self.states.shape, lambda i: (0, 0, 0))
        self.poses_of_examples = pl.BlockSpec((n_in, EXAMPLES, depth), lambda b: (0, b, 0))
        self.states_of_examples = pl.BlockSpec((iterations, EXAMPLES, numbers), lambda b: (0, b, 0))
        self.some_matrices = pl.BlockSpec((CAPSULES, numbers, depth), lambda i: (i, 0, 0))
        self.poses_of_capsules = pl.BlockSpec((CAPSULES, self.batch, depth), lambda i: (i, 0, 0))


def _compiler_params() -> Any:
    return plt.CompilerParams(num_warps=WARPS, num_stages=2)
