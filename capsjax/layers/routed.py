"""What all layers with a routing have in common: how votes are made, and how they are routed."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Capsules, accumulation_dtype
from capsjax.ops._arrays import product, split
from capsjax.ops._meshes import is_explicit
from capsjax.ops.bilinear import bilinear
from capsjax.ops.parts import in_parts, number_of_parts
from capsjax.routing import (
    EXAMPLES,
    Implementation,
    Routed,
    Routing,
    RoutingInputs,
    dense_votes,
)
from capsjax.routing._base import name_of, needs_of
from capsjax.routing._batching import (
    every_iteration,
    keys_of,
    last_iteration,
    next_iteration,
    over_examples,
)
from capsjax.routing._implementations import sum_dense_votes
from capsjax.routing._inputs import check_mask, where_present

T = TypeVar("T")

Transform = Literal["linear", "matrix"]


class RoutedCapsules(NamedTuple):
    """What a layer returns.

    Attributes:
        capsules: its capsules.
        coupling: the coupling coefficients that they were made with.
    """

    capsules: Capsules
    coupling: jax.Array


class Iteration(NamedTuple):
    """A layer after one iteration of its routing.

    Attributes:
        capsules: what the layer would return if this iteration were the last.
        coupling: the coupling coefficients they were made with.
        state: what the next iteration starts from.
    """

    capsules: Capsules
    coupling: jax.Array
    state: Any


class RoutedLayer(nnx.Module):
    """A layer whose capsules a routing makes of votes.

    A layer has `votes` and says in `_inputs` what is routed, of what `_below` has checked.
    """

    routing: Routing
    implementation: Implementation | None = None
    input_shape: tuple[int, ...]  # of the poses of one example
    dtype: DTypeLike

    def __call__(
        self,
        capsules: Capsules,
        *,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> RoutedCapsules:
        """Routes the capsules below to this layer.

        Args:
            capsules: those below.
            mask: booleans of the shape of the activations below: a capsule that is not there,
                False, has no coupling and no part in anything, whatever its pose is; None where all
                are there.
            key: a random key, for a routing that draws, see `route`; without, nothing is drawn.

        Returns:
            This layer's capsules, and the coupling coefficients; all in float32 at least.

        Raises:
            ValueError: the capsules are of another shape than the layer was made for, or are none.
        """
        routed = self._routed(capsules, mask, key)
        return RoutedCapsules(Capsules(routed.pose, routed.activation), routed.coupling)

    def _routed(self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None) -> Routed:
        """What a call returns, in the axes of `output_shape` or of a list of capsules."""
        return self._apply(last_iteration, capsules, mask, key)

    def iterations(
        self,
        capsules: Capsules,
        *,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Routed:
        """What each of the `R` iterations of the routing comes to, arrays `[..., R, ...]`.

        The axes in front of `R` are those of the votes in front of `I`: `batch`, in a convolution
        `batch, P, Q`. A routing that is no `IterativeRouting` has one iteration.
        """
        return self._apply(every_iteration, capsules, mask, key)

    def iterate(
        self,
        capsules: Capsules,
        state: Any = None,
        *,
        mask: jax.Array | None = None,
        key: jax.Array | None = None,
    ) -> Iteration:
        """Takes one iteration of an `IterativeRouting`, so that all layers can route at once.

        Args:
            capsules: those below, as they are by now.
            state: of the iteration before; None for the first one.
            mask: as of a call.
            key: as of a call.

        Raises:
            ValueError: the routing is no `IterativeRouting`.
        """
        states = () if state is None else (state,)
        routed, state = self._apply(next_iteration, capsules, mask, key, *states)
        return Iteration(Capsules(routed.pose, routed.activation), routed.coupling, state)

    def _poses(self, pose: jax.Array) -> jax.Array:
        """Poses in the layer's dtype; a ValueError if they are not of `input_shape`."""
        return _checks.of_each("poses", pose, self.input_shape).astype(self.dtype)

    def _below(self, capsules: Capsules, mask: jax.Array | None) -> Capsules:
        """Capsules with `_poses`, zero where they are not there.

        A ValueError if they are none, or activations or mask are not of these.
        """
        if not isinstance(capsules, Capsules):
            raise ValueError(
                f"a layer takes Capsules(pose, activation), not {_what_it_is(capsules)}"
            )
        pose = self._poses(capsules.pose)
        activation = _checks.of_each("activations", capsules.activation, self.input_shape[:-1])
        if activation.shape[0] != pose.shape[0]:
            raise ValueError(
                f"there are poses of {pose.shape[0]} examples, but activations of "
                f"{activation.shape[0]}"
            )
        if mask is None:
            return Capsules(pose, activation)
        _checks.of_each("a mask", mask, self.input_shape[:-1])
        check_mask(mask, activation.shape)
        return Capsules(where_present(mask, pose), where_present(mask, activation))

    def _inputs(
        self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None
    ) -> RoutingInputs:
        """What is routed, of all examples."""
        raise NotImplementedError

    def _map(
        self,
        function: Callable[..., T],
        inputs: RoutingInputs,
        *others: Any,
        axis_name: str | None = EXAMPLES,
    ) -> T:
        """Applies a function of the routing and one example to all, see `over_examples`."""
        return over_examples(function, self.routing, inputs, *others, axis_name=axis_name)

    def _apply(
        self,
        function: Callable[..., T],
        capsules: Capsules,
        mask: jax.Array | None,
        key: jax.Array | None,
        *others: Any,
    ) -> T:
        """`_map` of what `_inputs` makes, of all examples at once or part by part.

        Where a loss is differentiated, the votes of parts are made again, and so never kept.
        """

        def of_examples(axis_name: str | None, *arrays: Any) -> T:
            capsules, mask, key, *others = arrays
            inputs = self._inputs(capsules, mask, key)
            return self._map(function, inputs, *others, axis_name=axis_name)

        votes = jax.eval_shape(lambda: self._inputs(capsules, mask, key).votes)
        parts = self._number_of_parts(capsules.pose, votes)
        if parts > 1:
            if key is not None:
                draws = "key" in needs_of(self.routing)
                key = keys_of(key, votes.shape[:-3]) if draws else None
            try:
                of_part = functools.partial(of_examples, None)
                return in_parts(of_part, parts, capsules, mask, key, *others)
            except NameError as error:  # JAX knows no axis of that name
                if EXAMPLES not in str(error):
                    raise
                if self.implementation == "recompute":
                    raise ValueError(
                        "implementation 'recompute' goes through a batch part by part, and "
                        f"{name_of(self.routing)} shares something between all of its examples, "
                        "for which there is: xla"
                    ) from error
        return of_examples(EXAMPLES, capsules, mask, key, *others)

    def _number_of_parts(self, pose: jax.Array, votes: Any) -> int:
        """Into how many parts a batch is cut, of the poses below and its votes."""
        batch = pose.shape[0]
        # Where a mesh has explicit axes, a batch has the order in which it is spread.
        if self.implementation == "xla" or not isinstance(batch, int) or is_explicit(pose):
            return 1
        bytes_of_one = votes.size // max(1, batch) * accumulation_dtype(votes.dtype).itemsize
        parts = number_of_parts(batch, bytes_of_one)
        return parts if self.implementation is None else min(batch, max(2, parts))


def _what_it_is(value: Any) -> str:
    """What a layer was given for capsules, and what to give."""
    if isinstance(value, tuple) and value and isinstance(value[0], Capsules):
        return "what a layer returns, capsules and their coupling: give the first of the two"
    if hasattr(value, "shape"):
        return (
            f"an array of shape {list(value.shape)}: if it holds poses, give "
            "Capsules(x, capsjax.norm(x))"
        )
    return f"a {type(value).__name__}"


def kernel_shape(transform: Transform, in_dim: int, out_dim: int) -> tuple[int, int]:
    """The shape of the matrix between poses of dimension `K` and `D`, see `make_votes`.

    A ValueError if there is no such transform, or these are no dimensions of square matrices.
    """
    _checks.one_of("transform", transform, ("linear", "matrix"))
    if transform == "linear":
        return out_dim, in_dim
    side = math.isqrt(in_dim)
    if side * side != in_dim or out_dim != in_dim:
        raise ValueError(
            "transform='matrix' needs poses that are square matrices, of the same size below and "
            f"above, such as 16 numbers for 4x4, not {in_dim} and {out_dim}"
        )
    return side, side


def make_votes(transform: Transform, kernel: jax.Array, pose: jax.Array) -> jax.Array:
    """The votes of capsules for those above them.

    Args:
        transform: `"linear"`, `u_hat_ij = W_ij u_i` with `W_ij` `[D, K]` (Sabour, Frosst and Hinton
            2017, arXiv:1710.09829, equation 2); or `"matrix"`, `V_ij = M_i W_ij`, in which a pose
            is a matrix `M_i`, row-major, and `W_ij` another one of its size (Hinton, Sabour and
            Frosst 2018, section 2).
        kernel: `[I, J, D, K]` or `[I, J, side, side]`.
        pose: `[..., I, K]`, in the same dtype.

    Returns:
        `[..., I, J, D]` in that dtype.
    """
    if transform == "linear":
        return dense_votes(kernel, pose)
    leading = pose.shape[:-2]
    examples = pose if leading else pose[None]
    matrices = split(examples, examples.ndim - 1, *kernel.shape[-2:])
    shape = (*matrices.shape[:-2], kernel.shape[1], *kernel.shape[-2:])
    votes = lax.collapse(bilinear(_MatrixVotes(), matrices, kernel, shape), len(shape) - 2)
    return votes if leading else votes[0]


@dataclass(frozen=True)
class _MatrixVotes:
    """Poses `[..., I, m, n]` and matrices `[I, J, n, l]` -> votes `[..., I, J, m, l]`.

    Both gradients take that of the votes in one order: it is turned once. As JAX derives them, each
    has an order of its own, and turning is what takes most of the time.
    """

    def forward(
        self, pose: jax.Array, kernel: jax.Array, _shape: tuple[int, ...], *, alone: bool
    ) -> jax.Array:
        votes = jnp.einsum("...imn,ijnl->i...mjl", pose, kernel)
        return jnp.moveaxis(votes, (0, -2), (-4, -3))

    def to_inputs(
        self, kernel: jax.Array, g: jax.Array, _shape: tuple[int, ...], *, alone: bool
    ) -> jax.Array:
        g = self._by_input(g)
        by_input = lax.dot_general(g, kernel, (((g.ndim - 2, g.ndim - 1), (1, 3)), ((0,), (0,))))
        return jnp.moveaxis(by_input, 0, -3)

    def to_kernel(
        self, pose: jax.Array, g: jax.Array, _shape: tuple[int, ...], *, alone: bool
    ) -> jax.Array:
        pose, g = jnp.moveaxis(pose, -3, 0), self._by_input(g)
        summed = tuple(range(1, pose.ndim - 1))
        return jnp.swapaxes(lax.dot_general(pose, g, ((summed, summed), ((0,), (0,)))), 1, 2)

    def _by_input(self, g: jax.Array) -> jax.Array:
        """`[..., I, J, m, l]` -> `[I, ..., m, J, l]`."""
        return jnp.moveaxis(g, (-4, -3), (0, -2))


def sum_votes(transform: Transform, kernel: jax.Array, pose: jax.Array) -> jax.Array:
    """The votes of `make_votes`, added up over the input capsules, in one product.

    Returns:
        `[..., J, D]`, in `accumulation_dtype` of that of the kernel.
    """
    if transform == "linear":
        return sum_dense_votes(kernel, pose)
    matrices = split(pose, pose.ndim - 1, *kernel.shape[-2:])
    total = product("...imn,ijnl->...jml", matrices, kernel)
    return lax.collapse(total, total.ndim - 2)
