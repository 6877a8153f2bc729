"""Affine transformations, against sums worked pixel by pixel."""

import jax.numpy as jnp
import numpy as np

from tests.tolerance import assert_close
from train.data import warp


def test_each_pixel_comes_from_where_the_map_says():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(5, 7, 2)).astype(np.float32)
    matrix, offset = rng.normal(size=(2, 2)).astype(np.float32), np.float32([0.3, -1.2])
    size = (6, 9)
    warped = warp(jnp.asarray(image), jnp.asarray(matrix), jnp.asarray(offset), size)
    expected = np.zeros((*size, 2))
    for row, column in np.ndindex(size):
        at = matrix.astype(float) @ [row - 2.5, column - 4.0] + offset + [2, 3]
        for y, x in np.ndindex(5, 7):
            weight = max(0, 1 - abs(at[0] - y)) * max(0, 1 - abs(at[1] - x))
            expected[row, column] += weight * image[y, x]
    assert_close(warped, expected.astype(np.float32), reduction_length=64)


def test_the_identity_puts_an_image_into_the_middle_of_a_larger_one():
    image = jnp.arange(1.0, 10.0).reshape(3, 3, 1)
    larger = warp(image, jnp.eye(2), jnp.zeros(2), (7, 5))
    np.testing.assert_array_equal(larger[2:5, 1:4], image)
    assert float(larger.sum()) == float(image.sum())
