"""Transformed digits: their ranges, and that the images are what was drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerance import assert_close
from train.data import Dataset, Split
from train.data.made.affnist_generated import (
    Transformation,
    TransformedSplit,
    _translation,
    draw,
    make,
)

DRAWN = 20_000
translate = jax.jit(_translation, static_argnums=2)
PINNED = [5.757, 24.676, 44.912, 6.05, 24.272, 41.594]


@pytest.fixture(scope="module")
def drawn() -> Transformation:
    keys = jax.random.split(jax.random.key(0), DRAWN)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))


def require_uniform(values: np.ndarray, low: float, high: float) -> None:
    assert values.min() >= low
    assert values.max() <= high
    quantiles = np.quantile(values, np.linspace(0, 1, 11))
    assert np.abs(quantiles - np.linspace(low, high, 11)).max() < 0.015 * (high - low)


def test_ranges_of_rotation_shear_and_scale(drawn):
    require_uniform(np.rad2deg(drawn.rotation), -20, 20)
    require_uniform(drawn.shear, -0.2, 0.2)
    for axis in range(2):
        require_uniform(drawn.scale[:, axis], 0.8, 1.2)
        require_uniform(drawn.translation[:, axis], 0, 1)


def test_each_number_is_drawn_by_itself(drawn):
    numbers = np.stack([drawn.rotation, drawn.shear, *drawn.scale.T, *drawn.translation.T])
    assert np.abs(np.corrcoef(numbers) - np.eye(6)).max() < 0.03


def transformation(rotation=0.0, shear=0.0, scale=(1.0, 1.0), share=(0.5, 0.5)) -> Transformation:
    return Transformation(*map(np.float32, (rotation, shear, scale, share)))


def test_the_matrix_turns_shears_and_scales(drawn):
    matrix = jax.jit(lambda drawn: drawn.matrix)
    for given, start, end in (
        (transformation(rotation=np.pi / 2), [1, 0], [0, 1]),
        (transformation(shear=0.2), [5, 0], [5, 1]),
        (transformation(scale=(0.8, 1.2)), [10, 10], [8, 12]),
    ):
        assert_close(np.asarray(matrix(given)) @ np.float32(start), np.float32(end))
    some = jax.tree.map(lambda values: values[:100], drawn)
    there_and_back = jax.jit(jax.vmap(lambda t: t.inverse @ t.matrix))(some)
    identity = np.tile(np.eye(2, dtype=np.float32), (100, 1, 1))
    assert_close(there_and_back, identity, reduction_length=2)


def box(height: int, width: int) -> np.ndarray:
    """Ink of that size in the middle of 28x28."""
    image = np.zeros((28, 28, 1), np.float32)
    top, left = (28 - height) // 2, (28 - width) // 2
    image[top : top + height, left : left + width] = 255
    return image


def test_translations_go_to_8_pixels_or_to_the_edge():
    def require(image, size, share, expected):
        moved = translate(transformation(share=share), image, (size, size))
        assert_close(np.asarray(moved) + 1, np.float32(expected) + 1, reduction_length=16)

    for share, sign in ((0.0, -1), (1.0, 1)):
        require(box(4, 10), 40, (share, share), [8 * sign, 8 * sign])
        # Half of 26 pixels is 12.5 from the centre, the edge 19.5, a pixel of interpolation 1.2.
        require(box(26, 10), 40, (share, share), [5.8 * sign, 8 * sign])
    require(box(28, 28), 20, (0.0, 1.0), [0, 0])  # too large
    require(box(0, 0), 40, (1.0, 1.0), [8, 8])  # no ink


@pytest.fixture
def digits() -> Dataset:
    """Images with a round spot left above the middle, whose centre can be measured."""
    rows, columns = np.mgrid[:28, :28]
    spot = 255 * np.exp(-((rows - 10.0) ** 2 + (columns - 12.0) ** 2) / 8)
    images = np.where(spot > 3, spot, 0).astype(np.uint8)[None, ..., None].repeat(50, axis=0)
    split = Split(images, np.arange(50, dtype=np.int32) % 10)
    return Dataset("mnist", split, split, tuple("0123456789"))


def test_the_images_are_transformed_as_was_drawn(digits):
    test = make(digits).test
    batch = test.gather(np.arange(60))
    assert batch.images.shape == (60, 40, 40, 1)
    np.testing.assert_array_equal(batch.labels, np.arange(60) % 10)
    ink = batch.images[..., 0].astype(float)
    assert not ink[:, [0, -1]].any()
    assert not ink[:, :, [0, -1]].any()
    pixels = digits.test.images[0].astype(np.float32)

    @jax.jit
    @jax.vmap
    def expected(number):
        seed = jax.random.key(test.seed, impl="threefry2x32")
        drawn = draw(jax.random.fold_in(jax.random.fold_in(seed, number % 50), number // 50))
        moved = drawn.matrix @ jnp.float32([-3.5, -1.5]) + _translation(drawn, pixels, (40, 40))
        return moved, jnp.prod(drawn.scale)

    grid = np.mgrid[:40, :40] - 19.5
    for image, moved, growth in zip(ink, *map(np.asarray, expected(np.arange(60))), strict=True):
        centre = (grid * image).sum(axis=(1, 2)) / image.sum()
        # Pixels are rounded, and ink lies between them.
        assert np.abs(centre - moved).max() < 0.1
        assert abs(image.sum() / pixels.sum() / growth - 1) < 0.03  # with both scales


def test_it_is_no_affnist_and_learns_from_digits_that_are_only_moved(digits):
    made = make(digits)
    assert (made.name, len(made.test), made.test.block) == ("affnist-generated", 32 * 50, 50)
    assert len(made.limited().test) == 50
    np.testing.assert_array_equal(made.train.images[:, 6:34, 6:34], digits.train.images)


def test_images_never_change():
    """Pinned, but for single pixels that another machine may round otherwise."""
    images = (np.arange(3 * 9 * 9) % 251).astype(np.uint8).reshape(3, 9, 9, 1)
    split = TransformedSplit(Split(images, np.arange(3, dtype=np.int32)), versions=2, seed=0)
    means = split.gather(np.arange(6)).images.mean(axis=(1, 2, 3))
    assert np.abs(means - PINNED).max() < 0.01
