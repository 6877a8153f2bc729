"""What is minimised, and what is counted, for one batch of one device."""

from collections.abc import Mapping
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from capsjax import CapsNetOutput
from train.config import FitConfig
from train.metrics import Mean, masked_mean


@dataclass(frozen=True)
class Objective:
    """The losses of a configuration; the defaults are the paper's.

    Sabour, Frosst and Hinton 2017, arXiv:1710.09829, sections 3 and 4.1. The attributes are the
    fields of `FitConfig` of the same names.
    """

    input_mean: float = 0.0
    input_std: float = 1.0
    margin_of: str = "length"
    margin_power: int = 2
    margin_weight: float = 1.0
    reconstruction_weight: float = 0.0005
    mask_in_training: str = "label"
    mask_in_test: str = "longest"

    @classmethod
    def of(cls, config: FitConfig) -> "Objective":
        """The objective that a configuration describes."""
        return cls(**{name: getattr(config, name) for name in cls.__dataclass_fields__})

    def normalise(self, images: jax.Array, dtype: jnp.dtype) -> jax.Array:
        """Pixels as the network sees them: uint8 0 to 255 -> `dtype`, 0 to 1 by default."""
        unit = images.astype(dtype) / 255
        if self.input_mean == 0 and self.input_std == 1:
            return unit
        return (unit - self.input_mean) / self.input_std

    def apply(
        self, model: nnx.Module, images: jax.Array, labels: jax.Array, *, training: bool
    ) -> CapsNetOutput:
        """Runs the model, its decoder shown the capsule of the label or the longest one."""
        mask = self.mask_in_training if training else self.mask_in_test
        return model(images, labels if mask == "label" else None)

    def losses(
        self, output: CapsNetOutput, images: jax.Array, labels: jax.Array
    ) -> dict[str, jax.Array]:
        """The terms of the loss and their sum, each `[batch]`.

        Args:
            output: what the model returned for the images.
            images: `[batch, height, width, channels]`, normalised.
            labels: integers `[batch]`.

        Returns:
            `loss`, `margin_loss` and, for a model with a decoder, `reconstruction_loss`; the last
            two without their weights.
        """
        seen = output.lengths if self.margin_of == "length" else jax.nn.softmax(output.lengths)
        targets = jax.nn.one_hot(labels, seen.shape[-1], dtype=seen.dtype)
        margin = capsjax.margin_loss(seen, targets, power=self.margin_power)
        loss = margin if self.margin_weight == 1 else self.margin_weight * margin
        if output.reconstruction is None:
            return {"loss": loss, "margin_loss": margin}
        reconstruction = capsjax.reconstruction_loss(output.reconstruction, images)
        return {
            "loss": loss + self.reconstruction_weight * reconstruction,
            "margin_loss": margin,
            "reconstruction_loss": reconstruction,
        }


def measure(
    output: CapsNetOutput,
    losses: Mapping[str, jax.Array],
    labels: jax.Array,
    mask: jax.Array | None = None,
) -> dict[str, Mean]:
    """Every loss term and the accuracy, as sums and counts over the examples of the mask."""
    correct = jnp.argmax(output.lengths, axis=-1) == labels
    per_example = {**losses, "accuracy": correct}
    return {name: masked_mean(values, mask) for name, values in per_example.items()}


DEAD = 0.01
"""Mean length over a batch below which a class capsule is called dead: it is there for no image."""


def class_lengths(output: CapsNetOutput) -> Mean:
    """The lengths of the class capsules, summed over a batch `[J]`, for `dead_share`."""
    count = jnp.asarray(len(output.lengths), jnp.int32)
    return Mean(jnp.sum(output.lengths, axis=0), count)


def dead_share(lengths: Mean) -> Mean:
    """The share of class capsules that are dead, of their lengths summed over a whole batch."""
    return masked_mean(lengths.total < DEAD * lengths.examples)


def coupling_entropy(output: CapsNetOutput, mask: jax.Array | None = None) -> Mean:
    """How undecided the routing is, summed over the examples of the mask.

    It is the mean over the input capsules of the entropy in nats of what each sends where: the
    logarithm of the number of classes if it sends to all alike, 0 if it sends all to one.
    """
    c = output.coupling
    entropy = -jnp.sum(jnp.where(c > 0, c * jnp.log(jnp.where(c > 0, c, 1)), 0), axis=-1)
    return masked_mean(jnp.mean(entropy, axis=-1), mask)
