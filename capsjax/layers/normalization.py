"""Batch normalisation, wherever the examples of a batch are, and that of capsules."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax._checks import Fraction, PositiveInt, PositiveNumber, checked
from capsjax.capsules import Capsules, accumulation_dtype


class BatchNorm(nnx.Module):
    """Batch normalisation (Ioffe and Szegedy 2015, arXiv:1502.03167) over all axes but the last.

    `y = scale * (x - mean) / sqrt(var + epsilon) + bias`. After `train()` mean and variance are
    those of the batch, and after `eval()` the moving averages that were made of them meanwhile; a
    new layer is in training. It differs from `flax.nnx.BatchNorm` in its statistics: a feature that
    is constant over the batch has exactly that mean and a variance of exactly zero, where a rounded
    mean would be blown up to a value of its own by the division; and averages are kept in the dtype
    in which they are computed, also in float64. The average is of the variance by which a batch of
    `n` values is divided, where PyTorch and Keras keep `n / (n - 1)` times as much. The constants
    are those of Keras.

    Args:
        features: size of the last axis.
        momentum: share that the moving averages keep in a step.
        epsilon: added to the variance.
        affine: whether there are scale and bias, or a scale of one and a bias of zero.
        batch_axis: name of the mapped axis over which a batch is spread, whose examples then have
            their statistics in common; None where a batch is in one piece.
        dtype, param_dtype, rngs: see `capsjax.layers`; the initial values are ones and zeros and
            draw none.

    Raises:
        ValueError: a value is out of its range.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> layer = capsjax.layers.BatchNorm(2, rngs=nnx.Rngs(0))
        >>> layer(jnp.array([[1.0, 5.0], [3.0, 5.0]])).round(2)
        Array([[-1.,  0.],
               [ 1.,  0.]], dtype=float32)
    """

    @checked
    def __init__(
        self,
        features: PositiveInt,
        *,
        momentum: Fraction = 0.99,
        epsilon: PositiveNumber = 1e-3,
        affine: bool = True,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.momentum, self.epsilon = momentum, epsilon
        self.batch_axis = batch_axis
        self.dtype = dtype
        self.use_running_average = False  # the name that `train()` and `eval()` look for
        self.scale = nnx.Param(jnp.ones(features, param_dtype)) if affine else nnx.data(None)
        self.bias = nnx.Param(jnp.zeros(features, param_dtype)) if affine else nnx.data(None)
        self.mean = nnx.BatchStat(jnp.zeros(features, accumulation_dtype(dtype)))
        self.var = nnx.BatchStat(jnp.ones(features, accumulation_dtype(dtype)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """`[batch, ..., features]` -> the same shape in the layer's dtype.

        Raises:
            ValueError: there are not as many features, or in training no examples.
        """
        if x.shape[-1:] != self.mean.shape:
            (features,) = self.mean.shape
            raise ValueError(f"x must be of shape [batch, ..., {features}], not {list(x.shape)}")
        wide = accumulation_dtype(self.dtype)
        x = x.astype(wide)
        if self.use_running_average:
            mean, var = self.mean[...], self.var[...]
        else:
            mean, var = self._of_batch(x)
            for average, value in ((self.mean, mean), (self.var, var)):
                kept = self.momentum * average[...] + (1 - self.momentum) * value
                average[...] = lax.stop_gradient(kept)
        gain = lax.rsqrt(var + self.epsilon)
        if self.scale is not None:
            gain = gain * self.scale[...].astype(wide)
        y = (x - _along(x, mean)) * _along(x, gain)
        if self.bias is not None:
            y = y + _along(x, self.bias[...].astype(wide))
        return y.astype(self.dtype)

    def _of_batch(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Mean and variance `[features]` of the whole batch; a ValueError if nothing is in it."""
        if 0 in x.shape:
            raise ValueError(
                f"a batch of shape {list(x.shape)} has no mean to be normalised by: give some "
                "examples, or call eval() before, which normalises by what was learned"
            )
        # What rounding has left out of the mean is the mean of what is left over. Equal values
        # differ from it by a few units in the last place, exactly, so that nothing is left of them.
        (rounded,) = lax.stop_gradient(self._means(x))
        rest = x - _along(x, rounded)
        correction, square = self._means(rest, jnp.square(rest))
        var = jnp.maximum(square - jnp.square(correction), 0)
        return rounded + correction, var

    def _means(self, *arrays: jax.Array) -> tuple[jax.Array, ...]:
        """Of each array over all its axes but the last, and over the whole batch."""
        means = tuple(_mean(x) for x in arrays)
        return means if self.batch_axis is None else lax.pmean(means, self.batch_axis)


class CapsuleNorm(nnx.Module):
    """Batch normalisation of capsules: of their poses, and of activations before a sigmoid.

    Hahn, Pyeon and Kim 2019 normalise each element of the poses of a type, Ribeiro, Leontidis and
    Kollias 2020 all elements of a type together; both so normalise what activations are the
    sigmoids of. The constants are those of PyTorch.

    Args:
        types: number of capsule types, or of capsules where there is no grid.
        dim: dimension of a pose.
        over: what has a mean and a deviation of its own, each `"element"` of the poses of a type,
            or each `"type"`.
        affine: whether a learned scale and bias follow.
        logits: whether activations come as what they are the sigmoids of, and are normalised, too;
            if not, they are left as they are.
        batch_axis: see `BatchNorm`.
        dtype, param_dtype, rngs: see `capsjax.layers`.

    Raises:
        ValueError: a size is not a positive integer, or another argument has a wrong value.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> layer = capsjax.layers.CapsuleNorm(6, 8, over="type", rngs=nnx.Rngs(0))
        >>> layer(capsjax.Capsules(jnp.ones((2, 6, 8)), jnp.ones((2, 6)))).pose.shape
        (2, 6, 8)
    """

    @checked
    def __init__(
        self,
        types: PositiveInt,
        dim: PositiveInt,
        *,
        over: Literal["element", "type"],
        affine: bool = True,
        logits: bool = False,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.over, self.capsules = over, (types, dim)
        options: dict[str, Any] = {
            "momentum": 0.9,
            "epsilon": 1e-5,
            "affine": affine,
            "batch_axis": batch_axis,
            "param_dtype": param_dtype,
            "rngs": rngs,
        }
        self.pose = BatchNorm(types if over == "type" else types * dim, dtype=dtype, **options)
        self.activation = nnx.data(
            BatchNorm(types, dtype=accumulation_dtype(dtype), **options) if logits else None
        )

    def __call__(self, capsules: Capsules) -> Capsules:
        """Poses `[batch, ..., types, dim]` and activations `[batch, ..., types]`, normalised.

        Raises:
            ValueError: they are of other shapes, or in training of no examples.
        """
        pose, activation = capsules
        if pose.shape[-2:] != self.capsules:
            types, dim = self.capsules
            raise ValueError(
                f"poses must be of shape [batch, ..., {types}, {dim}], not {list(pose.shape)}"
            )
        if self.activation is not None and activation.shape != pose.shape[:-1]:
            raise ValueError(
                f"activations must be of shape {list(pose.shape[:-1])}, not "
                f"{list(activation.shape)}"
            )
        if self.over == "type":
            normal = self.pose(pose.swapaxes(-1, -2)).swapaxes(-1, -2)
        else:
            normal = self.pose(lax.collapse(pose, pose.ndim - 2)).reshape(pose.shape)
        if self.activation is not None:
            activation = nnx.sigmoid(self.activation(activation))
        return Capsules(normal, activation)


def _mean(x: jax.Array) -> jax.Array:
    """Over all axes but the last, one after the other: short sums, which round less than one long.

    A feature that a rectifier leaves in few places has a long sum of the same small number, each
    addition of which would be rounded alike.
    """
    while x.ndim > 1:
        x = jnp.mean(x, axis=-2)
    return x


def _along(x: jax.Array, feature: jax.Array) -> jax.Array:
    """`[features]` with as many axes as `x`."""
    return feature.reshape((1,) * (x.ndim - 1) + feature.shape)
