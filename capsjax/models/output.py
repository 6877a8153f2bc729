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
        reconstruction: `[batch, height, width, channels]`, or `[batch, k, height, width, channels]`
            of `k` classes of each image (see `reconstruct`); None for a model without a decoder.
        logits: `[batch, classes]`, what a softmax makes class probabilities of, for models that
            have such scores; None for others.
    """

    capsules: Capsules | None
    lengths: jax.Array
    coupling: jax.Array | None
    reconstruction: jax.Array | None
    logits: jax.Array | None = None


Decode = Callable[[jax.Array, jax.Array], jax.Array]
"""Poses `[batch, classes, dim]` and a mask `[batch, classes]` -> images."""


def reconstruct(decoder: Decode, pose: jax.Array, classes: jax.Array) -> jax.Array:
    """What a decoder makes of the capsules of given classes, each by itself.

    Where an image shows several objects, one at a time is decoded (Sabour, Frosst and Hinton 2017,
    arXiv:1710.09829, section 6.2).

    Args:
        decoder: of a model.
        pose: poses of all class capsules `[batch, J, D]`.
        classes: integers `[batch]`, or `[batch, k]`.

    Returns:
        Images `[batch, height, width, channels]`, or `[batch, k, height, width, channels]`.
    """
    mask = jax.nn.one_hot(classes, pose.shape[1], dtype=pose.dtype)
    if classes.ndim == 1:
        return decoder(pose, mask)
    count = classes.shape[1]
    images = decoder(jnp.repeat(pose, count, axis=0), mask.reshape(-1, pose.shape[1]))
    return images.reshape(-1, count, *images.shape[1:])


def decoded(
    capsules: Capsules, coupling: jax.Array, labels: jax.Array | None, decoder: Decode | None
) -> CapsNetOutput:
    """The output of a network whose class capsules' lengths are the presence of the classes.

    Args:
        capsules: the class capsules.
        coupling: what they were made with.
        labels: `[batch]` or `[batch, k]`, the classes whose capsules the decoder sees, one at a
            time; without them it sees the longest one.
        decoder: None for none.
    """
    lengths = capsules.activation
    if decoder is None:
        return CapsNetOutput(capsules, lengths, coupling, None)
    shown = jnp.argmax(lengths, axis=-1) if labels is None else labels
    return CapsNetOutput(capsules, lengths, coupling, reconstruct(decoder, capsules.pose, shown))
