"""The output of a network, and how a network of capsules comes to it."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.typing import DTypeLike

from capsjax import _checks
from capsjax.capsules import Capsules


class CapsNetOutput(NamedTuple):
    """The output of a network for a batch of images, in float32 at least.

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
    """Decodes the capsules of given classes, each by itself.

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


def reconstruct_shown(decoder: Decode, capsules: Capsules, labels: jax.Array | None) -> jax.Array:
    """`reconstruct` of the classes `labels`; without them, of the longest capsule of each image."""
    shown = jnp.argmax(capsules.activation, axis=-1) if labels is None else labels
    return reconstruct(decoder, capsules.pose, shown)


class CapsuleNetwork(nnx.Module):
    """A network from images to the capsules of the classes, and back if it has a decoder.

    Attributes:
        decoder: a `Decode`; None for none.
    """

    decoder: Any = None

    def encode(self, images: jax.Array) -> tuple[Capsules, jax.Array]:
        """Images `[batch, height, width, channels]` -> class capsules and their coupling."""
        raise NotImplementedError

    def logits(self, capsules: Capsules) -> jax.Array | None:
        """The logits `[batch, classes]` of the class capsules, if there are such."""
        return None

    def decode(self, pose: jax.Array, mask: jax.Array) -> jax.Array:
        """Poses `[batch, classes, dim]` and a mask `[batch, classes]` -> images."""
        return self.decoder(pose, mask)

    def __call__(self, images: jax.Array, labels: jax.Array | None = None) -> CapsNetOutput:
        """Runs the network on a batch of images.

        Args:
            images: `[batch, height, width, channels]`, values from 0 to 1 where they are to be
                reconstructed.
            labels: `[batch]` integers: the classes whose capsules the decoder sees, in training;
                or `[batch, k]`, for a reconstruction of each. Without them it sees the longest.

        Returns:
            Capsules, lengths, coupling, and reconstruction and logits if the network has such, in
            float32 at least.
        """
        capsules, coupling = self.encode(images)
        shown = None
        if self.decoder is not None:
            shown = reconstruct_shown(self.decode, capsules, labels)
        logits = self.logits(capsules)
        return CapsNetOutput(capsules, capsules.activation, coupling, shown, logits)


def layer_options(dtype: DTypeLike, param_dtype: DTypeLike, rngs: nnx.Rngs) -> dict[str, Any]:
    """The options of every layer of a network, by name; a ValueError if a dtype is no float."""
    return {
        "dtype": _checks.floating_dtype("dtype", dtype),
        "param_dtype": _checks.floating_dtype("param_dtype", param_dtype),
        "rngs": rngs,
    }
