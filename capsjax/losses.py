"""Losses of capsule networks: a value for each example, of which the caller takes the mean."""

import jax
import jax.numpy as jnp

from capsjax._checks import PositiveInt, checked
from capsjax.capsules import accumulation_dtype


@checked
def margin_loss(
    lengths: jax.Array,
    targets: jax.Array,
    *,
    positive_margin: float = 0.9,
    negative_margin: float = 0.1,
    negative_weight: float = 0.5,
    power: PositiveInt = 2,
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
        power: of the hinges, 2 in the paper; one public implementation takes 1.

    Returns:
        `[...]`, computed and returned in `accumulation_dtype(lengths.dtype)`.

    Raises:
        ValueError: the shapes differ, or the power is not a positive integer.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> lengths, targets = jnp.array([[0.95, 0.3, 0.0]]), jnp.array([[1, 0, 0]])
        >>> f"{capsjax.margin_loss(lengths, targets)[0]:.3f}"
        '0.020'
    """
    _require_same_shape("lengths", lengths, "targets", targets)
    lengths = lengths.astype(accumulation_dtype(lengths.dtype))
    targets = targets.astype(lengths.dtype)
    present = jax.nn.relu(positive_margin - lengths) ** power
    absent = jax.nn.relu(lengths - negative_margin) ** power
    return jnp.sum(targets * present + negative_weight * (1 - targets) * absent, axis=-1)


def spread_loss(
    activations: jax.Array, targets: jax.Array, *, margin: float | jax.Array = 0.9
) -> jax.Array:
    """Spread loss: how far the activation of the target fails to exceed each other by a margin.

    `L = sum_{i != t} max(0, m - (a_t - a_i))^2` (Hinton, Sabour and Frosst 2018, "Matrix capsules
    with EM routing", equation 3). There the margin grows from 0.2 to 0.9 in the course of training.

    Args:
        activations: `[..., classes]`, any floating dtype.
        targets: `[..., classes]`, 1 for the one class that is present and 0 elsewhere.
        margin: m, a number or a scalar array.

    Returns:
        `[...]`, computed and returned in `accumulation_dtype(activations.dtype)`.

    Raises:
        ValueError: the shapes differ.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> activations, targets = jnp.array([[0.95, 0.3, 0.0]]), jnp.array([[1, 0, 0]])
        >>> f"{capsjax.spread_loss(activations, targets)[0]:.4f}"
        '0.0625'
    """
    _require_same_shape("activations", activations, "targets", targets)
    activations = activations.astype(accumulation_dtype(activations.dtype))
    targets = targets.astype(activations.dtype)
    of_target = jnp.sum(targets * activations, axis=-1, keepdims=True)
    short_of = jax.nn.relu(margin - (of_target - activations))
    return jnp.sum((1 - targets) * jnp.square(short_of), axis=-1)


def reconstruction_loss(reconstruction: jax.Array, images: jax.Array) -> jax.Array:
    """Summed squared error between images and their reconstructions.

    The paper adds it to the margin loss with a weight of 0.0005 (Sabour, Frosst and Hinton 2017,
    arXiv:1710.09829, section 4.1).

    Args:
        reconstruction: `[batch, height, width, channels]`, any floating dtype.
        images: the same shape, in the range of the reconstruction (0 to 1).

    Returns:
        `[batch]`, computed and returned in `accumulation_dtype(reconstruction.dtype)`.

    Raises:
        ValueError: the shapes differ.

    Examples:
        >>> import capsjax, jax.numpy as jnp
        >>> images = jnp.ones((2, 8, 8, 1))
        >>> capsjax.reconstruction_loss(images / 2, images)
        Array([16., 16.], dtype=float32)
    """
    _require_same_shape("reconstruction", reconstruction, "images", images)
    dtype = accumulation_dtype(reconstruction.dtype)
    error = reconstruction.astype(dtype) - images.astype(dtype)
    return jnp.sum(jnp.square(error), axis=tuple(range(1, error.ndim)))


def _require_same_shape(name: str, array: jax.Array, other_name: str, other: jax.Array) -> None:
    if array.shape != other.shape:
        raise ValueError(
            f"{name} and {other_name} must have the same shape, not {array.shape} and {other.shape}"
        )
