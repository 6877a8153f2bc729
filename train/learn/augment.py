"""Varying training images on the device, as their settings say.

Everything here takes a step's random `key`, the same on every device, and of b examples their
`positions` in the global batch, int32 [b]. The randomness of an example comes from its position: it
is the same however the batch is split over devices. A batch keeps its dtypes, and what becomes of
an image becomes of its parts.

Reference:
    S. Sabour, N. Frosst, G. E. Hinton, "Dynamic Routing Between Capsules", 2017, arXiv:1710.09829,
    section 5 (shifts of up to 2 pixels on MNIST) and section 7 (24x24 of CIFAR-10, 32x32 of
    smallNORB); G. E. Hinton, S. Sabour, N. Frosst, "Matrix capsules with EM routing", ICLR 2018, on
    its experiments (brightness and contrast).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from train.config.settings import DataConfig
from train.data import Batch, moved, warp

_FOR_THE_NETWORK, _FOR_VIEWS, _FOR_SHAPES = 2**31 - 1, 2**31 - 2, 2**31 - 3
"""Numbers beyond all positions in a batch."""


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """Random keys [b] of examples, for what a network drops out; not those of shifts."""
    return _of_examples(jax.random.fold_in(key, _FOR_THE_NETWORK), positions)


def _of_examples(key: jax.Array, positions: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def _changed(
    change: Callable[[jax.Array, jax.Array], jax.Array],
    key: jax.Array,
    batch: Batch,
    positions: jax.Array,
) -> Batch:
    """Changes each image of a batch, and its parts alike, with a random key of its own."""
    keys, of_images = _of_examples(key, positions), jax.vmap(change)
    of_parts = jax.vmap(of_images, (None, 1), 1)
    parts = None if batch.parts is None else of_parts(keys, batch.parts)
    return batch._replace(images=of_images(keys, batch.images), parts=parts)


def shift_examples(
    key: jax.Array, batch: Batch, positions: jax.Array, settings: DataConfig
) -> Batch:
    """Shifts each image of any dtype by itself, zeros coming in.

    The shifts along both axes are uniform on -max_shift, ..., max_shift pixels; where that is 0,
    this is the batch itself.
    """
    most = settings.max_shift
    if most == 0:
        return batch

    def shift(key: jax.Array, image: jax.Array) -> jax.Array:
        return moved(image, jax.random.randint(key, (2,), -most, most + 1), most)

    return _changed(shift, key, batch, positions)


def reshape_examples(
    key: jax.Array, batch: Batch, positions: jax.Array, settings: DataConfig
) -> Batch:
    """Flips, turns, scales and covers each image uint8 [height, width, channels] by itself.

    First, half of the images are flipped from left to right, if `flip`. Then an image is turned
    around its centre by up to `max_rotation` degrees either way, and enlarged by a factor from
    1 - max_scaling to 1 + max_scaling, both uniform; what comes in from outside is 0. Last, a
    rectangle is made 0: its height and width are the same share of the image's, uniform up to
    `max_erased`, and every place is as likely (Zhong et al. 2017, arXiv:1708.04896, has more sizes
    and shapes). With all of these at their defaults this is the batch itself.
    """
    flip, most_erased = settings.flip, settings.max_erased
    most_turned, most_scaled = settings.max_rotation, settings.max_scaling
    if not (flip or most_turned or most_scaled or most_erased):
        return batch

    def change(key: jax.Array, image: jax.Array) -> jax.Array:
        of_flip, of_turn, of_cover = jax.random.split(key, 3)
        if flip:
            image = jnp.where(jax.random.bernoulli(of_flip), image[:, ::-1], image)
        if most_turned or most_scaled:
            turn, growth = jax.random.uniform(of_turn, (2,), jnp.float32, -1, 1)
            angle = jnp.deg2rad(most_turned) * turn
            c, s = jnp.cos(angle), jnp.sin(angle)
            back = jnp.stack([jnp.stack([c, s]), jnp.stack([-s, c])]) / (1 + most_scaled * growth)
            turned = warp(image.astype(jnp.float32), back, jnp.zeros(2), image.shape[:2])
            image = jnp.rint(turned).astype(image.dtype)
        if most_erased:
            share, *place = jax.random.uniform(of_cover, (3,), jnp.float32)
            share = most_erased * share
            # A pixel is covered if its middle is: the first share of a side, and the last.
            middles = ((jnp.arange(n) + 0.5) / n for n in image.shape[:2])
            firsts = [start * (1 - share) for start in place]
            rows, columns = (
                (middle >= first) & (middle < first + share)
                for middle, first in zip(middles, firsts, strict=True)
            )
            image = jnp.where(rows[:, None, None] & columns[None, :, None], 0, image)
        return image.astype(batch.images.dtype)

    return _changed(change, jax.random.fold_in(key, _FOR_SHAPES), batch, positions)


def vary_batch(key: jax.Array, batch: Batch, positions: jax.Array, settings: DataConfig) -> Batch:
    """Crops each floating image [height, width, channels] and varies its light by itself.

    A crop is a square with the side `crop`, each place of it as likely as any other, or the whole
    image if that is None. In it, each channel's distances from its mean grow by the same random
    factor, uniform on 1 - max_contrast to 1 + max_contrast; then the same random number is added to
    all pixels, uniform on -max_brightness to max_brightness. Nothing is clipped.
    """
    crop = settings.crop
    brightness, contrast = settings.max_brightness, settings.max_contrast

    def vary(key: jax.Array, image: jax.Array) -> jax.Array:
        of_place, of_light = jax.random.split(key)
        if crop is not None:
            height, width, channels = image.shape
            places = jnp.asarray((height - crop + 1, width - crop + 1), jnp.int32)
            top, left = jax.random.randint(of_place, (2,), 0, places)
            image = jax.lax.dynamic_slice(image, (top, left, 0), (crop, crop, channels))
        if brightness or contrast:
            added, factor = jax.random.uniform(of_light, (2,), image.dtype, -1, 1)
            mean = jnp.mean(image, axis=(0, 1), keepdims=True)
            image = mean + (1 + contrast * factor) * (image - mean) + brightness * added
        return image

    return _changed(vary, jax.random.fold_in(key, _FOR_VIEWS), batch, positions)
