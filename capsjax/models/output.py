"""What networks return, whatever they are made of."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from capsjax.capsules import Capsules


class CapsNetOutput(NamedTuple):
    """What a network returns for a batch of images.

    Attributes:
        capsules: the class capsules, poses `[batch, classes, dim]`, activations `[batch, classes]`;
            None for a network without capsules.
        lengths: `[batch, classes]`, the presence of each class, from 0 to 1; the largest is the
            prediction.
        coupling: `[batch, in_capsules, classes]`, the coupling coefficients of the last iteration;
            None for a network without capsules.
        reconstruction: `[batch, height, width, channels]`, or None for a model without a decoder.
        logits: `[batch, classes]`, what a softmax makes class probabilities of, for models that
            have such scores; None for others.
    """

    capsules: Capsules | None
    lengths: jax.Array
    coupling: jax.Array | None
    reconstruction: jax.Array | None
    logits: jax.Array | None = None


def decoded(
    capsules: Capsules,
    coupling: jax.Array,
    labels: jax.Array | None,
    decoder: Callable[[jax.Array, jax.Array], jax.Array] | None,
) -> CapsNetOutput:
    """The output of a network whose class capsules' lengths are the presence of the classes.

    Args:
        capsules: the class capsules.
        coupling: what they were made with.
        labels: `[batch]`, the classes whose capsules the decoder sees; without them it sees the
            longest one.
        decoder: poses `[batch, classes, dim]` and a mask `[batch, classes]` -> images; None for
            none.
    """
    lengths = capsules.activation
    if decoder is None:
        return CapsNetOutput(capsules, lengths, coupling, None)
    shown = jnp.argmax(lengths, axis=-1) if labels is None else labels
    mask = jax.nn.one_hot(shown, lengths.shape[-1], dtype=lengths.dtype)
    return CapsNetOutput(capsules, lengths, coupling, decoder(capsules.pose, mask))
