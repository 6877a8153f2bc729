"""Properties of ink, and dimensions that go with them."""

import numpy as np

from tests.tolerance import assert_close
from train.study.claims.reconstruction import named_dimensions, properties


def line(slant=0, thickness=1, size=21):
    image = np.zeros((size, size, 1))
    for row in range(4, 17):
        centre = size // 2 + round(slant * (row - size // 2))
        image[row, centre : centre + thickness] = 1
    return image


def test_thickness_height_width_and_slant():
    thin, thick, leaning, back = properties(
        np.stack([line(), line(thickness=3), line(slant=0.5), line(slant=-0.5)])
    )
    ink, height, width, slant = range(4)
    assert thick[height] == thin[height] == leaning[height]
    assert thick[width] > thin[width]
    assert leaning[width] > thin[width]
    assert abs(thin[slant]) < 1e-9 < leaning[slant]
    rows = np.arange(-6, 7)
    assert_close(leaning[slant], np.sum(rows * np.round(rows / 2)) / np.sum(rows**2))
    assert_close(back[slant], -leaning[slant])
    blurred = properties(np.stack([line(0.5), line(0.5, thickness=2)]))
    assert blurred[1, ink] > blurred[0, ink]


def test_an_image_without_ink_has_zeros():
    np.testing.assert_array_equal(properties(np.zeros((1, 5, 5, 1))), np.zeros((1, 4)))


def test_a_dimension_that_goes_with_a_property_in_every_class():
    random = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], 200)
    measured = random.standard_normal((600, 4))
    poses = random.standard_normal((600, 5))
    assert named_dimensions(poses, measured, labels) == 0
    poses[:, 2] = -measured[:, 1]  # whatever the sign
    poses[:, 4] = np.where(labels == 0, measured[:, 0], poses[:, 4])  # in one class of three
    assert named_dimensions(poses, measured, labels) == 1
