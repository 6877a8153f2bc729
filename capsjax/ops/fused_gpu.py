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
from capsjax.ops.fused_gradient import differentiable

EXAMPLES = 16
"""Examples at a time: the fewest rows that a matrix product of Triton has."""

CAPSULES = 2
"""Input capsules of an instance that computes their gradients: what the registers hold."""

LARGEST = 512
"""Numbers of all output capsules of an example, J * D, that the registers hold."""

WARPS = 8


def unsupported(kernel_shape: tuple[int, ...]) -> str | None:
    """The reason why there is no kernel for matrices `[I, J, D, K]`; None where there is one."""
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
    """Computes `fused.route_fused`; if to `interpret`, as ordinary JAX anywhere, and slowly."""
    n_in, n_out, dim, in_dim = kernel.shape
    batch = len(pose)
    rows, columns = pl.next_power_of_2(n_out), pl.next_power_of_2(dim)
    depth = max(16, pl.next_power_of_2(in_dim))
    capsules = (0, -n_in % CAPSULES)
    w = jnp.pad(kernel, [capsules, (0, rows - n_out), (0, columns - dim), (0, depth - in_dim)])
    w = w.reshape(len(w), rows * columns, depth)
    u = jnp.pad(pose, [(0, -batch % EXAMPLES), capsules, (0, depth - in_dim)]).transpose(1, 0, 2)

    s = differentiable(_Kernels(w, u, (n_out, rows, columns), iterations, interpret))(w, u)
    s = s.reshape(iterations, -1, rows, columns)[:, :batch, :n_out, :dim]
    total = jnp.sum(squash(s[:-1]), axis=0)
    projected = jnp.einsum(
        "ijdk,bjd->bijk", kernel, total.astype(kernel.dtype), preferred_element_type=s.dtype
    )
    logits = jnp.einsum("bijk,bik->bij", projected, pose.astype(s.dtype))
    return squash(s[-1]), jax.nn.softmax(logits, axis=-1)


class _Kernels:
    """The kernels for matrices `[I, N, K]`, poses `[I, B, K]` and states `[R, B, N]`.

    `sizes` are the output capsules that are there, those with what fills up, and the dimension of
    these, filled up.
    """

    def __init__(
        self,
        w: jax.Array,
        u: jax.Array,
        sizes: tuple[int, int, int],
        iterations: int,
        interpret: bool,
    ) -> None:
        n_in, numbers, depth = w.shape
        self.n_in, self.batch, self.iterations = n_in, u.shape[1], iterations
        self.there, *self.sizes = sizes
        dtype = accumulation_dtype(u.dtype)
        self.states = jax.ShapeDtypeStruct((iterations, self.batch, numbers), dtype)
        # What an instance sees that has a few examples, or a few input capsules.
        self.all_matrices = pl.BlockSpec(w.shape, lambda b: (0, 0, 0))
        self.poses_of_examples = pl.BlockSpec((n_in, EXAMPLES, depth), lambda b: (0, b, 0))
        self.states_of_examples = pl.BlockSpec((iterations, EXAMPLES, numbers), lambda b: (0, b, 0))
        self.some_matrices = pl.BlockSpec((CAPSULES, numbers, depth), lambda i: (i, 0, 0))
        self.poses_of_capsules = pl.BlockSpec((CAPSULES, self.batch, depth), lambda i: (i, 0, 0))
        self.all_states = pl.BlockSpec(self.states.shape, lambda i: (0, 0, 0))
        params = plt.CompilerParams(num_warps=WARPS, num_stages=2)
        self.call = functools.partial(pl.pallas_call, compiler_params=params, interpret=interpret)

    def forward(self, w: jax.Array, u: jax.Array) -> jax.Array:
        return self._over_examples(self._forward_kernel, w, u)

    def cotangent(
        self, w: jax.Array, u: jax.Array, s: jax.Array, _totals: jax.Array, ds: jax.Array
    ) -> jax.Array:
        return self._over_examples(self._cotangent_kernel, w, u, s, ds)

    def _over_examples(self, kernel: Any, w: jax.Array, u: jax.Array, *states: Any) -> jax.Array:
        of_states = [self.states_of_examples] * len(states)
        return self.call(
            kernel,
            grid=(self.batch // EXAMPLES,),
            in_specs=[self.all_matrices, self.poses_of_examples, *of_states],
            out_specs=self.states_of_examples,
            out_shape=self.states,
        )(w, u, *states)

    def gradients(
        self, w: jax.Array, u: jax.Array, totals: jax.Array, ds: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        of_capsules = [self.some_matrices, self.poses_of_capsules]
        dw, du = self.call(
            self._gradient_kernel,
            grid=(self.n_in // CAPSULES,),
            in_specs=[*of_capsules, self.all_states, self.all_states],
            out_specs=of_capsules,
            out_shape=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (w, u)],
        )(w, u, totals, ds)
        return dw, du

    def _forward_kernel(self, w_ref: Any, u_ref: Any, s_ref: Any) -> None:
        total = jnp.zeros(s_ref.shape[1:], s_ref.dtype)
        for iteration in range(self.iterations):

            def add(i: jax.Array, s: jax.Array, total: jax.Array = total) -> jax.Array:
                votes = _votes(w_ref[i], u_ref[i])
                return s + self._each(self._coupling(votes, total)) * votes

            s = lax.fori_loop(0, self.n_in, add, jnp.zeros_like(total))
            s_ref[iteration] = s
            total += self.squash(s)

    def _cotangent_kernel(
        self, w_ref: Any, u_ref: Any, s_ref: Any, ds_ref: Any, out_ref: Any
    ) -> None:
        """From the last iteration to the first."""
        total = jnp.zeros(s_ref.shape[1:], s_ref.dtype)
        for iteration in range(self.iterations - 1):
            total += self.squash(s_ref[iteration])
        dtotal = jnp.zeros_like(total)
        for iteration in reversed(range(self.iterations)):
            of_squash = jax.vjp(self.squash, s_ref[iteration])[1]
            ds = ds_ref[iteration] + of_squash(dtotal)[0]
            out_ref[iteration] = ds
            if iteration == 0:
                return

            def add(
                i: jax.Array, sum_: jax.Array, total: jax.Array = total, ds: jax.Array = ds
            ) -> jax.Array:
                votes = _votes(w_ref[i], u_ref[i])
                db = self._logit_gradient(votes, self._coupling(votes, total), ds)
                return sum_ + self._each(db) * votes

            dtotal = lax.fori_loop(0, self.n_in, add, dtotal)
            total -= self.squash(s_ref[iteration - 1])

    def _gradient_kernel(
        self, w_ref: Any, u_ref: Any, total_ref: Any, ds_ref: Any, dw_ref: Any, du_ref: Any
    ) -> None:
        """A few capsules' matrices and poses get their gradient from all examples."""
        for capsule in range(CAPSULES):
            w = w_ref[capsule]

            def add(
                block: jax.Array, dw: jax.Array, capsule: int = capsule, w: jax.Array = w
            ) -> jax.Array:
                examples = pl.ds(block * EXAMPLES, EXAMPLES)
                u = u_ref[capsule, examples]
                votes = _votes(w, u)
                dvotes = jnp.zeros_like(votes)
                for iteration in range(self.iterations):
                    total, ds = total_ref[iteration, examples], ds_ref[iteration, examples]
                    c = self._coupling(votes, total)
                    db = self._logit_gradient(votes, c, ds)
                    dvotes += self._each(c) * ds + self._each(db) * total
                dvotes = dvotes.astype(u.dtype)
                du_ref[capsule, examples] = _product(dvotes, w).astype(du_ref.dtype)
                return dw + _product(dvotes.T, u)

            dw = jnp.zeros(w.shape, accumulation_dtype(w.dtype))
            dw = lax.fori_loop(0, self.batch // EXAMPLES, add, dw)
            dw_ref[capsule] = dw.astype(dw_ref.dtype)

    # --- The arithmetic of one input capsule and a few examples, votes `[B, N]`.

    def _coupling(self, votes: jax.Array, total: jax.Array) -> jax.Array:
        """The softmax of `b_j = u_hat_j . V_j`, `[B, J]`; nothing for capsules that fill up."""
        there = lax.broadcasted_iota(jnp.int32, (len(votes), self.sizes[0]), 1) < self.there
        b = jnp.where(there, self._sum_each(votes * total), -jnp.inf)
        e = jnp.exp(b - jnp.max(b, axis=1, keepdims=True))
        return e / jnp.sum(e, axis=1, keepdims=True)

    def _logit_gradient(self, votes: jax.Array, c: jax.Array, ds: jax.Array) -> jax.Array:
        """The gradient `[B, J]` of the logits, where `s` is the sum of `c_j u_hat_j` and more."""
        dc = self._sum_each(votes * ds)
        return c * (dc - jnp.sum(c * dc, axis=1, keepdims=True))

    def squash(self, s: jax.Array) -> jax.Array:
        """Squashes `[..., N]`."""
        return squash(s.reshape(*s.shape[:-1], *self.sizes)).reshape(s.shape)

    def _sum_each(self, x: jax.Array) -> jax.Array:
        """Sums the components of each output capsule, `[B, N]` -> `[B, J]`."""
        return jnp.sum(x.reshape(len(x), *self.sizes), axis=2)

    def _each(self, x: jax.Array) -> jax.Array:
        """A number for each output capsule as one for each component, `[B, J]` -> `[B, N]`."""
        full = jnp.broadcast_to(x[:, :, None], (len(x), *self.sizes))
        return full.reshape(len(x), -1)


def _votes(w: jax.Array, u: jax.Array) -> jax.Array:
    """Matrix `[N, K]` and poses `[B, K]` -> `[B, N]`."""
    return _product(u, w.T)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """A matrix product summed up in float32 at least, and not of rounded factors."""
    dtype = accumulation_dtype(a.dtype)
    return jnp.dot(a, b, precision=lax.Precision.HIGHEST, preferred_element_type=dtype)
