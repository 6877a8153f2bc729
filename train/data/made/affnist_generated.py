"""Affine transformations of MNIST's test digits in the manner of affNIST, under their own name.

affNIST itself is a set of files (`sources.affnist`); results on the two are not the same thing.
"""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from train.data.dataset import Batch, Dataset
from train.data.geometry import warp
from train.data.made.generated import GeneratedSplit
from train.data.sources import expanded_mnist

NAME = "affnist-generated"
VERSIONS = 32
"""Of each test digit, as many as in affNIST."""
SEED = 0

MAX_ROTATION = 20.0
"""Degrees, either way."""
MAX_SHEAR = 0.2
"""Columns a row, either way: the tangent of the angle."""
SCALES = (0.8, 1.2)
"""Of each axis by itself."""
MAX_TRANSLATION = 8.0
"""Pixels along each axis, either way, as long as the digit stays within the image."""


class Transformation(NamedTuple):
    """A turned, sheared, scaled and moved image.

    The translation is a share, from 0 to 1, of the way from the first to the last possible place.
    """

    rotation: jax.Array  # radians
    shear: jax.Array  # columns a row
    scale: jax.Array  # [2], of rows and columns
    translation: jax.Array  # [2], of rows and columns

    @property
    def matrix(self) -> jax.Array:
        """Takes a distance from the centre in the digit to that in the image, [2, 2].

        Rows and columns are scaled, then columns sheared, then all is turned.
        """
        cos, sin, shear = jnp.cos(self.rotation), jnp.sin(self.rotation), self.shear
        turned = [[cos - sin * shear, -sin], [sin + cos * shear, cos]]
        return jnp.asarray(turned) * self.scale[None, :]

    @property
    def inverse(self) -> jax.Array:
        """Takes it back, [2, 2]."""
        cos, sin, shear = jnp.cos(self.rotation), jnp.sin(self.rotation), self.shear
        back = [[cos, sin], [-sin - cos * shear, cos - sin * shear]]
        return jnp.asarray(back) / self.scale[:, None]


def draw(key: jax.Array) -> Transformation:
    """Draws a transformation, each of its numbers by itself and uniformly."""
    keys = jax.random.split(key, 4)

    def uniform(key: jax.Array, shape: tuple[int, ...], low: float, high: float) -> jax.Array:
        return jax.random.uniform(key, shape, jnp.float32, low, high)

    return Transformation(
        jnp.deg2rad(uniform(keys[0], (), -MAX_ROTATION, MAX_ROTATION)),
        uniform(keys[1], (), -MAX_SHEAR, MAX_SHEAR),
        uniform(keys[2], (2,), *SCALES),
        uniform(keys[3], (2,), 0.0, 1.0),
    )


class TransformedSplit(GeneratedSplit):
    """Digits that are turned, sheared, scaled and moved on a larger black background.

    Of affNIST (T. Tieleman, "The affNIST dataset for machine learning", 2013) there are 32 versions
    of each digit, in images of 40x40, and so there are here. The ranges of rotation, shear, scale
    and translation, how each is meant, and that none is likelier than another, are choices of this
    file: a digit of 20x20 could move by 10 pixels in such an image, here it moves by 8 at most. So
    these digits are not called affNIST, and no number published for it stands beside theirs.
    """

    def make(self, constants: Mapping[str, jax.Array], image: jax.Array, key: jax.Array) -> Batch:
        """Makes one transformed digit; see `GeneratedSplit.make`."""
        digit = self.source.select(constants, image[None])
        pixels = digit.images[0].astype(jnp.float32)
        height, width = (n + 2 * expanded_mnist.MARGIN for n in pixels.shape[:2])
        drawn = draw(key)
        by = _translation(drawn, pixels, (height, width))
        offset = -jnp.sum(drawn.inverse * by[None, :], axis=1)
        made = warp(pixels, drawn.inverse, offset, (height, width))
        return Batch(jnp.rint(made).astype(jnp.uint8), digit.labels[0])


def _translation(drawn: Transformation, pixels: jax.Array, size: tuple[int, int]) -> jax.Array:
    """The translation in pixels that leaves a digit's ink in the image; too much is centred."""
    rows, columns = (jnp.arange(n, dtype=jnp.float32) - (n - 1) / 2 for n in pixels.shape[:2])
    around = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"))
    at = jnp.einsum("ab,bhw->ahw", drawn.matrix, around, precision="highest")
    ink = jnp.any(pixels > 0, axis=-1)[None]
    first = jnp.min(at, axis=(1, 2), where=ink, initial=jnp.inf)
    last = jnp.max(at, axis=(1, 2), where=ink, initial=-jnp.inf)
    # Interpolation spreads ink by up to a pixel of the digit, which may be enlarged.
    edge = jnp.asarray(size, jnp.float32) / 2 - 0.5 - SCALES[1]
    lowest = jnp.clip(-edge - first, -MAX_TRANSLATION, MAX_TRANSLATION)
    highest = jnp.clip(edge - last, -MAX_TRANSLATION, MAX_TRANSLATION)
    between = lowest + drawn.translation * (highest - lowest)
    return jnp.where(lowest <= highest, between, (lowest + highest) / 2)


def make(digits: Dataset) -> Dataset:
    """Makes MNIST on a larger background to learn from, and its test digits transformed."""
    test = TransformedSplit(digits.test, versions=VERSIONS, seed=SEED)
    return expanded_mnist.with_test(digits, NAME, test)
