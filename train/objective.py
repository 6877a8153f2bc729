"""What is minimised, and what is counted, for one batch of one device."""

import jax
import jax.numpy as jnp

import capsjax
from capsjax import CapsNetOutput
from train.metrics import Mean, masked_mean


def per_example_losses(
    output: CapsNetOutput, images: jax.Array, labels: jax.Array, reconstruction_weight: float
) -> dict[str, jax.Array]:
    """The terms of the loss and their sum, each `[batch]`.

    Args:
        output: what the model returned for the images.
        images: `[batch, height, width, channels]`, 0 to 1.
        labels: integers `[batch]`.
        reconstruction_weight: factor on the summed squared error.

    Returns:
        `loss`, `margin_loss` and, for a model with a decoder, `reconstruction_loss` (unweighted).
    """
    targets = jax.nn.one_hot(labels, output.lengths.shape[-1], dtype=output.lengths.dtype)
    margin = capsjax.margin_loss(output.lengths, targets)
    if output.reconstruction is None:
        return {"loss": margin, "margin_loss": margin}
    reconstruction = capsjax.reconstruction_loss(output.reconstruction, images)
    return {
        "loss": margin + reconstruction_weight * reconstruction,
        "margin_loss": margin,
        "reconstruction_loss": reconstruction,
    }


def measure(
    output: CapsNetOutput,
    losses: dict[str, jax.Array],
    labels: jax.Array,
    mask: jax.Array | None = None,
) -> dict[str, Mean]:
    """Every loss term and the accuracy, as sums and counts over the examples of the mask."""
    correct = jnp.argmax(output.lengths, axis=-1) == labels
    return {name: masked_mean(value, mask) for name, value in (losses | {"accuracy": correct}).items()}
