"""Augmentation on the device, the same for an example wherever it is computed."""

import jax
import jax.numpy as jnp

from train.data.dataset import Batch
from train.errors import UserError

_FOR_THE_NETWORK = 2**31 - 1
"""Beyond all positions in a batch."""


def shift(key: jax.Array, image: jax.Array, max_shift: int) -> jax.Array:
    """Shifts one image by a random whole number of pixels on both axes, zeros coming in.

    Args:
        key: a random key.
        image: [height, width, channels], any dtype.
        max_shift: both shifts are uniform on -max_shift, ..., max_shift; 0 returns the image as it
            is. Static.

    Returns:
        The shape and dtype of `image`.

    Raises:
        UserError: if `max_shift` is negative.

    Reference:
        S. Sabour, N. Frosst, G. E. Hinton, "Dynamic Routing Between Capsules", 2017,
        arXiv:1710.09829, section 5 (shifts of up to 2 pixels on MNIST).
    """
    if max_shift < 0:
        raise UserError(f"the largest shift is {max_shift} pixels, but must be 0 or more.")
    if max_shift == 0:
        return image
    return moved(image, jax.random.randint(key, (2,), -max_shift, max_shift + 1), max_shift)


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
    """Random keys of the examples of a batch, for what a network drops out; not those of shifts.

    Args:
        key: the step's random key, the same on every device.
        positions: int32 [b], the positions of these examples in the global batch.

    Returns:
        Keys [b].
    """
    return _of_examples(jax.random.fold_in(key, _FOR_THE_NETWORK), positions)


def _of_examples(key: jax.Array, positions: jax.Array) -> jax.Array:
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, positions)


def shift_batch(
    key: jax.Array, images: jax.Array, positions: jax.Array, max_shift: int
) -> jax.Array:
    """Shifts each image of a batch by itself (see `shift`).

    The randomness of an example comes from its position in the global batch, so the result does
    not depend on how the batch is split over devices.

    Args:
        key: the step's random key, the same on every device.
        images: [b, height, width, channels], any dtype.
        positions: int32 [b], the positions of these examples in the global batch.
        max_shift: largest shift in pixels; 0 returns the images as they are. Static.

    Returns:
        The shape and dtype of `images`.

    Raises:
        UserError: if `max_shift` is negative.
    """
    keys = _of_examples(key, positions)
    return jax.vmap(shift, in_axes=(0, 0, None))(keys, images, max_shift)


def shift_examples(key: jax.Array, batch: Batch, positions: jax.Array, max_shift: int) -> Batch:
    """Shifts the images of a batch (see `shift_batch`), and their parts with them."""
    parts = batch.parts
    if parts is not None:
        parts = jax.vmap(shift_batch, in_axes=(None, 1, None, None), out_axes=1)(
            key, parts, positions, max_shift
        )
    return batch._replace(images=shift_batch(key, batch.images, positions, max_shift), parts=parts)
