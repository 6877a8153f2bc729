"""Changing images on the device: at random, the same for an example wherever it is computed.

Reference:
    S. Sabour, N. Frosst, G. E. Hinton, "Dynamic Routing Between Capsules", 2017, arXiv:1710.09829,
    section 5 (shifts of up to 2 pixels on MNIST) and section 7 (24x24 of CIFAR-10, 32x32 of
    smallNORB); G. E. Hinton, S. Sabour, N. Frosst, "Matrix capsules with EM routing", ICLR 2018, on
    its experiments (brightness and contrast).
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

from train.data.dataset import Batch

ArrayT = TypeVar("ArrayT", jax.Array, np.ndarray)

_FOR_THE_NETWORK, _FOR_VIEWS, _FOR_SHAPES = 2**31 - 1, 2**31 - 2, 2**31 - 3
"""Numbers beyond all positions in a batch."""


def moved(image: jax.Array, by: jax.Array, most: int) -> jax.Array:
    """Moves an image by whole pixels, zeros coming in.

    Args:
        image: [height, width, channels], any dtype.
        by: integers [2], pixels down and to the right, each from -most to most.
        most: static.

    Returns:
        The shape and dtype of `image`.
    """
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)))
    start = (most - by[0], most - by[1], jnp.zeros((), by.dtype))
    return jax.lax.dynamic_slice(padded, start, image.shape)


def example_keys(key: jax.Array, positions: jax.Array) -> jax.Array:
    """Derives random keys of the examples of a batch, for what a network drops out.

    They are not those of shifts.

    Args:
        key: the step's random key, the same on every device.
        positions: int32 [b], the positions of these examples in the global batch.

    Returns:
        Keys [b].
    """
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


def shift_examples(key: jax.Array, batch: Batch, positions: jax.Array, max_shift: int) -> Batch:
    """Shifts each image of a batch, and its parts with it, by itself, zeros coming in.

    The randomness of an example comes from its position in the global batch, so the result does
    not depend on how the batch is split over devices.

    Args:
        key: the step's random key, the same on every device.
        batch: b examples, images of any dtype.
        positions: int32 [b], their positions in the global batch.
        max_shift: the shifts along both axes are uniform on -max_shift, ..., max_shift pixels; 0
            returns the images as they are. Static.

    Returns:
        The shapes and dtypes of `batch`.
    """
    if max_shift == 0:
        return batch

    def shift(key: jax.Array, image: jax.Array) -> jax.Array:
        by = jax.random.randint(key, (2,), -max_shift, max_shift + 1)
        return moved(image, by, max_shift)

    return _changed(shift, key, batch, positions)


def reshape_examples(
    key: jax.Array,
    batch: Batch,
    positions: jax.Array,
    *,
    flip: bool = False,
    max_rotation: float = 0.0,
    max_scaling: float = 0.0,
    max_erased: float = 0.0,
) -> Batch:
    """Flips, turns, scales and covers each image of a batch, and its parts alike, by itself.

    First half of the images are flipped from left to right. Then an image is turned around its
    centre by an angle, and enlarged by a factor, both uniform; what comes in from outside is 0.
    Last, a rectangle is made 0: its height and width are the same uniform share of the image's, and
    every place is as likely (Zhong et al. 2017, arXiv:1708.04896, has more sizes and shapes).

    Args:
        key: as of `shift_examples`.
        batch: images uint8 [b, height, width, channels].
        positions: as of `shift_examples`.
        flip: whether images are flipped.
        max_rotation: the largest angle, in degrees, either way.
        max_scaling: the factor is from 1 - max_scaling to 1 + max_scaling; less than 1.
        max_erased: the largest share of the sides that is covered, from 0 to 1.

    Returns:
        The shapes and dtypes of `batch`; with every option at its default, the batch itself.
    """
    if not (flip or max_rotation or max_scaling or max_erased):
        return batch

    def change(key: jax.Array, image: jax.Array) -> jax.Array:
        of_flip, of_turn, of_cover = jax.random.split(key, 3)
        if flip:
            image = jnp.where(jax.random.bernoulli(of_flip), image[:, ::-1], image)
        if max_rotation or max_scaling:
            turn, growth = jax.random.uniform(of_turn, (2,), jnp.float32, -1, 1)
            angle = jnp.deg2rad(max_rotation) * turn
            c, s = jnp.cos(angle), jnp.sin(angle)
            back = jnp.stack([jnp.stack([c, s]), jnp.stack([-s, c])]) / (1 + max_scaling * growth)
            turned = warp(image.astype(jnp.float32), back, jnp.zeros(2), image.shape[:2])
            image = jnp.rint(turned).astype(image.dtype)
        if max_erased:
            share, *place = jax.random.uniform(of_cover, (3,), jnp.float32)
            share = max_erased * share
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


def warp(image: jax.Array, matrix: jax.Array, offset: jax.Array, size: Sequence[int]) -> jax.Array:
    """Transforms an image, with bilinear interpolation between pixels.

    What lies `d` from the centre of the result lies `matrix @ d + offset` from that of the image.

    Args:
        image: floating [height, width, channels].
        matrix: [2, 2], rows and columns in this order.
        offset: [2], in pixels.
        size: height and width of the result; static.

    Returns:
        [*size, channels], in the dtype of the image; what comes in from outside is 0.
    """
    inside = image.shape[:2]
    rows, columns = (jnp.arange(n, dtype=image.dtype) - (n - 1) / 2 for n in size)
    around = jnp.stack(jnp.meshgrid(rows, columns, indexing="ij"))
    centre = jnp.asarray([(n - 1) / 2 for n in inside], image.dtype)
    at = (
        jnp.einsum("ab,bhw->ahw", matrix, around, precision="highest")
        + (centre + offset)[:, None, None]
    )
    return jax.vmap(lambda plane: map_coordinates(plane, list(at), order=1), 2, 2)(image)


def centre_crop(images: ArrayT, side: int) -> ArrayT:
    """Cuts the square in the middle out of images.

    Args:
        images: [..., height, width, channels], any dtype.
        side: of the square, no longer than those of the images.

    Returns:
        [..., side, side, channels], the dtype of `images`.
    """
    top, left = ((size - side) // 2 for size in images.shape[-3:-1])
    return images[..., top : top + side, left : left + side, :]


def vary_batch(
    key: jax.Array,
    batch: Batch,
    positions: jax.Array,
    *,
    crop: int | None = None,
    max_brightness: float = 0.0,
    max_contrast: float = 0.0,
) -> Batch:
    """Crops each image of a batch, and its parts alike, and varies its light by itself.

    A crop is a square, each place of it as likely as any other. In it, each channel's distances
    from its mean grow by the same random factor, uniform on 1 - max_contrast to 1 + max_contrast;
    then the same random number is added to all pixels, uniform on -max_brightness to
    max_brightness. Nothing is clipped.

    Args:
        key: the step's random key, the same on every device.
        batch: images [b, height, width, channels], floating.
        positions: int32 [b], their positions in the global batch (see `shift_examples`).
        crop: side of the square, no longer than those of the images; None takes the whole image.
        max_brightness: in the units of the images.
        max_contrast: from 0 to 1; where both are 0, the light stays as it is.

    Returns:
        Images [b, height or crop, width or crop, channels], in the dtypes of `batch`.
    """

    def vary(key: jax.Array, image: jax.Array) -> jax.Array:
        of_place, of_light = jax.random.split(key)
        if crop is not None:
            height, width, channels = image.shape
            places = jnp.asarray((height - crop + 1, width - crop + 1), jnp.int32)
            top, left = jax.random.randint(of_place, (2,), 0, places)
            image = jax.lax.dynamic_slice(image, (top, left, 0), (crop, crop, channels))
        if max_brightness or max_contrast:
            added, factor = jax.random.uniform(of_light, (2,), image.dtype, -1, 1)
            mean = jnp.mean(image, axis=(0, 1), keepdims=True)
            image = mean + (1 + max_contrast * factor) * (image - mean) + max_brightness * added
        return image

    return _changed(vary, jax.random.fold_in(key, _FOR_VIEWS), batch, positions)
