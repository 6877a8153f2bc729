"""The baseline without capsules."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax.models.cnn import _max_pool
from tests.capsjax.models import family
from tests.tolerance import assert_close

make = functools.partial(family.make, "cnn")


def images(batch=4):
    return family.images("cnn", batch=batch)


def test_the_published_network_has_the_published_size():
    assert family.count(family.published("cnn", (28, 28, 1), 10)) == 35_445_522  # 35.4 million


def test_the_published_network_for_pairs_of_digits_has_the_published_size():
    sizes = {"features": (512, 256), "kernel_size": (9, 5), "pool": 2, "hidden": (1024,)}
    model = family.published("cnn", (36, 36, 1), 10, **sizes)
    assert family.count(model) == 24_563_978  # 24.56 million


def test_the_largest_of_each_square_is_kept():
    model = make(features=(3,), pool=2, hidden=())
    maps = np.maximum(np.asarray(model.convolutions[0](images())), 0)
    largest = maps[:, :, :4].reshape(4, 3, 2, 2, 2, 3).max(axis=(2, 4)).reshape(4, -1)
    assert_close(model(images()).logits, model.classes(jnp.asarray(largest)), reduction_length=18)


@pytest.mark.parametrize("size", [2, 3])
def test_pooling_is_that_of_flax_bit_for_bit_where_values_are_equal(size):
    x = np.random.default_rng(0).integers(0, 3, (4, 8, 7, 3)).astype(np.float32)

    def run(pool):
        pooled, to_inputs = jax.vjp(pool, x)
        g = np.random.default_rng(1).normal(size=pooled.shape).astype(np.float32)
        return pooled, *to_inputs(g)

    flax = run(lambda x: nnx.max_pool(x, (size, size), (size, size)))
    ours = run(lambda x: _max_pool(x, size))
    for a, b in zip(ours, flax, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("place", [(0, 0), (0, 1), (1, 0), (1, 1)])
def test_the_largest_of_what_is_not_finite_is_not_either(place):
    x = np.ones((1, 4, 4, 1), np.float32)
    x[0, *place] = np.nan
    with jax.debug_nans(False):
        assert np.isnan(_max_pool(jnp.asarray(x), 2)).sum() == 1


def test_probabilities_are_the_softmax_of_the_logits_and_there_are_no_capsules():
    output = make()(images())
    assert output.capsules is None
    assert output.coupling is None
    assert output.reconstruction is None
    e = np.exp(np.asarray(output.logits, np.float64))
    assert_close(output.lengths, e / e.sum(1, keepdims=True), dtype="float32", reduction_length=3)


def test_dropout_depends_on_the_key_of_the_image_alone():
    model, keys = make(), jax.random.split(jax.random.key(0, impl="threefry2x32"), 4)
    whole = model(images(), keys=keys).logits
    assert_close(model(images()[1:3], keys=keys[1:3]).logits, whole[1:3], reduction_length=60 * 64)
    assert np.abs(whole - model(images()).logits).max() > 1e-3
    nothing = make(dropout=0.0)
    np.testing.assert_array_equal(nothing(images(), keys=keys).logits, nothing(images()).logits)


def test_train_and_eval_switch_dropout_as_in_flax():
    model = family.create_model("cnn", rngs=nnx.Rngs(params=0, dropout=1), **family.SMALL["cnn"])
    keys = jax.random.split(jax.random.key(0, impl="threefry2x32"), 4)

    @nnx.jit
    def logits(model, images):
        return model(images).logits

    first, second = logits(model, images()), logits(model, images())
    assert (np.asarray(first) != np.asarray(second)).any(axis=1).all()
    model.eval()
    expected = make()(images()).logits
    for output in (model(images()).logits, model(images(), keys=keys).logits):
        assert_close(output, expected, reduction_length=60 * 64)
    model.train()
    assert (np.asarray(logits(model, images())) != np.asarray(expected)).any()


def test_coarse_images_have_exact_probabilities():
    output = make(dtype=jnp.bfloat16)(images())
    assert output.lengths.dtype == jnp.float32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 3}, "nothing is left of an image of 6x5 when 2 times one of 3x3"),
        ({"kernel_size": (3, 3, 3)}, "each convolution .* features has 2, kernel_size has 3"),
        ({"dropout": 1}, "dropout must be less than 1"),
        ({"dropout": -0.1}, "dropout must be a number from 0 to 1"),
        ({"features": 3}, "features must be a sequence of integers"),
        ({"kernel_size": 0}, "kernel_size must be an integer of at least 1"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_a_vector_for_each_class_is_squashed_and_one_of_them_decoded():
    model = make(class_dim=4, decoder_hidden=(7,))
    output = model(images())
    raw = np.asarray(model.classes(hidden(model)), np.float64).reshape(4, 3, 4)
    length = np.linalg.norm(raw, axis=-1)
    squashed = length**2 / (1 + length**2)
    assert_close(output.lengths, squashed, dtype="float32", reduction_length=64)
    assert_close(
        output.capsules.pose,
        raw * (squashed / length)[..., None],
        dtype="float32",
        reduction_length=64,
    )
    assert output.logits is None
    assert output.reconstruction.shape == images().shape
    longest = np.argmax(output.lengths, axis=-1)
    np.testing.assert_array_equal(model(images(), longest).reconstruction, output.reconstruction)
    others = model(images(), (longest + 1) % 3).reconstruction
    assert np.abs(others - output.reconstruction).max() > 1e-3


def hidden(model):
    """What the last layer is given."""
    x = images()
    for convolution in model.convolutions:
        x = jnp.maximum(convolution(x), 0)
    x = x.reshape(4, -1)
    for layer in model.hidden:
        x = jnp.maximum(layer(x), 0)
    return x


def test_scores_cannot_be_decoded():
    with pytest.raises(ValueError, match="decoder_hidden needs class_dim"):
        make(decoder_hidden=(7,))
