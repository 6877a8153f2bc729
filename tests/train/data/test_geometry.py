"""Moving, warping and cutting images."""

import jax
import numpy as np
import pytest

from tests.tolerance import assert_close
from train.data import centre_crop, warp

warp_image = jax.jit(warp, static_argnums=3)


@pytest.mark.parametrize(
    ("side", "rows", "columns"), [(2, [1, 2], [2, 3]), (5, range(5), range(1, 6))]
)
def test_the_crop_of_the_middle(side, rows, columns):
    images = np.arange(2 * 5 * 7).reshape(2, 5, 7, 1)
    np.testing.assert_array_equal(centre_crop(images, side), images[:, rows][:, :, columns])


def test_each_pixel_comes_from_where_the_map_says():
    rng = np.random.default_rng(0)
    image = rng.uniform(size=(5, 7, 2)).astype(np.float32)
    matrix, offset = rng.normal(size=(2, 2)).astype(np.float32), np.float32([0.3, -1.2])
    size = (6, 9)
    warped = warp_image(image, matrix, offset, size)
    expected = np.zeros((*size, 2))
    for row, column in np.ndindex(size):
        at = matrix.astype(float) @ [row - 2.5, column - 4.0] + offset + [2, 3]
        for y, x in np.ndindex(5, 7):
            weight = max(0, 1 - abs(at[0] - y)) * max(0, 1 - abs(at[1] - x))
            expected[row, column] += weight * image[y, x]
    assert_close(warped, expected.astype(np.float32), reduction_length=64)


def test_the_identity_puts_an_image_into_the_middle_of_a_larger_one():
    image = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1)
    larger = np.asarray(
        warp_image(image, np.eye(2, dtype=np.float32), np.zeros(2, np.float32), (7, 5))
    )
    np.testing.assert_array_equal(larger[2:5, 1:4], image)
    assert larger.sum() == image.sum()
