"""Images that are turned, scaled, sheared, moved or noisy, by growing strength."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.data import warp


class Perturbation(NamedTuple):
    """A way to change images."""

    unit: str  # of the strength, for people
    strengths: tuple[float, ...]  # those that are tried, after `none`
    none: float = 0.0  # the strength that changes nothing


PERTURBATIONS = {
    "rotation": Perturbation("degrees", (15, 30, 45, 60)),
    "scaling": Perturbation("of the size", (0.9, 0.8, 0.7, 0.6), none=1.0),
    "shear": Perturbation("of the height", (0.15, 0.3, 0.45, 0.6)),
    "translation": Perturbation("of the width", (0.05, 0.1, 0.15, 0.2)),
    "noise": Perturbation("deviation", (0.1, 0.2, 0.3, 0.4)),
}
"""Half of the images are turned, sheared or moved the one way, half the other."""


def perturb(kind: str, strength: jax.Array | float, images: jax.Array) -> jax.Array:
    """Changes images `[batch, height, width, channels]`, values from 0 to 1, and so the result's.

    The kind is a name of `PERTURBATIONS`, the strength in its unit. What comes in from outside is
    0; noise is normal, drawn from a fixed seed.
    """
    if kind == "noise":
        noise = jax.random.normal(jax.random.key(0), images.shape, images.dtype)
        return jnp.clip(images + strength * noise, 0, 1)
    size = images.shape[1:3]
    sign = jnp.where(jnp.arange(len(images)) % 2 == 0, 1.0, -1.0).astype(images.dtype)
    matrices, offsets = jax.vmap(lambda s: _inverse(kind, strength, s, size))(sign)
    return jax.vmap(warp, in_axes=(0, 0, 0, None))(images, matrices, offsets, size)


def _inverse(
    kind: str, strength: jax.Array | float, sign: jax.Array, size: Sequence[int]
) -> tuple[jax.Array, jax.Array]:
    """Where in the original the pixels come from, around the centre: a matrix and an offset."""
    identity, zero = jnp.eye(2, dtype=sign.dtype), jnp.zeros(2, sign.dtype)
    if kind == "rotation":
        angle = sign * jnp.deg2rad(strength)
        c, s = jnp.cos(angle), jnp.sin(angle)
        return jnp.stack([jnp.stack([c, -s]), jnp.stack([s, c])]), zero
    if kind == "scaling":
        return identity / strength, zero
    if kind == "shear":
        return identity.at[1, 0].set(sign * strength), zero
    return identity, zero.at[1].set(sign * strength * size[1])
