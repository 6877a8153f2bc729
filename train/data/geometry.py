"""Moving, warping and cutting images."""

from collections.abc import Sequence
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates

ArrayT = TypeVar("ArrayT", jax.Array, np.ndarray)


def moved(image: jax.Array, by: jax.Array, most: int) -> jax.Array:
    """Moves an image [height, width, channels] by whole pixels, zeros coming in.

    `by`, integers [2], is how far down and to the right, each from -most to most; `most` is static.
    """
    padded = jnp.pad(image, ((most, most), (most, most), (0, 0)))
    start = (most - by[0], most - by[1], jnp.zeros((), by.dtype))
    return jax.lax.dynamic_slice(padded, start, image.shape)


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
    """Cuts the square in the middle, no longer than they are, out of images [..., h, w, channels].

    It is [..., side, side, channels], in the dtype of the images.
    """
    top, left = ((size - side) // 2 for size in images.shape[-3:-1])
    return images[..., top : top + side, left : left + side, :]
