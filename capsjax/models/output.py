"""What networks return, whatever they are made of."""

from typing import NamedTuple

import jax

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
