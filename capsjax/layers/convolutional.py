"""Convolutional capsules: at every position of a grid the same layer of capsules."""

import math
from collections.abc import Callable
from typing import Any, Literal, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax._checks import PositiveInt, checked
from capsjax.capsules import Capsules, accumulation_dtype, in_a_list
from capsjax.layers.features import WindowConv
from capsjax.layers.primary import Grid, GridShape
from capsjax.layers.routed import RoutedLayer, Transform, kernel_shape, make_votes, sum_votes
from capsjax.ops._arrays import split
from capsjax.ops.patches import Padding, Windows
from capsjax.routing import AnyRouting, Competition, Routed, RoutingInputs, Sizes, sized
from capsjax.routing._base import needs_of
from capsjax.routing._batching import check_competition, over_positions

T = TypeVar("T")

Coordinates = Literal["centre", "corner"]


class ConvCaps(RoutedLayer):
    """Capsules that see those in a square window, the same layer at every position.

    Hinton, Sabour and Frosst 2018, section 4. A capsule below lies in several windows and votes for
    the capsules of each; its coupling coefficients are shared out over all of them, as in the
    paper, or in each window apart, as most public implementations have it.

    A call takes capsules of `input_shape` and returns those of `output_shape` and the coupling
    coefficients `[batch, P, Q, I, types]`, all in float32 at least. In a window, capsule `B t + b`
    of the `I` is the one of type `b` of `B` at the `t`th element, row by row.

    Args:
        input_shape: of the capsules below.
        types: number of capsule types.
        dim: dimension of their poses.
        kernel_size: side of a window.
        stride: between windows, in both directions.
        padding: `"VALID"`, `"SAME"`, or a pair (low, high) for each direction. What lies outside
            of the grid is a capsule with a pose of zero and an activation of zero.
        routing: maps the votes in one window of one example to this layer's capsules there; an
            object, or a name of `list_routings()`. An `UnsizedRouting` is built for the sizes of a
            window.
        competition: what a capsule's coupling coefficients are shared out over: the capsules at
            `"all"` positions that see it, or those of each `"patch"` for itself.
        transform: how a matrix makes a vote of a pose, see `make_votes`.
        kernel_init: initialiser of the matrices; if not given, a normal distribution of deviation
            `1 / sqrt(I)`, with `I` the capsules in a window.
        implementation: `"xla"` keeps all votes, for the gradient; `"recompute"` goes through the
            batch part by part, and makes the votes of a part again. Both compute the same numbers.
            If not given, votes are kept of small batches, see `capsjax/ops/parts.py`.
        dtype, param_dtype, rngs: see `capsjax.layers`.

    Raises:
        ValueError: the window is larger than the grid, a size is not a positive integer, or another
            argument has a wrong value.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> grid = capsjax.GridShape(5, 5, 4, 8)
        >>> below = capsjax.Capsules(jnp.ones((2, *grid)), jnp.ones((2, *grid[:3])))
        >>> routing = capsjax.routing.Dynamic()
        >>> layer = capsjax.ConvCaps(grid, 6, 8, kernel_size=3, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(below)
        >>> capsules.pose.shape, layer.output_shape
        ((2, 3, 3, 6, 8), GridShape(height=3, width=3, types=6, dim=8))
    """

    @checked
    def __init__(
        self,
        input_shape: Grid,
        types: PositiveInt,
        dim: PositiveInt,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: str | Padding = "VALID",
        routing: AnyRouting,
        competition: Competition = "all",
        transform: Transform = "linear",
        kernel_init: nnx.Initializer | None = None,
        implementation: Literal["xla", "recompute"] | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, in_types, in_dim = self.input_shape = input_shape
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
        self.implementation = implementation

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, height, width, B, K]` -> votes `[batch, P, Q, I, types, dim]`."""
        seen = self._in_windows(self._poses(pose))
        return make_votes(self.transform, self.kernel[...].astype(self.dtype), seen)

    def _inputs(
        self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None
    ) -> RoutingInputs:
        pose, activation = self._below(capsules, mask)
        pose = self._in_windows(pose)
        activation = self._in_windows(activation[..., None])[..., 0]
        made_of = self.transform, self.kernel[...].astype(self.dtype), pose
        votes = make_votes(*made_of)
        # Over all positions, equal logits are not equal shares.
        is_equal = self.competition == "patch" and "vote_sum" in needs_of(self.routing)
        total = sum_votes(*made_of) if is_equal else None
        if mask is not None:  # what lies outside of the grid takes part as ever
            mask = ~self._in_windows(~mask[..., None])[..., 0]
        return RoutingInputs(votes, activation, pose, mask=mask, key=key, vote_sum=total)

    def _map(
        self, function: Callable[..., T], inputs: RoutingInputs, *others: Any, **options: Any
    ) -> T:
        if self.competition == "patch":
            return super()._map(function, inputs, *others, **options)
        options["windows"] = self.windows
        return over_positions(function, self.routing, inputs, *others, **options)

    def _in_windows(self, grid: jax.Array) -> jax.Array:
        """What each window sees of `[batch, height, width, B, K]`: `[batch, P, Q, I, K]`."""
        return lax.collapse(self.windows.gather(grid), 3, 5)


class Conv3dCaps(RoutedLayer):
    """Capsules on a grid that the capsule types below vote for, each type as a whole.

    Rajasegaran et al. 2019, arXiv:1904.09546, section 3. A vote is a convolution over the poses of
    one type; the filters are the same for all types below, so it is a 3D convolution that goes over
    the types in steps of one. So there are few votes and few parameters. What is routed are not the
    capsules below but their types: each shares itself out over all capsules above, over all types
    and positions jointly. In `iterations`, all capsules above are in one axis.

    A call takes capsules of `input_shape` and returns those of `output_shape` and the coupling
    coefficients `[batch, B, P, Q, types]`, all in float32 at least. A type is there if one of its
    capsules is, by the mask `[batch, height, width, B]`; the mean of its activations is of those
    that are.

    Args:
        input_shape, types, dim, dtype, param_dtype, rngs: see `ConvCaps`.
        kernel_size, stride, padding: of the filters, see there.
        routing: maps the votes `[types below, P * Q * types, dim]` of one example to this layer's
            capsules, see `ConvCaps`. To a routing that asks for them,
            a type has the mean of its activations, and all its poses one after the other.
        kernel_init: initialiser of the filters.

    Raises:
        ValueError: the filters are larger than the grid, a size is not a positive integer, or
            another argument has a wrong value.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> grid = capsjax.GridShape(5, 5, 4, 8)
        >>> below = capsjax.Capsules(jnp.ones((2, *grid)), jnp.ones((2, *grid[:3])))
        >>> routing = capsjax.routing.Dynamic()
        >>> layer = capsjax.layers.Conv3dCaps(
        ...     grid, 6, 8, kernel_size=3, routing=routing, rngs=nnx.Rngs(0)
        ... )
        >>> capsules, coupling = layer(below)
        >>> capsules.pose.shape
        (2, 3, 3, 6, 8)
    """

    @checked
    def __init__(
        self,
        input_shape: Grid,
        types: PositiveInt,
        dim: PositiveInt,
        *,
        kernel_size: int,
        stride: int = 1,
        padding: str | Padding = "VALID",
        routing: AnyRouting,
        kernel_init: nnx.Initializer = nnx.initializers.he_normal(),  # noqa: B008 (a function)
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, in_types, in_dim = self.input_shape = input_shape
        windows = Windows.of((height, width), kernel_size, stride, padding)
        self.output_shape = GridShape(*windows.counts, types, dim)
        self.dtype = dtype
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.conv = WindowConv(
            windows, in_dim, types * dim, use_bias=False, kernel_init=kernel_init, **options
        )
        above = math.prod(self.output_shape[:3])
        sizes = Sizes(in_types, height * width * in_dim, above, dim)
        self.routing = sized(routing, sizes, param_dtype=param_dtype, rngs=rngs)

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, height, width, B, K]` -> votes `[batch, B, P * Q * types, dim]`."""
        by_type = jnp.moveaxis(self._poses(pose), 3, 1)
        maps = split(self.conv(lax.collapse(by_type, 0, 2)), 0, *by_type.shape[:2])
        return lax.collapse(split(maps, 4, *self.output_shape[2:]), 2, 5)

    def _routed(self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None) -> Routed:
        pose, activation, coupling = super()._routed(capsules, mask, key)
        *grid, _ = self.output_shape
        return Routed(split(pose, 1, *grid), split(activation, 1, *grid), split(coupling, 2, *grid))

    def _inputs(
        self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None
    ) -> RoutingInputs:
        """What is routed are the types below, whose poses are `[batch, B, H W K]`."""
        pose, activation = self._below(capsules, mask)
        if mask is None:
            activation = jnp.mean(activation, axis=(1, 2))
        else:
            count = jnp.sum(mask, axis=(1, 2), dtype=activation.dtype)
            activation = jnp.sum(activation, axis=(1, 2)) / jnp.maximum(count, 1)
            mask = jnp.any(mask, axis=(1, 2))
        flat = lax.collapse(jnp.moveaxis(pose, 3, 1), 2)
        return RoutingInputs(self.votes(pose), activation, flat, mask=mask, key=key)


class ClassCaps(RoutedLayer):
    """Class capsules above a grid: every capsule of a type has the same matrices.

    Hinton, Sabour and Frosst 2018, section 4. So that it matters where a capsule lies, its position
    is added to its votes ("coordinate addition"): the row and the column of the centre of its cell
    of the grid, from 0 to 1, to the first two elements of the right-hand column of the vote. The
    paper's is the centre of its receptive field, which padding and strides move a little. In a
    public re-implementation (yl-1993's) it is those of the upper left corner, added to the first
    two elements of the vote.

    A call takes capsules of `input_shape` and returns the class capsules, poses
    `[batch, classes, D]` and activations `[batch, classes]`, and the coupling coefficients
    `[batch, I, classes]`, all in float32 at least. Capsule `B p + b` of the `I` is the one of type
    `b` of `B` at position `p = y * width + x`.

    Args:
        input_shape, transform, dtype, param_dtype, rngs: see `ConvCaps`.
        num_classes: number of class capsules.
        dim: dimension of their poses.
        routing: maps all votes of one example to the class capsules, see `ConvCaps`.
        coordinates: whether positions are added; only with `transform="matrix"`.
        coordinates_of: what is added, those of the `"centre"`, as in the paper, or of the
            `"corner"`, where each goes as told above.
        kernel_init: initialiser of the matrices; if not given, a normal distribution of deviation
            `1 / sqrt(I)`, with `I` the capsules below.

    Raises:
        ValueError: a size is not a positive integer, or another argument has a wrong value.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> grid = capsjax.GridShape(5, 5, 4, 16)
        >>> below = capsjax.Capsules(jnp.ones((2, *grid)), jnp.ones((2, *grid[:3])))
        >>> routing = capsjax.routing.EM()
        >>> layer = capsjax.ClassCaps(grid, 10, 16, routing=routing, rngs=nnx.Rngs(0))
        >>> capsules, coupling = layer(below)
        >>> capsules.pose.shape, coupling.shape
        ((2, 10, 16), (2, 100, 10))
    """

    @checked
    def __init__(
        self,
        input_shape: Grid,
        num_classes: PositiveInt,
        dim: PositiveInt,
        *,
        routing: AnyRouting,
        coordinates: bool = True,
        coordinates_of: Coordinates = "centre",
        transform: Transform = "matrix",
        kernel_init: nnx.Initializer | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        height, width, in_types, in_dim = self.input_shape = input_shape
        self.coordinates, self.coordinates_of = coordinates, coordinates_of
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
        votes = make_votes(self.transform, kernel, self._poses(pose))
        if self.coordinates:
            votes = votes + self._coordinates().astype(self.dtype)
        return lax.collapse(votes, 1, 4)

    def _inputs(
        self, capsules: Capsules, mask: jax.Array | None, key: jax.Array | None
    ) -> RoutingInputs:
        below = self._below(capsules, mask)
        pose, activation = in_a_list(below)
        mask = None if mask is None else lax.collapse(mask, 1)
        return RoutingInputs(self.votes(below.pose), activation, pose, mask=mask, key=key)

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
