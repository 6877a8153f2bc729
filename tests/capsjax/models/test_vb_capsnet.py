"""The network of variational Bayes: its sizes, its normalisation, its batches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import create_model, create_routing
from capsjax.models import VBCapsNet
from capsjax.routing import Uniform
from tests.tolerance import assert_close

SMALL = {
    "image_shape": (9, 8, 2),
    "num_classes": 3,
    "conv_features": 4,
    "conv_kernel": 3,
    "primary_types": 2,
    "caps_types": (3,),
    "caps_kernels": (2,),
    "caps_strides": (1,),
    "pose_dim": 4,
    "routing": create_routing("variational-bayes", iterations=2),
}
BATCH = 6
# Maps of 4x3, and of convolutional capsules 3x2.
CAPSULES = 3 * 2 * 3


def small(**options):
    return VBCapsNet(**{**SMALL, **options}, rngs=nnx.Rngs(0))


def images(dtype=jnp.float32):
    values = np.random.default_rng(0).uniform(size=(BATCH, *SMALL["image_shape"]))
    return jnp.asarray(values, dtype)


@nnx.jit
def run(model, images):
    return model(images)


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def published(**options):
    options = {"image_shape": (32, 32, 2), "num_classes": 5} | options
    return nnx.eval_shape(lambda: create_model("vb_capsnet", rngs=nnx.Rngs(0), **options))


def test_the_published_network_has_the_parameters_of_the_authors_code_but_for_the_betas():
    betas = 2 * (16 + 16 + 5)
    assert count(published()) == 68_714 - betas
    assert count(published(primary_types=16)) == 95_882 - betas


def test_the_published_network_has_the_published_grids():
    model = published()
    assert model.features.output_shape == (14, 14, 64)
    assert model.primary_caps.output_shape == (14, 14, 8, 16)
    assert [layer.output_shape for layer in model.conv_caps] == [(6, 6, 16, 16), (4, 4, 16, 16)]
    assert all(layer.competition == "all" for layer in model.conv_caps)


def test_outputs_have_the_documented_shapes():
    output = run(small(), images())
    assert output.capsules.pose.shape == (BATCH, 3, 4)
    assert output.coupling.shape == (BATCH, CAPSULES, 3)
    assert output.reconstruction is None
    np.testing.assert_array_equal(output.lengths, output.logits)
    np.testing.assert_array_equal(output.lengths, output.capsules.activation)


def test_what_the_sigmoids_of_classes_see_has_a_mean_of_zero_and_a_deviation_of_one():
    output = run(small(), images())
    logits = np.log(output.lengths / (1 - output.lengths))
    assert_close(logits.mean(0) + 1, np.ones(3), dtype="float32", reduction_length=BATCH)
    # A little less, as a constant is added to a small variance.
    assert ((logits.std(0) > 0.9) & (logits.std(0) < 1.001)).all()


def test_a_batch_is_normalised_by_itself_in_training_and_by_what_was_learned_in_test():
    model = small()
    together = run(model, images()).lengths
    assert np.abs(together[:2] - run(model, images()[:2]).lengths).max() > 1e-3
    model.eval()
    together, alone = run(model, images()).lengths, run(model, images()[:2]).lengths
    assert_close(together[:2], alone, reduction_length=50)


@pytest.mark.parametrize("routing", ["em", Uniform()], ids=["em", "uniform"])
def test_another_routing_keeps_its_activations(routing):
    model = small(routing=routing)
    assert model.class_norm.activation is None
    output = run(model, images())
    assert output.lengths.shape == (BATCH, 3)
    assert ((output.lengths >= 0) & (output.lengths <= 1)).all()


def test_gradients_reach_every_parameter():
    graphdef, params, rest = nnx.split(small(), nnx.Param, ...)

    @jax.jit
    @jax.grad
    def gradient(params):
        output = nnx.merge(graphdef, params, rest, copy=True)(images())
        return jnp.sum(output.lengths[:3, 0]) - jnp.sum(output.lengths[:2, 1])

    for path, value in jax.tree.leaves_with_path(gradient(params)):
        assert np.abs(value).max() > 1e-5, jax.tree_util.keystr(path)


def test_coarse_computation_of_results_in_float32():
    model = small(dtype=jnp.bfloat16)
    output = run(model, images())
    assert {leaf.dtype for leaf in jax.tree.leaves((output, nnx.state(model)))} == {
        jnp.dtype("float32")
    }
    exact = run(small(), images())
    assert_close(output.lengths, exact.lengths, dtype="bfloat16", reduction_length=CAPSULES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"caps_strides": (1, 1)}, "each capsule layer needs a value .* caps_strides has 2"),
        ({"caps_types": 3}, "caps_types must be a sequence of integers of at least 1, not 3"),
        ({"conv_features": 0}, "conv_features must be an integer of at least 1, not 0"),
        ({"pose_dim": 6}, "pose_dim must be the square of at least 2, such as 16, not 6"),
        ({"image_shape": (2, 8, 2)}, "a 3x3 kernel does not fit on an input of 2x8"),
        ({"caps_kernels": (4,)}, "a 4x4 kernel does not fit on an input of 4x3"),
        ({"competition": "none"}, "unknown competition 'none', choose from: all, patch"),
        ({"routing": 3}, r"such as create_routing\('dynamic'\), not 3"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: small(**options))
