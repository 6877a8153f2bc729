"""Capsule layers: modules that make capsules or votes, and hand the votes to a routing."""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax.capsules import Capsules, norm, squash
from capsjax.ops import conv_general_dilated
from capsjax.routing import Routing, route

_glorot_uniform = nnx.initializers.glorot_uniform()


def _window_counts(
    image_shape: Sequence[int], kernel_size: int, stride: int, what: str
) -> tuple[int, int]:
    """Output height and width of an unpadded convolution over `(height, width, ...)`."""
    height, width = ((size - kernel_size) // stride + 1 for size in image_shape[:2])
    if height < 1 or width < 1:
        raise ValueError(
            f"{what} with a {kernel_size}x{kernel_size} kernel does not fit on an input of "
            f"{image_shape[0]}x{image_shape[1]}: choose a smaller kernel"
        )
    return height, width


class ConvFeatures(nnx.Module):
    """An unpadded convolution and a rectifier: the local features that capsules are made of.

    Args:
      input_shape: `(height, width, channels)` of one image.
      features: number of filters.
      kernel_size: side of the square kernel.
      stride: in both directions.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.
      rngs: source of the initial values.

    Raises:
      ValueError: the kernel is larger than the image.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        features: int,
        *,
        kernel_size: int,
        stride: int = 1,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.output_shape = (
            *_window_counts(input_shape, kernel_size, stride, "the first convolution"),
            features,
        )
        self.conv = nnx.Conv(
            input_shape[-1],
            features,
            (kernel_size, kernel_size),
            strides=stride,
            padding="VALID",
            conv_general_dilated=conv_general_dilated,
            kernel_init=_glorot_uniform,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, images: jax.Array) -> jax.Array:
        """`[batch, height, width, channels]` -> `[batch, *output_shape]` in `dtype`."""
        return nnx.relu(self.conv(images))


class PrimaryCaps(nnx.Module):
    """The lowest capsules: a convolution whose channels are cut into capsules and squashed.

    Sabour, Frosst and Hinton 2017, arXiv:1710.09829, section 4. Channel `dim * t + k` of the
    convolution is component `k` of capsule type `t`; capsule `types * p + t` is the one of type `t`
    at position `p = y * width + x`.

    Args:
      input_shape: `(height, width, channels)` of the features below.
      types: number of capsule types, each with its own filters.
      dim: dimension of a pose.
      kernel_size: side of the square kernel.
      stride: in both directions.
      dtype: dtype of the computation; norms are computed in float32 at least.
      param_dtype: dtype of the parameters.
      rngs: source of the initial values.

    Raises:
      ValueError: the kernel is larger than the input.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        types: int,
        dim: int,
        *,
        kernel_size: int,
        stride: int = 1,
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        positions = _window_counts(input_shape, kernel_size, stride, "the capsule convolution")
        self.num_capsules = math.prod(positions) * types
        self.dim = dim
        self.conv = nnx.Conv(
            input_shape[-1],
            types * dim,
            (kernel_size, kernel_size),
            strides=stride,
            padding="VALID",
            conv_general_dilated=conv_general_dilated,
            kernel_init=_glorot_uniform,
            dtype=dtype,
            param_dtype=param_dtype,
            rngs=rngs,
        )

    def __call__(self, features: jax.Array) -> Capsules:
        """`[batch, height, width, channels]` -> `num_capsules` capsules an image.

        Returns:
          Poses `[batch, num_capsules, dim]` in the layer's dtype and activations
          `[batch, num_capsules]` in float32 at least.
        """
        s = self.conv(features)
        pose = squash(s.reshape(s.shape[0], self.num_capsules, self.dim))
        return Capsules(pose.astype(s.dtype), norm(pose))


class DenseCaps(nnx.Module):
    """Capsules that see every capsule below (DigitCaps): one transformation matrix for each pair.

    The votes are `u_hat_ij = W_ij u_i` (Sabour, Frosst and Hinton 2017, arXiv:1710.09829,
    equation 2); the routing turns them into the capsules above.

    Args:
      in_capsules: number of capsules below.
      in_dim: dimension of their poses.
      out_capsules: number of capsules of this layer, a class each in the last layer.
      out_dim: dimension of their poses.
      routing: maps the votes of one example to this layer's capsules.
      kernel_init: initialiser of the matrices.
      dtype: dtype of the votes; the routing's norms and softmax are in float32 at least.
      param_dtype: dtype of the parameters.
      rngs: source of the initial values.
    """

    def __init__(
        self,
        in_capsules: int,
        in_dim: int,
        out_capsules: int,
        out_dim: int,
        *,
        routing: Routing,
        kernel_init: nnx.Initializer = nnx.initializers.normal(0.1),
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.routing = routing
        self.dtype = dtype
        self.kernel = nnx.Param(
            kernel_init(rngs.params(), (in_capsules, out_capsules, out_dim, in_dim), param_dtype)
        )

    def votes(self, pose: jax.Array) -> jax.Array:
        """Poses `[batch, I, K]` -> votes `[batch, I, J, D]` in the layer's dtype."""
        return jnp.einsum(
            "ijdk,bik->bijd", self.kernel[...].astype(self.dtype), pose.astype(self.dtype)
        )

    def __call__(self, capsules: Capsules) -> tuple[Capsules, jax.Array]:
        """Routes the capsules below to this layer.

        Args:
          capsules: poses `[batch, I, K]` and activations `[batch, I]`.

        Returns:
          This layer's capsules, poses `[batch, J, D]` and activations `[batch, J]`, and the
          coupling coefficients `[batch, I, J]`; all in float32 at least.
        """
        routed = route(self.routing, self.votes(capsules.pose), capsules.activation)
        return Capsules(routed.pose, routed.activation), routed.coupling


class Decoder(nnx.Module):
    """Reconstructs an image from the capsule of one class (Sabour et al. 2017, section 4.1).

    The capsules of all other classes are set to zero, what is left is flattened class by class, and
    goes through dense layers: rectifiers in between and a sigmoid at the end.

    Args:
      num_capsules: number of class capsules.
      dim: dimension of their poses.
      image_shape: `(height, width, channels)` of the image.
      hidden: sizes of the hidden layers.
      dtype: dtype of the computation.
      param_dtype: dtype of the parameters.
      rngs: source of the initial values.
    """

    def __init__(
        self,
        num_capsules: int,
        dim: int,
        image_shape: Sequence[int],
        *,
        hidden: Sequence[int],
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        self.image_shape = tuple(image_shape)
        sizes = (num_capsules * dim, *hidden, math.prod(image_shape))
        self.layers = nnx.List(
            nnx.Linear(
                n_in,
                n_out,
                kernel_init=_glorot_uniform,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for n_in, n_out in zip(sizes, sizes[1:], strict=False)
        )

    def __call__(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        """Decodes the capsules that the mask keeps.

        Args:
          pose: `[batch, J, D]`.
          mask: `[batch, J]`, 1 for the capsules to decode and 0 for the others.

        Returns:
          Images `[batch, height, width, channels]` with values from 0 to 1, in float32 at least.
        """
        x = (pose * mask[..., None].astype(pose.dtype)).reshape(pose.shape[0], -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        x = self.layers[-1](x)
        x = nnx.sigmoid(x.astype(jnp.promote_types(x.dtype, jnp.float32)))
        return x.reshape(x.shape[0], *self.image_shape)
