"""Convolutional capsules: at every position of a grid the same layer of capsules."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import (
    Capsules,
    SquashFunction,
    accumulation_dtype,
    in_a_list,
    norm,
    squash_from,
)
from capsjax.layers.step import Step
from capsjax.layers.transform import Transform, kernel_shape, make_votes
from capsjax.ops import conv_general_dilated
from capsjax.ops.patches import Padding, Windows
from capsjax.routing import Routed, Routing, UnsizedRouting, route
from capsjax.routing._base import Sizes, every_iteration, route_one, routed_iterations, sized
from capsjax.routing.patches import Competition, check_competition, over_patches
from capsjax.routing.stepwise import stepping

T = TypeVar("T")

Coordinates = Literal["centre", "corner"]
COORDINATES: tuple[Coordinates, ...] = ("centre", "corner")


class GridShape(NamedTuple):
    """The shape of capsules on a grid.

    Such capsules are `Capsules` of poses `[batch, height, width, types, dim]` and activations
    `[batch, height, width, types]`.

    Attributes:
        height: positions below one another.
        width: positions side by side.
        types: capsules at each position.
        dim: dimension of their poses.
    """

    height: int
    width: int
    types: int
    dim: int


class ConvPrimaryCaps(nnx.Module):
    """The lowest capsules of a convolutional network: a convolution to poses and activations.

    Hinton, Sabour and Frosst 2018, section 4: poses are learned linear maps of the features, and
    activations the sigmoid of another one. With `activation="length"` they are lengths, after
    `squash` if there is one; with `"one"` all capsules are there.

    Args:
        input_shape: `(height, width, channels)` of the features below.
        types: number of capsule types.
        dim: dimension of a pose.
        kernel_size: side of the square kernel.
        stride: in both directions.
        padding: `"VALID"`, `"SAME"`, or a pair (low, high) for each direction.
        activation: where activations come from, `"sigmoid"`, `"length"` or `"one"`; or `"logit"`
            for what they are the sigmoid of, to be normalised, see `CapsuleNorm`.
        activation_offset: added to what the sigmoid of `activation="sigmoid"` is taken of.
        squash: of the poses; a function, or the fields of a `Squash` by name; None for none.
        use_bias: whether the convolution adds learned numbers.
        kernel_init: initialiser of its filters, first those of the poses, capsule by capsule, then
            those of the activations.
        dtype: dtype of the computation; norms are computed in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the kernel is larger than the input, a size is not a positive integer, or
            another argument has a wrong value.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        types: int,
        dim: int,
        *,
        kernel_size: int = 1,
        stride: int = 1,
        padding: str | Padding = "VALID",
        activation: Literal["sigmoid", "logit", "length", "one"] = "sigmoid",
        activation_offset: float = 0.0,
        squash: SquashFunction | None = None,
        use_bias: bool = True,
        kernel_init: nnx.Initializer = nnx.initializers.glorot_uniform(),  # noqa: B008 (a function)
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, channels = _checks.image_shape(input_shape)
        types, dim = _checks.positive_integer("types", types), _checks.positive_integer("dim", dim)
        windows = Windows.of((height, width), kernel_size, stride, padding)
        self.output_shape = GridShape(*windows.counts, types, dim)
        self.activation = _checks.one_of(
            "activation", activation, ("sigmoid", "logit", "length", "one")
        )
        self.activation_offset = _checks.number("activation_offset", activation_offset)
        self.squash = None if squash is None else squash_from(squash)
        self.pose = nnx.Conv(
            channels,
            types * (dim + (activation in ("sigmoid", "logit"))),
            (kernel_size, kernel_size),
            strides=stride,
            padding=windows.padding,
            use_bias=_checks.boolean("use_bias", use_bias),
            conv_general_dilated=conv_general_dilated,
            kernel_init=kernel_init,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, features: jax.Array) -> Capsules:
        """`[batch, height, width, channels]` -> capsules of `output_shape`.

        Returns:
            Poses in the layer's dtype and activations in float32 at least.
        """
        _, _, types, dim = self.output_shape
        maps = self.pose(features)
        pose = maps[..., : types * dim].reshape(*maps.shape[:3], types, dim)
        if self.squash is not None:
            pose = self.squash(pose).astype(maps.dtype)
        if self.activation in ("sigmoid", "logit"):
            logits = maps[..., types * dim :]
            logits = logits.astype(accumulation_dtype(logits.dtype)) + self.activation_offset
            activation = nnx.sigmoid(logits) if self.activation == "sigmoid" else logits
        elif self.activation == "length":
            activation = norm(pose)
        else:
            activation = jnp.ones(pose.shape[:-1], accumulation_dtype(pose.dtype))
        return Capsules(pose, activation)


class ConvCaps(nnx.Module):
    """Capsules that see those in a square window, the same layer at every position.

    Hinton, Sabour and Frosst 2018, section 4. A capsule below lies in several windows and votes for
    the capsules of each; its coupling coefficients are shared out over all of them, as in the
    paper, or in each window apart, as most public implementations have it.

    Args:
        input_shape: of the capsules below.
        types: number of capsule types.
        dim: dimension of their poses.
        kernel_size: side of a window.
        stride: between windows, in both directions.
        padding: `"VALID"`, `"SAME"`, or a pair (low, high) for each direction. What lies outside
            of the grid is a capsule with a pose of zero and an activation of zero.
        routing: maps the votes in one window of one example to this layer's capsules there. An
            `UnsizedRouting` is built for the sizes of a window.
        competition: what a capsule's coupling coefficients are shared out over: the capsules at
            `"all"` positions that see it, or those of each `"patch"` for itself.
        transform: how a matrix makes a vote of a pose, see `make_votes`.
        kernel_init: initialiser of the matrices; if not given, a normal distribution of deviation
            `1 / sqrt(I)`, with `I` the capsules in a window.
        dtype: dtype of the votes; the routing's norms and softmax are in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: the window is larger than the grid, a size is not a positive integer, or another
            argument has a wrong value.
    """

    def __init__(
        self,
        input_shape: GridShape,
        types: int,
        dim: int,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: str | Padding = "VALID",
        routing: Routing | UnsizedRouting,
        competition: Competition = "all",
        transform: Transform = "linear",
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, in_types, in_dim = input_shape
        types, dim = _checks.positive_integer("types", types), _checks.positive_integer("dim", dim)
        self.windows = Windows.of((height, width), kernel_size, stride, padding)
        self.output_shape = GridShape(*self.windows.counts, types, dim)
        self.dtype = dtype
        self.transform = transform
        seen = kernel_size**2 * in_types
        init = kernel_init or nnx.initializers.normal(1 / math.sqrt(seen))
        matrices = (seen, types, *kernel_shape(transform, in_dim, dim))
        self.kernel = nnx.Param(init(rngs.params(), matrices, param_dtype))
        sizes = Sizes(seen, in_dim, types, dim)
        self.routing = sized(routing, sizes, param_dtype=param_dtype, rngs=rngs)
        self.competition = check_competition(competition, self.routing)

    def __call__(self, capsules: Capsules) -> tuple[Capsules, jax.Array]:
        """Routes the capsules below to this layer.

        Args:
            capsules: of `input_shape`.

        Returns:
            Capsules of `output_shape`, and the coupling coefficients `[batch, P, Q, I, types]`;
            all in float32 at least. In a window, capsule `B t + b` of the `I` is the one of type
            `b` of `B` at the `t`th element, row by row.
        """
        routed = self._over_positions(functools.partial(route_one, self.routing), capsules)
        return Capsules(routed.pose, routed.activation), routed.coupling

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, height, width, B, K]` -> votes `[batch, P, Q, I, types, dim]`."""
        return self._votes(self._in_windows(pose.astype(self.dtype)))

    def iterations(self, capsules: Capsules) -> Routed:
        """What each of the `R` iterations comes to, arrays `[batch, P, Q, R, ...]`."""
        return self._over_positions(every_iteration(self.routing), capsules)

    def step(self, capsules: Capsules, state: Any = None) -> Step:
        """One iteration of a routing that takes one at a time, see `StepwiseRouting`.

        Args:
            capsules: of `input_shape`, as they are by now.
            state: of the iteration before; None for the first one.

        Raises:
            ValueError: the routing does not.
        """
        states = () if state is None else (state,)
        routed, state = self._over_positions(stepping(self.routing), capsules, *states)
        return Step(Capsules(routed.pose, routed.activation), routed.coupling, state)

    def _over_positions(self, function: Callable[..., T], capsules: Capsules, *states: Any) -> T:
        """Applies a function that is called like the routing at all positions of all examples."""
        pose = self._in_windows(capsules.pose.astype(self.dtype))
        return over_patches(
            function,
            self.routing,
            self._votes(pose),
            self._in_windows(capsules.activation[..., None])[..., 0],
            *states,
            pose=pose,
            windows=self.windows,
            competition=self.competition,
        )

    def _in_windows(self, grid: jax.Array) -> jax.Array:
        """What each window sees of `[batch, height, width, B, K]`: `[batch, P, Q, I, K]`."""
        seen = self.windows.gather(grid)
        *leading, _, _, dim = seen.shape
        return seen.reshape(*leading, -1, dim)

    def _votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, P, Q, I, K]` in windows -> votes `[batch, P, Q, I, types, dim]`."""
        return make_votes(self.transform, self.kernel[...].astype(self.dtype), pose)


class ClassCaps(nnx.Module):
    """Class capsules above a grid: every capsule of a type has the same matrices.

    Hinton, Sabour and Frosst 2018, section 4. So that it matters where a capsule lies, its position
    is added to its votes ("coordinate addition"): the row and the column of the centre of its
    receptive field, from 0 to 1, to the first two elements of the right-hand column of the vote. In
    a public re-implementation (yl-1993's) it is those of the upper left corner, added to the first
    two elements of the vote.

    Args:
        input_shape: of the capsules below.
        num_classes: number of class capsules.
        dim: dimension of their poses.
        routing: maps all votes of one example to the class capsules. An `UnsizedRouting` is built
            for the sizes.
        coordinates: whether positions are added; only with `transform="matrix"`.
        coordinates_of: what is added, those of the `"centre"`, as in the paper, or of the
            `"corner"`, where each goes as told above.
        transform: how a matrix makes a vote of a pose, see `make_votes`.
        kernel_init: initialiser of the matrices; if not given, a normal distribution of deviation
            `1 / sqrt(I)`, with `I` the capsules below.
        dtype: dtype of the votes; the routing's norms and softmax are in float32 at least.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, or another argument has a wrong value.
    """

    def __init__(
        self,
        input_shape: GridShape,
        num_classes: int,
        dim: int,
        *,
        routing: Routing | UnsizedRouting,
        coordinates: bool = True,
        coordinates_of: Coordinates = "centre",
        transform: Transform = "matrix",
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, in_types, in_dim = self.input_shape = GridShape(*input_shape)
        num_classes = _checks.positive_integer("num_classes", num_classes)
        dim = _checks.positive_integer("dim", dim)
        self.coordinates = _checks.boolean("coordinates", coordinates)
        self.coordinates_of = _checks.one_of("coordinates_of", coordinates_of, COORDINATES)
        shape = kernel_shape(transform, in_dim, dim)
        if coordinates and (transform != "matrix" or shape[0] < 2):
            raise ValueError("coordinates can be added to matrix poses alone, of 2x2 at least")
        self.dtype = dtype
        self.transform = transform
        seen = height * width * in_types
        init = kernel_init or nnx.initializers.normal(1 / math.sqrt(seen))
        self.kernel = nnx.Param(init(rngs.params(), (in_types, num_classes, *shape), param_dtype))
        sizes = Sizes(seen, in_dim, num_classes, dim)
        self.routing = sized(routing, sizes, param_dtype=param_dtype, rngs=rngs)

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, height, width, B, K]` -> votes `[batch, I, classes, D]`."""
        kernel = self.kernel[...].astype(self.dtype)
        votes = make_votes(self.transform, kernel, pose.astype(self.dtype))
        if self.coordinates:
            votes = votes + self._coordinates().astype(self.dtype)
        batch, height, width, types, classes, dim = votes.shape
        return votes.reshape(batch, height * width * types, classes, dim)

    def __call__(self, capsules: Capsules) -> tuple[Capsules, jax.Array]:
        """Routes the capsules below to the classes.

        Args:
            capsules: of `input_shape`.

        Returns:
            The class capsules, poses `[batch, classes, D]` and activations `[batch, classes]`, and
            the coupling coefficients `[batch, I, classes]`; all in float32 at least. Capsule
            `B p + b` of the `I` is the one of type `b` of `B` at position `p = y * width + x`.
        """
        pose, activation = in_a_list(capsules)
        routed = route(
            self.routing, self.votes(capsules.pose), activation, pose=pose.astype(self.dtype)
        )
        return Capsules(routed.pose, routed.activation), routed.coupling

    def iterations(self, capsules: Capsules) -> Routed:
        """What each of the `R` iterations of the routing comes to, arrays `[batch, R, ...]`."""
        pose, activation = in_a_list(capsules)
        votes = self.votes(capsules.pose)
        return routed_iterations(self.routing, votes, activation, pose=pose.astype(self.dtype))

    def _coordinates(self) -> jax.Array:
        """What is added to the votes, `[1, height, width, 1, 1, D]`."""
        height, width, _, dim = self.input_shape
        side = math.isqrt(dim)
        dtype = accumulation_dtype(self.dtype)
        if self.coordinates_of == "centre":
            within, of_row, of_column = 0.5, side - 1, 2 * side - 1
        else:
            within, of_row, of_column = 0.0, 0, 1
        row = (jnp.arange(height, dtype=dtype) + within) / height
        column = (jnp.arange(width, dtype=dtype) + within) / width
        added = jnp.zeros((height, width, dim), dtype)
        added = added.at[..., of_row].set(row[:, None]).at[..., of_column].set(column[None, :])
        return added[None, :, :, None, None]
