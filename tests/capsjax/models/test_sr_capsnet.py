"""The self-routing network: its published sizes, its layers, its batches."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import create_model
from capsjax.models import SRCapsNet
from capsjax.routing import Dynamic
from tests.tolerance import assert_close

SMALL = {
    "image_shape": (9, 6, 2),
    "num_classes": 7,
    "width": 2,
    "blocks": 1,
    "caps_types": 3,
    "caps_dim": 4,
    "conv_caps": 1,
}
BATCH = 5
# Maps of 9x6, 5x3, 3x2, and of convolutional capsules 2x1.
CAPSULES = 2 * 1 * 3


def small(**options):
    return SRCapsNet(**{**SMALL, **options}, rngs=nnx.Rngs(0))


def images(dtype=jnp.float32):
    values = np.random.default_rng(0).uniform(size=(BATCH, *SMALL["image_shape"]))
    return jnp.asarray(values, dtype)


@nnx.jit
def run(model, images):
    return model(images)


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def published(**options):
    options = {"image_shape": (32, 32, 3), "num_classes": 10} | options
    return nnx.eval_shape(lambda: create_model("sr_capsnet", rngs=nnx.Rngs(0), **options))


def test_the_published_networks_have_the_published_numbers_of_parameters():
    assert count(published()) == 931_664  # 0.9M, SR-1
    assert count(published(conv_caps=1)) == 3_187_536  # 3.2M, SR-2
    assert count(published(routing="dynamic")) == 5_826_384  # 5.8M, DR-1
    assert count(published(backbone="convnet", image_shape=(32, 32, 1), num_classes=5)) == 814_960


def test_a_backbone_of_nine_blocks_ends_in_an_eighth_of_the_positions():
    model = published()
    assert model.features.stem.output_shape == (32, 32, 16)
    assert [block.output_shape for block in model.features.blocks] == [
        *[(32, 32, 16)] * 3,
        *[(16, 16, 32)] * 3,
        *[(8, 8, 64)] * 3,
    ]
    assert model.primary_caps.output_shape == (8, 8, 32, 16)
    assert published(backbone="convnet").primary_caps.output_shape == (4, 4, 32, 16)
    assert [layer.output_shape[:2] for layer in published(conv_caps=2).conv_caps] == [(4, 4)] * 2
    shapes = [
        layer.output_shape[:2] for layer in published(backbone="convnet", conv_caps=1).conv_caps
    ]
    assert shapes == [(4, 4)]


def test_outputs_have_the_documented_shapes_and_begin_undecided():
    output = run(small(), images())
    assert output.capsules.pose.shape == (BATCH, 7, 4)
    assert output.coupling.shape == (BATCH, CAPSULES, 7)
    assert output.reconstruction is None
    assert output.logits is None
    # Routing networks start at zero.
    assert_close(output.lengths, jnp.full((BATCH, 7), 1 / 7), reduction_length=CAPSULES)


def test_activations_are_class_probabilities_and_the_classes_have_no_matrices():
    model = small()
    model.class_caps.routing.kernel[...] += jnp.asarray(
        np.random.default_rng(1).standard_normal((CAPSULES, 7, 4)), jnp.float32
    )
    output = run(model, images())
    assert output.lengths.std() > 0.01
    assert_close(jnp.sum(output.lengths, axis=1), jnp.ones(BATCH), reduction_length=CAPSULES)
    assert model.class_caps.kernel is None
    assert small(class_dim=5).class_caps.kernel.shape == (CAPSULES, 7, 5, 4)


def test_a_batch_is_normalised_by_itself_in_training_and_by_what_was_learned_in_test():
    model = small()
    model.class_caps.routing.kernel[...] += 0.1 * jnp.arange(7, dtype=jnp.float32)[None, :, None]
    together = run(model, images()).lengths
    assert np.abs(together[:2] - run(model, images()[:2]).lengths).max() > 1e-4
    model.eval()
    together, alone = run(model, images()).lengths, run(model, images()[:2]).lengths
    assert_close(together[:2], alone, reduction_length=108)


@pytest.mark.parametrize("routing", ["dynamic", Dynamic(2)], ids=str)
def test_another_routing_votes_with_matrices(routing):
    model = small(routing=routing)
    assert model.class_caps.kernel.shape == (CAPSULES, 7, 4, 4)
    output = run(model, images())
    assert output.lengths.shape == (BATCH, 7)
    assert_close(output.lengths, jnp.linalg.norm(output.capsules.pose, axis=-1), reduction_length=4)


@pytest.mark.parametrize("backbone", ["resnet", "convnet"])
def test_gradients_reach_every_parameter(backbone):
    model = small(backbone=backbone)
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda p: p + jnp.asarray(rng.normal(0, 0.1, p.shape), p.dtype), params)

    @jax.jit
    @jax.grad
    def gradient(params):
        output = nnx.merge(graphdef, params, rest, copy=True)(images())
        return -jnp.mean(jnp.log(output.lengths[:, 0]))

    for path, value in jax.tree.leaves_with_path(gradient(params)):
        assert np.abs(value).max() > 0, jax.tree_util.keystr(path)


def test_coarse_computation_of_exact_results():
    model = small(dtype=jnp.bfloat16)
    kernel = 0.1 * jnp.arange(7, dtype=jnp.float32)[None, :, None]
    exact = small()
    for network in (model, exact):
        network.class_caps.routing.kernel[...] += kernel
    output, expected = run(model, images()), run(exact, images())
    assert {leaf.dtype for leaf in jax.tree.leaves((output, nnx.state(model)))} == {
        jnp.dtype("float32")
    }
    assert_close(output.lengths, expected.lengths, dtype="bfloat16", reduction_length=CAPSULES)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg"}, "unknown backbone 'vgg', choose from: resnet, convnet"),
        ({"blocks": 0}, "blocks must be an integer of at least 1, not 0"),
        ({"conv_caps": -1}, "conv_caps, if not 0, must be an integer of at least 1, not -1"),
        ({"class_dim": 0}, "class_dim must be an integer of at least 1, not 0"),
        ({"competition": "class"}, "unknown competition 'class', choose from: all, patch"),
        ({"routing": "selfrouting"}, "unknown routing 'selfrouting', choose from: "),
        ({"image_shape": (9, 6)}, r"image_shape is \(height, width, channels\), not \(9, 6\)"),
        ({"dtype": "int8"}, "dtype must be a floating dtype"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: small(**options))
