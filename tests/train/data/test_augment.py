"""Random shifts, on the device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train.data import Batch, shift, shift_batch, shift_examples
from train.errors import UserError

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
