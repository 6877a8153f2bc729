"""Losses of capsule networks: a value for each example, of which the caller takes the mean."""

import jax
import jax.numpy as jnp

from capsjax.capsules import accumulation_dtype


def margin_loss(
    lengths: jax.Array,
    targets: jax.Array,
    *,
    positive_margin: float = 0.9,
    negative_margin: float = 0.1,
    negative_weight: float = 0.5,
) -> jax.Array:
    """Margin loss on the lengths of the class capsules, summed over classes.

    `L_k = T_k max(0, m+ - |v_k|)^2 + lambda (1 - T_k) max(0, |v_k| - m-)^2`
    (Sabour, Frosst and Hinton 2017, arXiv:1710.09829, equation 4).

    Args:
      lengths: `[..., classes]`, any floating dtype.
      targets: `[..., classes]`, 1 where the class is present and 0 elsewhere; several classes may
        be present.
      positive_margin: m+, above which a present class costs nothing.
      negative_margin: m-, below which an absent class costs nothing.
      negative_weight: lambda, the weight of absent classes.

    Returns:
      `[...]`, computed and returned in `accumulation_dtype(lengths.dtype)`.
    """
    lengths = lengths.astype(accumulation_dtype(lengths.dtype))
    targets = targets.astype(lengths.dtype)
    present = jnp.square(jax.nn.relu(positive_margin - lengths))
    absent = jnp.square(jax.nn.relu(lengths - negative_margin))
    return jnp.sum(targets * present + negative_weight * (1 - targets) * absent, axis=-1)


def reconstruction_loss(reconstruction: jax.Array, images: jax.Array) -> jax.Array:
    """Summed squared error between images and their reconstructions.

    The paper adds it to the margin loss with a weight of 0.0005 (Sabour, Frosst and Hinton 2017,
    arXiv:1710.09829, section 4.1).

    Args:
      reconstruction: `[batch, height, width, channels]`, any floating dtype.
      images: the same shape, in the range of the reconstruction (0 to 1).

    Returns:
      `[batch]`, computed and returned in `accumulation_dtype(reconstruction.dtype)`.
    """
    dtype = accumulation_dtype(reconstruction.dtype)
    error = reconstruction.astype(dtype) - images.astype(dtype)
    return jnp.sum(jnp.square(error), axis=tuple(range(1, error.ndim)))
