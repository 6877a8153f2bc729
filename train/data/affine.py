"""Affine transformations of images, on the device."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.scipy.ndimage import map_coordinates


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
