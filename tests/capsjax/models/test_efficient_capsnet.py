"""Efficient-CapsNet: its published size, its capsules of whole maps, its batches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import create_model
from capsjax.models import EfficientCapsNet
from capsjax.routing import Dynamic
from tests.tolerance import assert_close

SMALL = {
    "image_shape": (9, 11, 2),
    "num_classes": 7,
    "features": (4, 6),
    "kernel_sizes": (3, 2),
    "strides": (1, 2),
    "primary_dim": 3,
    "class_dim": 5,
    "decoder_hidden": (8,),
}
BATCH = 4
# Maps of 3x4, on which a 3x3 kernel fits twice, for 2 types.
CAPSULES = 4


def small(**options):
    return EfficientCapsNet(**{**SMALL, **options}, rngs=nnx.Rngs(0))


@pytest.fixture(scope="module")
def model():
    """In training, in which its results do not depend on what it has learned of batches."""
    with jax.default_prng_impl("rbg"):
        return small()


def images(dtype=jnp.float32):
    values = np.random.default_rng(0).uniform(size=(BATCH, *SMALL["image_shape"]))
    return jnp.asarray(values, dtype)


@nnx.jit
def run(model, images, labels=None):
    return model(images, labels)


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def published(**options):
    options = {"image_shape": (28, 28, 1), "num_classes": 10} | options
    return nnx.eval_shape(lambda: create_model("efficient_capsnet", rngs=nnx.Rngs(0), **options))


def test_the_published_network_has_the_published_number_of_parameters():
    assert count(published(decoder_hidden=None)) == 161_824
    assert count(published()) == 161_824 + 1_411_344


def test_a_primary_capsule_sees_a_whole_map_of_any_size():
    assert published().primary_caps.conv.kernel.shape == (9, 9, 1, 128)
    multi_mnist = published(image_shape=(36, 36, 1))
    assert multi_mnist.primary_caps.conv.kernel.shape == (13, 13, 1, 128)
    assert multi_mnist.primary_caps.num_capsules == 16
    assert small().primary_caps.num_capsules == CAPSULES
    assert small(primary_kernel=2, primary_stride=2).primary_caps.num_capsules == 2 * 2


def test_outputs_have_the_documented_shapes(model):
    output = run(model, images())
    assert output.capsules.pose.shape == (BATCH, 7, 5)
    assert output.lengths.shape == (BATCH, 7)
    assert output.coupling.shape == (BATCH, CAPSULES, 7)
    assert output.reconstruction.shape == (BATCH, 9, 11, 2)
    assert_close(output.lengths, jnp.linalg.norm(output.capsules.pose, axis=-1), reduction_length=5)
    without = nnx.eval_shape(lambda: small(decoder_hidden=None)(images()))
    assert without.reconstruction is None


def test_labels_choose_the_capsule_that_is_decoded_and_nothing_else(model):
    labels = jnp.arange(BATCH, dtype=jnp.int32)
    longest, labelled = run(model, images()), run(model, images(), labels)
    np.testing.assert_array_equal(longest.lengths, labelled.lengths)
    mask = jnp.asarray(np.eye(7, dtype=np.float32)[np.asarray(labels)])
    expected = model.decoder(labelled.capsules.pose, mask)
    assert_close(labelled.reconstruction, expected, reduction_length=35)
    assert (longest.reconstruction != labelled.reconstruction).any()


def test_a_rectifier_comes_before_the_normalisation():
    model = small()
    x = nnx.relu(model.convolutions[0](images()))
    run(model, images())
    mean = jnp.mean(x, axis=(0, 1, 2))
    assert (mean > 0).all()
    assert_close(model.norms[0].mean[...], 0.01 * mean, reduction_length=252)


def test_a_normalisation_can_come_first():
    model = small(norm_first=True, norm_momentum=0.5)
    x = model.convolutions[0](images())
    model.norms[0](x)
    mean = jnp.mean(x, axis=(0, 1, 2))
    assert (mean < 0).any()
    assert_close(model.norms[0].mean[...], 0.5 * mean, reduction_length=252)
    assert model.norms[0].epsilon == 1e-3
    first, last = run(model, images()), run(small(), images())
    assert np.abs(first.lengths - last.lengths).max() > 1e-3


def test_an_epsilon_under_the_root_of_lengths(model):
    output, exact = run(small(length_epsilon=0.25), images()), run(model, images())
    assert_close(output.lengths, jnp.sqrt(exact.lengths**2 + 0.25), reduction_length=100)
    assert_close(output.capsules.pose, exact.capsules.pose, reduction_length=100)


def test_in_test_examples_do_not_depend_on_their_batch():
    model = small()
    in_training = run(model, images())
    model.eval()
    together, alone = run(model, images()), run(model, images()[:1])
    assert_close(together.lengths[:1], alone.lengths, reduction_length=100)
    assert np.abs(together.lengths - in_training.lengths).max() > 0.01


@pytest.mark.parametrize("routing", ["em", Dynamic(1)], ids=["em", "object"])
def test_other_routings_by_name_and_by_object(routing):
    output = run(small(routing=routing), images())
    assert output.coupling.shape == (BATCH, CAPSULES, 7)
    total = jnp.sum(output.coupling, axis=-1)
    assert_close(total, jnp.ones_like(total), reduction_length=7)


def test_the_gradient_reaches_every_parameter():
    graphdef, params, rest = nnx.split(small(), nnx.Param, ...)
    labels = jnp.arange(BATCH, dtype=jnp.int32)

    @jax.jit
    @jax.grad
    def gradient(params):
        output = nnx.merge(graphdef, params, rest, copy=True)(images(), labels)
        targets = jax.nn.one_hot(labels, 7)
        reconstruction = capsjax.reconstruction_loss(output.reconstruction, images())
        return jnp.mean(capsjax.margin_loss(output.lengths, targets) + 0.0005 * reconstruction)

    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_coarse_computation_keeps_parameters_and_outputs_in_float32(model):
    coarse = small(dtype=jnp.bfloat16)
    output, exact = run(coarse, images()), run(model, images())
    assert {x.dtype for x in jax.tree.leaves((output, nnx.state(coarse)))} == {jnp.dtype("float32")}
    assert_close(output.lengths, exact.lengths, dtype="bfloat16", reduction_length=100)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (2, 11, 2)}, "a 3x3 kernel does not fit on .* of 2x11"),
        ({"primary_kernel": 4}, "a 4x4 kernel does not fit .* of 3x4"),
        ({"primary_dim": 4}, "primary_dim is 4, but must divide the last of features, 6"),
        ({"norm_first": "yes"}, "norm_first must be True or False, not 'yes'"),
        ({"length_epsilon": -1}, "length_epsilon must be a number from 0 to 1, not -1"),
        ({"strides": (1,)}, "same convolutions, one at least, but there are 2, 2 and"),
        ({"features": (), "kernel_sizes": (), "strides": ()}, "but there are 0, 0 and 0"),
        ({"features": (4, 0)}, "each value of features must be an integer of at least 1, not 0"),
        ({"routing": "nonsense"}, "unknown routing 'nonsense', choose from"),
        ({"dtype": "float33"}, "dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: small(**options))
