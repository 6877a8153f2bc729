"""Augmentation on the device: what may happen to an image does, and all of it alike."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tolerance import assert_close
from train.config.settings import DataConfig
from train.data import Batch
from train.learn.augment import reshape_examples, shift_examples, vary_batch

KEY = jax.random.key(0)
RANDOM = np.random.default_rng(0)
DTYPES = pytest.mark.parametrize("dtype", [np.uint8, np.float32, jnp.bfloat16])


@functools.partial(jax.jit, static_argnums=3)
def shift_images(key, images, positions, max_shift):
    how = DataConfig(max_shift=max_shift)
    return shift_examples(key, Batch(images, None), positions, how).images


def views(image: np.ndarray, count: int, **how) -> np.ndarray:
    """What becomes of one image in so many places of a batch."""
    images, positions = np.broadcast_to(image, (count, *image.shape)), np.arange(count)
    vary = jax.jit(functools.partial(vary_batch, settings=DataConfig(**how)))
    return np.asarray(vary(KEY, Batch(images, None), positions).images)


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
    images = np.broadcast_to(image, (400, *image.shape))
    results = np.asarray(shift_images(KEY, images, np.arange(400), 2))
    assert results.dtype == image.dtype
    seen = {allowed[result.tobytes()] for result in results}
    assert len(seen) == 25


def test_shifts_are_uniform():
    image = np.zeros((9, 9, 1), np.uint8)
    image[4, 4] = 1
    images = np.broadcast_to(image, (5000, 9, 9, 1))
    shifted = np.asarray(shift_images(KEY, images, np.arange(5000), 1))
    counts = shifted.sum(0, dtype=int)[3:6, 3:6, 0]
    assert counts.sum() == 5000
    # Nine cells of 556 expected, standard deviation 22: five of them either way.
    assert np.abs(counts - 5000 / 9).max() < 111


def test_the_split_of_the_batch_does_not_matter():
    images = RANDOM.integers(0, 256, (12, 6, 5, 1), np.uint8)
    positions = np.arange(12, dtype=np.int32)
    whole = shift_images(KEY, images, positions, 2)
    for parts in (3, 12):
        split = zip(np.split(images, parts), np.split(positions, parts), strict=True)
        pieces = [shift_images(KEY, some, where, 2) for some, where in split]
        np.testing.assert_array_equal(whole, np.concatenate(pieces))
    assert (whole != images).any()


def test_examples_and_keys_move_on_their_own():
    images = np.broadcast_to(np.arange(36, dtype=np.uint8).reshape(6, 6, 1), (12, 6, 6, 1))
    positions = np.arange(12)
    one, other = (
        np.asarray(shift_images(jax.random.key(seed), images, positions, 2)) for seed in (0, 1)
    )
    assert len({image.tobytes() for image in one}) > 5
    assert (one != other).any()


@DTYPES
def test_no_shift_returns_the_images_untouched(dtype):
    images = np.arange(24).reshape(2, 3, 4, 1).astype(dtype)
    shifted = np.asarray(shift_images(KEY, images, np.arange(2), 0))
    np.testing.assert_array_equal(shifted, images, strict=True)


@DTYPES
def test_a_crop_is_one_of_those_there_are_and_all_of_them_occur(dtype):
    image = np.arange(60).reshape(5, 4, 3).astype(dtype)
    places = {
        image[top : top + 3, left : left + 3].tobytes() for top in range(3) for left in range(2)
    }
    results = views(image, 200, crop=3)
    assert results.dtype == image.dtype
    assert results.shape == (200, 3, 3, 3)
    assert {result.tobytes() for result in results} == places


def test_the_places_of_crops_are_uniform():
    image = np.arange(9, dtype=np.float32).reshape(3, 3, 1)
    places = views(image, 4500, crop=1)
    counts = np.bincount(places.ravel().astype(int))
    # Nine places of 500 expected, standard deviation 21: five of them either way.
    assert np.abs(counts - 500).max() <= 105


def test_light_is_what_the_text_says():
    """One factor, from the mean of each channel, and one number for the whole image."""
    image = RANDOM.random((6, 5, 2), np.float32)
    mean = image.mean((0, 1))
    results = views(image, 2000, max_brightness=0.3, max_contrast=0.5)
    added = (results.mean((1, 2)) - mean)[:, 0]
    factors = results.std((1, 2))[:, 1] / image.std((0, 1))[1]
    rebuilt = factors[:, None, None, None] * (image - mean) + mean + added[:, None, None, None]
    assert_close(results, rebuilt, reduction_length=image.size)
    for values, low, high in ((added, -0.3, 0.3), (factors, 0.5, 1.5)):
        assert low <= values.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < values.max() <= high
        # The mean of 2,000 uniform numbers: five standard deviations either way.
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * 2000)
    assert abs(np.corrcoef(added, factors)[0, 1]) < 5 / np.sqrt(2000)


def test_views_do_not_depend_on_the_split_of_the_batch():
    images = RANDOM.random((8, 7, 6, 2), np.float32)
    positions = np.arange(8, dtype=np.int32)

    @jax.jit
    def vary(some, where):
        how = DataConfig(crop=4, max_brightness=0.5, max_contrast=0.5)
        return vary_batch(KEY, Batch(some, None), where, how).images

    whole = np.asarray(vary(images, positions))
    pieces = map(vary, np.split(images, 4), np.split(positions, 4))
    np.testing.assert_array_equal(whole, np.concatenate(list(pieces)))
    assert whole.shape == (8, 4, 4, 2)
    views = np.asarray(vary(images[:1].repeat(8, 0), positions))
    assert len({view.tobytes() for view in views}) == 8


def reshaped(image: np.ndarray, count: int, **how) -> np.ndarray:
    """What becomes of one image in so many places of a batch."""
    images, positions = np.broadcast_to(image, (count, *image.shape)), np.arange(count)
    change = jax.jit(functools.partial(reshape_examples, settings=DataConfig(**how)))
    return np.asarray(change(KEY, Batch(images, None), positions).images)


def test_half_of_the_images_are_flipped_and_the_others_as_they_were():
    image = RANDOM.integers(0, 256, (5, 6, 2), np.uint8)
    results = reshaped(image, 400, flip=True)
    flipped = np.array([(result == image[:, ::-1]).all() for result in results])
    assert all((result == image).all() for result in results[~flipped])
    assert abs(flipped.mean() - 0.5) < 5 * 0.5 / np.sqrt(400)


def test_images_are_turned_and_scaled_as_far_as_they_may():
    """Of two planes that rise down and to the right, the slopes tell angle and factor."""
    rows, columns = np.mgrid[:31, :31] - 15.0
    image = np.stack([128 + 8 * rows, 128 + 8 * columns], axis=-1).clip(0, 255).astype(np.uint8)
    results = reshaped(image, 500, max_rotation=30, max_scaling=0.25).astype(float)
    middle = results[:, 10:21, 10:21]  # which nothing from outside reaches, nor what is clipped
    down = (middle[:, -1] - middle[:, 0]).mean(axis=1) / 10 / 8  # of each channel
    right = (middle[:, :, -1] - middle[:, :, 0]).mean(axis=1) / 10 / 8
    angles = np.rad2deg(np.arctan2(right[:, 0], down[:, 0]))
    factors = 1 / np.hypot(right[:, 0], down[:, 0])
    # A turn, and no shear or reflection: the second channel's slopes are the first's, turned.
    assert np.abs(right[:, 1] - down[:, 0]).max() < 0.02
    assert np.abs(down[:, 1] + right[:, 0]).max() < 0.02
    for values, low, high in ((angles, -30, 30), (factors, 0.75, 1.25)):
        slack = 0.03 * (high - low)  # of whole grey levels, and of 500 draws
        assert low - slack < values.min() < low + slack
        assert high - slack < values.max() < high + slack
        assert abs(values.mean() - (low + high) / 2) < 5 * (high - low) / np.sqrt(12 * 500)
    np.testing.assert_array_equal(
        reshaped(image[:, :, :1], 3, max_scaling=1e-9)[0], image[:, :, :1]
    )


def test_what_is_covered_is_a_rectangle_of_any_share_up_to_the_largest_anywhere():
    results = reshaped(np.full((20, 40, 1), 9, np.uint8), 500, max_erased=0.5)[..., 0]
    assert set(np.unique(results)) == {0, 9}
    rows, columns = (results == 0).any(axis=2), (results == 0).any(axis=1)
    np.testing.assert_array_equal(results == 0, rows[:, :, None] & columns[:, None, :])
    heights, widths = rows.sum(axis=1), columns.sum(axis=1)
    assert np.abs(2 * heights - widths).max() <= 2
    assert heights.max() == 10
    assert heights.min() <= 1
    assert rows.any(axis=0).all()
    assert columns.any(axis=0).all()


def test_parts_are_reshaped_with_their_image_wherever_the_batch_is_cut():
    parts = RANDOM.integers(0, 100, (8, 2, 9, 9, 1), np.uint8)
    batch = Batch(parts[:, 0], np.zeros((8, 2), np.int32), parts)
    positions = np.arange(8, dtype=np.int32)

    @jax.jit
    def change(batch, positions):
        how = DataConfig(flip=True, max_rotation=20, max_scaling=0.1, max_erased=0.4)
        return reshape_examples(KEY, batch, positions, how)

    whole = jax.tree.map(np.asarray, change(batch, positions))
    np.testing.assert_array_equal(whole.images, whole.parts[:, 0])
    assert whole.images.dtype == np.uint8
    halves = [
        change(jax.tree.map(lambda x, at=at: x[at], batch), positions[at])
        for at in (slice(0, 4), slice(4, 8))
    ]
    np.testing.assert_array_equal(whole.images, np.concatenate([half.images for half in halves]))
    assert reshape_examples(KEY, batch, positions, DataConfig()) is batch


def test_nothing_to_vary_returns_the_images_untouched():
    images = RANDOM.random((3, 4, 5, 1), np.float32)
    varied = jax.jit(vary_batch, static_argnums=3)(
        KEY, Batch(images, None), np.arange(3), DataConfig()
    )
    np.testing.assert_array_equal(varied.images, images)


def test_the_parts_of_an_image_are_shifted_with_it():
    parts = RANDOM.integers(0, 100, (9, 2, 6, 5, 1), np.uint8)
    batch = Batch(parts.sum(axis=1, dtype=np.uint8), np.zeros((9, 2), np.int32), parts)
    positions = np.arange(9)
    how = DataConfig(max_shift=2)
    shifted = jax.jit(shift_examples, static_argnums=3)(KEY, batch, positions, how)
    images, parts = np.asarray(shifted.images), np.asarray(shifted.parts)
    np.testing.assert_array_equal(images, shift_images(KEY, batch.images, positions, 2))
    np.testing.assert_array_equal(parts.sum(axis=1, dtype=np.uint8), images)
    np.testing.assert_array_equal(shifted.labels, batch.labels)
    assert (images != batch.images).any()
