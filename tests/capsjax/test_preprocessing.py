"""What becomes of pixels, and images brought to the size and colours of a network."""

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageOps

from capsjax.preprocessing import Preprocessing, fitted
from tests.tolerance import assert_close

RANDOM = np.random.default_rng(0)


def pixels(*shape):
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def test_integers_are_scaled_to_one_and_floats_are_there_already():
    images = pixels(2, 4, 5, 3)
    seen = Preprocessing(mean=0.5, std=0.25)(jnp.asarray(images), jnp.float32)
    assert_close(seen, (images / 255 - 0.5) / 0.25, dtype="float32", reduction_length=1)
    unit = jnp.asarray(images, jnp.float32) / 255
    np.testing.assert_array_equal(Preprocessing(0.5, 0.25)(unit, jnp.float32), seen)


def test_a_crop_is_the_middle_and_changes_the_shape_that_is_seen():
    images = jnp.asarray(pixels(2, 5, 8, 1))
    see = Preprocessing(crop=4)
    np.testing.assert_array_equal(see(images, jnp.float32), images[:, 0:4, 2:6] / 255)
    assert see.seen_shape((5, 8, 1)) == (4, 4, 1)
    with pytest.raises(ValueError, match="crop is 4, but the images are 3x8: choose 1 to 3"):
        see(jnp.ones((2, 3, 8, 1)), jnp.float32)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"std": 0}, "std must be a number of more than 0, not 0"),
        ({"mean": "dark"}, "mean must be a number, not 'dark'"),
        ({"mean": 0.5, "standardise": True}, "do not go with standardise=True"),
        ({"crop": 0}, "crop must be an integer of at least 1, not 0"),
    ],
)
def test_wrong_settings(fields, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**fields)


@pytest.mark.parametrize(
    ("size", "shape"),
    [
        ((28, 28), (8, 8, 1)),
        ((9, 9), (32, 32, 3)),
        ((40, 90), (20, 20, 1)),
        ((30, 33), (10, 20, 3)),
        ((1, 3), (8, 8, 1)),
        ((90, 20), (30, 30, 1)),
        ((55, 24), (18, 6, 3)),
        ((60, 40), (33, 22, 1)),
    ],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_array_comes_to_what_its_file_does(size, shape, channels):
    image = pixels(*size, channels)
    height, width, wanted = shape
    file = Image.fromarray(image[..., 0] if channels == 1 else image)
    file = file.convert("L" if wanted == 1 else "RGB")
    expected = ImageOps.pad(file, (width, height), Image.Resampling.LANCZOS, color=0)
    expected = np.asarray(expected).reshape(shape)
    np.testing.assert_array_equal(fitted(image[None], shape)[0], expected)
    # As floats nothing is rounded on the way: half a grey level after each of three steps.
    unit = fitted(image[None] / 255, shape)[0]
    inside = (expected > 0) & (expected < 255)
    assert np.abs(255 * unit - expected)[inside].max() < 2


def test_every_size_is_resized_as_in_a_file():
    for number in range(200):
        high, wide, height, width = np.random.default_rng(number).integers(7, 40, 4).tolist()
        image = pixels(high, wide)
        file = ImageOps.pad(Image.fromarray(image), (width, height), Image.Resampling.LANCZOS)
        found = fitted(image[None, ..., None], (height, width, 1))
        assert np.array_equal(found[0, ..., 0], np.asarray(file)), (high, wide, height, width)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_colours_become_grey_in_every_dtype(dtype):
    images = pixels(8, 8, 3)[None] / 255
    expected = fitted(images.astype(np.float32), (8, 8, 1))
    found = fitted(np.asarray(images, jnp.dtype(dtype)), (8, 8, 1))
    assert found.dtype == jnp.dtype(dtype)
    rounding = max(float(jnp.finfo(dtype).eps), float(jnp.finfo("float32").eps))
    assert np.abs(found.astype(np.float64) - expected).max() < 4 * rounding


def test_images_of_the_right_size_and_colours_are_left_alone():
    images = pixels(3, 6, 7, 2)
    assert fitted(images, (6, 7, 2)) is images


def test_channels_that_are_neither_grey_nor_colours():
    with pytest.raises(ValueError, match=r"must have 3 channels, not 28 as in \[2, 3, 28, 28\]"):
        fitted(pixels(2, 3, 28, 28), (28, 28, 3))
    with pytest.raises(ValueError, match=r"not 4 as in .*without alpha"):
        fitted(pixels(2, 8, 8, 4), (8, 8, 3))
    with pytest.raises(ValueError, match=r"those of \[2, 0, 8, 1\] have none"):
        fitted(pixels(2, 0, 8, 1), (8, 8, 1))
