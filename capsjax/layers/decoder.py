"""From capsules back to the image."""

import itertools
import math
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import accumulation_dtype

COMBINATIONS = ("concat", "sum")


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
        dtype: dtype of the computation.
        param_dtype: dtype of the parameters.
        rngs: source of the initial values.

    Raises:
        ValueError: a size is not a positive integer, or `combine` is neither of the two.
    """

    def __init__(
        self,
        num_capsules: int,
        dim: int,
        image_shape: Sequence[int],
        *,
        hidden: Sequence[int],
        combine: Literal["concat", "sum"] = "concat",
        hidden_init: nnx.Initializer = nnx.initializers.glorot_uniform(),  # noqa: B008 (a function)
        dtype: DTypeLike = jnp.float32,
        param_dtype: DTypeLike = jnp.float32,
        rngs: nnx.Rngs,
    ) -> None:
        num_capsules = _checks.positive_integer("num_capsules", num_capsules)
        dim = _checks.positive_integer("dim", dim)
        hidden = _checks.positive_integers("hidden", hidden)
        self.image_shape = _checks.image_shape(image_shape)
        self.combine = _checks.one_of("combine", combine, COMBINATIONS)
        inputs = num_capsules * dim if combine == "concat" else dim
        sizes = (inputs, *hidden, math.prod(self.image_shape))
        inits = [hidden_init] * len(hidden) + [nnx.initializers.glorot_uniform()]
        self.layers = nnx.List(
            nnx.Linear(
                n_in,
                n_out,
                kernel_init=init,
                dtype=dtype,
                param_dtype=param_dtype,
                rngs=rngs,
            )
            for (n_in, n_out), init in zip(itertools.pairwise(sizes), inits, strict=True)
        )

    def __call__(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        """Decodes the capsules that the mask keeps.

        Args:
            pose: `[batch, J, D]`.
            mask: `[batch, J]`, 1 for the capsules to decode and 0 for the others.

        Returns:
            Images `[batch, height, width, channels]` with values from 0 to 1, in float32 at least.
        """
        x = pose * mask[..., None].astype(pose.dtype)
        x = jnp.sum(x, axis=1) if self.combine == "sum" else x.reshape(x.shape[0], -1)
        for layer in self.layers[:-1]:
            x = nnx.relu(layer(x))
        x = self.layers[-1](x)
        x = nnx.sigmoid(x.astype(accumulation_dtype(x.dtype)))
        return x.reshape(x.shape[0], *self.image_shape)
