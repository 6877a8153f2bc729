"""Transformed digits: their ranges, and that the images are what was drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.data import Dataset, Split
from train.data.made.affnist_generated import (
    Transformation,
    TransformedSplit,
    draw,
    make,
    translation,
)

DRAWN = 20_000
PINNED = [5.757, 24.676, 44.912, 6.05, 24.272, 41.594]


@pytest.fixture(scope="module")
def drawn() -> Transformation:
    keys = jax.random.split(jax.random.key(0), DRAWN)
    return jax.tree.map(np.asarray, jax.jit(jax.vmap(draw))(keys))


def require_uniform(values: np.ndarray, low: float, high: float) -> None:
    assert values.min() >= low
    assert values.max() <= high
    quantiles = np.quantile(values, np.linspace(0, 1, 11))
    np.testing.assert_allclose(quantiles, np.linspace(low, high, 11), atol=0.015 * (high - low))


def test_ranges_of_rotation_shear_and_scale(drawn):
    require_uniform(np.rad2deg(drawn.rotation), -20, 20)
    require_uniform(drawn.shear, -0.2, 0.2)
    for axis in range(2):
        require_uniform(drawn.scale[:, axis], 0.8, 1.2)
        require_uniform(drawn.translation[:, axis], 0, 1)


def test_each_number_is_drawn_by_itself(drawn):
    numbers = np.stack([drawn.rotation, drawn.shear, *drawn.scale.T, *drawn.translation.T])
    np.testing.assert_allclose(np.corrcoef(numbers), np.eye(6), atol=0.03)


def transformation(rotation=0.0, shear=0.0, scale=(1.0, 1.0), share=(0.5, 0.5)) -> Transformation:
    return Transformation(
        jnp.float32(rotation), jnp.float32(shear), jnp.asarray(scale), jnp.asarray(share)
    )


def test_the_matrix_turns_shears_and_scales(drawn):
    np.testing.assert_allclose(
        transformation(rotation=np.pi / 2).matrix @ jnp.asarray([1.0, 0.0]), [0, 1], atol=1e-6
    )
    np.testing.assert_allclose(transformation(shear=0.2).matrix @ jnp.asarray([5.0, 0.0]), [5, 1])
    np.testing.assert_allclose(
        transformation(scale=(0.8, 1.2)).matrix @ jnp.asarray([10.0, 10.0]), [8, 12]
    )
    some = jax.tree.map(lambda values: jnp.asarray(values[:100]), drawn)
    there_and_back = jax.vmap(lambda t: t.inverse @ t.matrix)(some)
    np.testing.assert_allclose(there_and_back, np.tile(np.eye(2), (100, 1, 1)), atol=1e-6)


def box(height: int, width: int) -> jax.Array:
    """Ink of that size in the middle of 28x28."""
    image = np.zeros((28, 28, 1), np.float32)
    top, left = (28 - height) // 2, (28 - width) // 2
    image[top : top + height, left : left + width] = 255
    return jnp.asarray(image)


def test_translations_go_to_8_pixels_or_to_the_edge():
    for share, sign in ((0.0, -1), (1.0, 1)):
        free = translation(transformation(share=(share, share)), box(4, 10), (40, 40))
        np.testing.assert_allclose(free, [8 * sign, 8 * sign])
        # Half of 26 pixels is 12.5 from the centre, the edge 19.5, a pixel of interpolation 1.2.
        tight = translation(transformation(share=(share, share)), box(26, 10), (40, 40))
        np.testing.assert_allclose(tight, [5.8 * sign, 8 * sign], atol=1e-5)
    too_large = translation(transformation(share=(0.0, 1.0)), box(28, 28), (20, 20))
    np.testing.assert_allclose(too_large, [0, 0], atol=1e-5)
    nothing = translation(transformation(share=(1.0, 1.0)), jnp.zeros((28, 28, 1)), (40, 40))
    np.testing.assert_allclose(nothing, [8, 8])


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
    seed = jax.random.key(test.seed, impl="threefry2x32")
    grid = np.mgrid[:40, :40] - 19.5
    for number, image in enumerate(ink):
        key = jax.random.fold_in(jax.random.fold_in(seed, number % 50), number // 50)
        drawn = draw(key)
        pixels = jnp.asarray(digits.test.images[0], jnp.float32)
        moved = drawn.matrix @ jnp.asarray([-3.5, -1.5]) + translation(drawn, pixels, (40, 40))
        centre = (grid * image).sum(axis=(1, 2)) / image.sum()
        np.testing.assert_allclose(centre, moved, atol=0.1)
        # Ink grows with both scales.
        ratio = image.sum() / digits.test.images[0].sum()
        assert ratio == pytest.approx(float(jnp.prod(drawn.scale)), rel=0.03)


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
    np.testing.assert_allclose(means, PINNED, atol=0.01)
