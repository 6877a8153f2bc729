"""From capsules back to the image."""

import itertools
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.typing import DTypeLike

from capsjax._checks import ImageShape, PositiveInt, PositiveInts, checked, sizes_by_layer
from capsjax.capsules import accumulation_dtype
from capsjax.layers.normalization import BatchNorm
from capsjax.ops import conv_general_dilated
from capsjax.ops._arrays import pad


class Decoder(nnx.Module):
    """Reconstructs an image from the capsule of one class (Sabour et al. 2017, section 4.1).

    The capsules of all other classes are set to zero, what is left is flattened class by class, and
    goes through dense layers: rectifiers in between and a sigmoid at the end. One public
    implementation sums over the classes instead, which leaves the pose of the one.

    Args:
        num_capsules: number of class capsules.
        dim: dimension of their poses.
        image_shape: `(height, width, channels)` of the image.
        hidden: sizes of the hidden layers.
        combine: the first layer sees the poses of all capsules one after the other, `"concat"`, or
            their `"sum"`.
        hidden_init: initialiser of the hidden layers' matrices; the last one has Glorot's.
        dtype, param_dtype, rngs: see `capsjax.layers`.

    Raises:
        ValueError: a size is not a positive integer, or `combine` is neither of the two.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> decoder = capsjax.Decoder(10, 16, (8, 8, 1), hidden=(32,), rngs=nnx.Rngs(0))
        >>> mask = jnp.eye(10)[:2]  # the first image shows class 0, the second class 1
        >>> decoder(jnp.ones((2, 10, 16)), mask).shape
        (2, 8, 8, 1)
    """

    @checked
    def __init__(
        self,
        num_capsules: PositiveInt,
        dim: PositiveInt,
        image_shape: ImageShape,
        *,
        hidden: PositiveInts,
        combine: Literal["concat", "sum"] = "concat",
        hidden_init: nnx.Initializer = nnx.initializers.glorot_uniform(),  # noqa: B008 (a function)
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.image_shape, self.combine = image_shape, combine
        self.capsules = (num_capsules if combine == "concat" else None, dim)
        inputs = num_capsules * dim if combine == "concat" else dim
        sizes = (inputs, *hidden, math.prod(self.image_shape))
        inits = [hidden_init] * len(hidden) + [nnx.initializers.glorot_uniform()]
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        self.layers = nnx.List(
            nnx.Linear(n_in, n_out, kernel_init=init, **options)
            for (n_in, n_out), init in zip(itertools.pairwise(sizes), inits, strict=True)
        )

    def __call__(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        """Decodes the capsules `[batch, J, D]` for which the mask `[batch, J]` is 1, not 0.

        Returns:
            Images `[batch, height, width, channels]` with values from 0 to 1, in float32 at least.

        Raises:
            ValueError: poses or mask are of other capsules.
        """
        x = _shown(pose, mask, self.capsules)
        x = jnp.sum(x, axis=1) if self.combine == "sum" else lax.collapse(x, 1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        x = self.layers[-1](x)
        x = nnx.sigmoid(x.astype(accumulation_dtype(x.dtype)))
        return x.reshape(x.shape[0], *self.image_shape)


class ConvDecoder(nnx.Module):
    """Reconstructs an image from the pose of one class, whichever class it is.

    The class-independent decoder of Rajasegaran et al. 2019, arXiv:1904.09546, section 4: it is not
    told the class, so an element of the pose means the same for all classes. As in the authors'
    code, a dense layer with a rectifier makes a small image, normalised over the batch; transposed
    convolutions, without anything in between, enlarge it; a rectifier comes last.

    Args:
        dim, image_shape, dtype, param_dtype, rngs: see `Decoder`.
        channels: of the small image.
        features: filters of each convolution but the last, which has as many as the image channels.
        strides: how many times as large each of them makes the image; what the last then has too
            much, on the right and below, is cut off.
        kernel_size: side of the filters.
        batch_axis: see `BatchNorm`.

    Raises:
        ValueError: there are not as many features as strides, or a size is not a positive integer.

    Examples:
        >>> from flax import nnx
        >>> import capsjax, jax.numpy as jnp
        >>> decoder = capsjax.layers.ConvDecoder(
        ...     16, (8, 8, 1), channels=4, features=(8, 4), strides=(2, 2), rngs=nnx.Rngs(0)
        ... )
        >>> decoder(jnp.ones((2, 10, 16)), jnp.eye(10)[:2]).shape
        (2, 8, 8, 1)
    """

    @checked
    def __init__(
        self,
        dim: PositiveInt,
        image_shape: ImageShape,
        *,
        channels: PositiveInt,
        features: PositiveInts,
        strides: PositiveInts,
        kernel_size: PositiveInt = 3,
        batch_axis: str | None = None,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        sizes_by_layer("convolution", features=features, strides=strides)
        scale = math.prod(strides)
        self.image_shape, self.dim = image_shape, dim
        height, width = (-(-side // scale) for side in image_shape[:2])
        self.small_shape = (height, width, channels)
        options: dict[str, Any] = {"dtype": dtype, "param_dtype": param_dtype, "rngs": rngs}
        glorot = nnx.initializers.glorot_uniform()
        self.dense = nnx.Linear(dim, height * width * channels, kernel_init=glorot, **options)
        self.norm = BatchNorm(channels, momentum=0.8, batch_axis=batch_axis, **options)
        self.strides = (*strides, 1)
        filters = (*features, image_shape[2])
        self.convolutions = nnx.List(
            nnx.Conv(
                n_in,
                n_out,
                (kernel_size, kernel_size),
                padding="VALID",
                conv_general_dilated=conv_general_dilated,
                kernel_init=glorot,
                **options,
            )
            for n_in, n_out in zip((channels, *features), filters, strict=True)
        )

    def __call__(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        """Decodes the capsule `[batch, J, D]` for which the mask `[batch, J]` is 1, not 0.

        Returns:
            Images `[batch, height, width, channels]`, of positive values, in float32 at least.

        Raises:
            ValueError: poses are of another dimension, or the mask of other capsules.
        """
        x = nnx.relu(self.dense(jnp.sum(_shown(pose, mask, (None, self.dim)), axis=1)))
        x = self.norm(x.reshape(x.shape[0], *self.small_shape))
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            x = convolution(_spread(x, stride, convolution.kernel_size[0]))
        height, width, _ = self.image_shape
        x = nnx.relu(x[:, :height, :width])
        return x.astype(accumulation_dtype(x.dtype))


def _shown(pose: jax.Array, mask: jax.Array, capsules: tuple[int | None, int]) -> jax.Array:
    """Poses, those of a mask of 0 set to zero, whatever they are.

    A ValueError if they are not as many, unless that is None, or not of that dimension.
    """
    count, dim = capsules
    if pose.ndim != 3 or pose.shape[2] != dim or count not in (None, pose.shape[1]):
        raise ValueError(
            f"poses must be of shape [batch, {count or 'J'}, {dim}], not {list(pose.shape)}"
        )
    if mask.shape != pose.shape[:2]:
        raise ValueError(
            f"a mask must have the shape of the capsules, {list(pose.shape[:2])}, not "
            f"{list(mask.shape)}"
        )
    mask = mask[..., None].astype(pose.dtype)
    return jnp.where(mask == 0, 0, pose) * mask


def _spread(x: jax.Array, stride: int, kernel_size: int) -> jax.Array:
    """Puts pixels `stride` apart, so that a convolution of them makes the image so much larger.

    It is then the transpose of a strided convolution that is padded as for `"SAME"`.
    """
    low = kernel_size - 1 - max(kernel_size - stride, 0) // 2
    spatial = (low, stride + kernel_size - 2 - low, stride - 1)
    return pad(x, {1: spatial, 2: spatial})
