"""Random shifts, on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.data import Batch, centre_crop, shift, shift_batch, shift_examples, vary_batch
from train.data.augment import random_crop, vary_light
from train.system.errors import UserError

KEY = jax.random.key(0)
DTYPES = pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])


def shifted(image: np.ndarray, down: int, right: int) -> np.ndarray:
    """The slow and obvious shift."""
    result = np.zeros_like(image)
    height, width, _ = image.shape
    for y in range(height):
        for x in range(width):
            if 0 <= y - down < height and 0 <= x - right < width:
                result[y, x] = image[y - down, x - right]
    return result


@DTYPES
def test_a_shift_is_one_of_those_allowed_and_all_of_them_occur(dtype):
    image = np.arange(1, 61).reshape(5, 4, 3).astype(dtype)
    allowed = {
        shifted(image, down, right).tobytes(): (down, right)
        for down in range(-2, 3)
        for right in range(-2, 3)
    }
    keys = jax.random.split(KEY, 400)
    results = jax.jit(jax.vmap(lambda key: shift(key, jnp.asarray(image), 2)))(keys)
    assert results.dtype == image.dtype
    seen = {allowed[np.asarray(result).tobytes()] for result in results}
    assert len(seen) == 25


def test_shifts_are_uniform():
    image = jnp.zeros((9, 9, 1), jnp.uint8).at[4, 4, 0].set(1)
    images = jnp.broadcast_to(image, (5000, 9, 9, 1))
    counts = shift_batch(KEY, images, jnp.arange(5000), 1).sum(0, dtype=jnp.int32)[3:6, 3:6, 0]
    assert int(counts.sum()) == 5000
    # Nine cells of 556 expected, standard deviation 22: five of them either way.
    np.testing.assert_allclose(np.asarray(counts), 5000 / 9, atol=111)


@pytest.mark.parametrize("parts", [2, 3, 6, 12])
def test_the_split_of_the_batch_does_not_matter(parts):
    images = jax.random.randint(KEY, (12, 6, 5, 1), 0, 256).astype(jnp.uint8)
    positions = jnp.arange(12, dtype=jnp.int32)
    whole = shift_batch(KEY, images, positions, 2)
    pieces = [
        shift_batch(KEY, some, where, 2)
        for some, where in zip(jnp.split(images, parts), jnp.split(positions, parts), strict=True)
    ]
    np.testing.assert_array_equal(whole, jnp.concatenate(pieces))
    assert (whole != images).any()


def test_examples_and_keys_move_on_their_own():
    images = jnp.broadcast_to(jnp.arange(36, dtype=jnp.uint8).reshape(6, 6, 1), (20, 6, 6, 1))
    positions = jnp.arange(20)
    one = np.asarray(shift_batch(KEY, images, positions, 2))
    other = np.asarray(shift_batch(jax.random.key(1), images, positions, 2))
    assert len({image.tobytes() for image in one}) > 5
    assert (one != other).any()


@DTYPES
def test_no_shift_returns_the_images_untouched(dtype):
    images = jnp.arange(24).reshape(2, 3, 4, 1).astype(dtype)
    assert shift(KEY, images[0], 0).dtype == images.dtype
    np.testing.assert_array_equal(shift_batch(KEY, images, jnp.arange(2), 0), images)


def test_a_negative_shift():
    with pytest.raises(UserError, match="largest shift is -1"):
        shift(KEY, jnp.zeros((3, 3, 1)), -1)


@DTYPES
def test_a_crop_is_one_of_those_there_are_and_all_of_them_occur(dtype):
    image = np.arange(60).reshape(5, 4, 3).astype(dtype)
    places = {
        image[top : top + 3, left : left + 3].tobytes() for top in range(3) for left in range(2)
    }
    keys = jax.random.split(KEY, 200)
    results = jax.jit(jax.vmap(lambda key: random_crop(key, jnp.asarray(image), 3)))(keys)
    assert results.dtype == image.dtype
    assert results.shape == (200, 3, 3, 3)
    assert {np.asarray(result).tobytes() for result in results} == places


def test_the_places_of_crops_are_uniform():
    image = jnp.arange(9, dtype=jnp.float32).reshape(3, 3, 1)
    keys = jax.random.split(KEY, 4500)
    counts = np.bincount(jax.vmap(lambda key: random_crop(key, image, 1))(keys).ravel().astype(int))
    # Nine places of 500 expected, standard deviation 21: five of them either way.
    np.testing.assert_allclose(counts, [500] * 9, atol=105)


@pytest.mark.parametrize(
    ("side", "rows", "columns"), [(2, [1, 2], [2, 3]), (5, range(5), range(1, 6))]
)
def test_the_crop_of_the_middle(side, rows, columns):
    images = np.arange(2 * 5 * 7).reshape(2, 5, 7, 1)
    np.testing.assert_array_equal(centre_crop(images, side), images[:, rows][:, :, columns])


def test_light_is_what_the_text_says():
    """One factor, from the mean of each channel, and one number for the whole image."""
    image = np.random.default_rng(0).random((6, 5, 2), np.float32)
    mean = image.mean((0, 1))
    keys = jax.random.split(KEY, 2000)
    results = np.asarray(jax.vmap(lambda key: vary_light(key, jnp.asarray(image), 0.3, 0.5))(keys))
    added = (results.mean((1, 2)) - mean)[:, 0]
    factors = results.std((1, 2))[:, 1] / image.std((0, 1))[1]
    rebuilt = factors[:, None, None, None] * (image - mean) + mean + added[:, None, None, None]
    np.testing.assert_allclose(results, rebuilt, rtol=1e-5, atol=1e-5)
    for values, low, high in ((added, -0.3, 0.3), (factors, 0.5, 1.5)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        # The mean of 2,000 uniform numbers: five standard deviations either way.
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * 2000)
    assert abs(np.corrcoef(added, factors)[0, 1]) < 5 / np.sqrt(2000)


def test_views_do_not_depend_on_the_split_of_the_batch():
    images = jax.random.uniform(KEY, (8, 7, 6, 2))
    positions = jnp.arange(8, dtype=jnp.int32)

    @jax.jit
    def vary(some, where):
        return vary_batch(KEY, some, where, crop=4, max_brightness=0.5, max_contrast=0.5)

    whole = vary(images, positions)
    pieces = map(vary, jnp.split(images, 4), jnp.split(positions, 4))
    np.testing.assert_array_equal(whole, jnp.concatenate(list(pieces)))
    assert whole.shape == (8, 4, 4, 2)
    assert (
        len({image.tobytes() for image in np.asarray(vary(images[:1].repeat(8, 0), positions))})
        == 8
    )


def test_nothing_to_vary_returns_the_images_untouched():
    images = jax.random.uniform(KEY, (3, 4, 5, 1))
    np.testing.assert_array_equal(vary_batch(KEY, images, jnp.arange(3)), images)


def test_the_parts_of_an_image_are_shifted_with_it():
    parts = jnp.asarray(np.random.default_rng(0).integers(0, 100, (9, 2, 6, 5, 1)), jnp.uint8)
    batch = Batch(parts.sum(axis=1, dtype=jnp.uint8), jnp.zeros((9, 2), jnp.int32), parts)
    positions = jnp.arange(9)
    shifted = shift_examples(KEY, batch, positions, 2)
    np.testing.assert_array_equal(shifted.images, shift_batch(KEY, batch.images, positions, 2))
    np.testing.assert_array_equal(shifted.parts.sum(axis=1, dtype=np.uint8), shifted.images)
    assert (shifted.images != batch.images).any()
    without = shift_examples(KEY, batch._replace(parts=None), positions, 2)
    assert without.parts is None
    np.testing.assert_array_equal(without.images, shifted.images)
