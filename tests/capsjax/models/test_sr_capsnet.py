"""The self-routing network: its published sizes, its layers, its batches."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import create_routing
from tests.capsjax.models import family
from tests.tolerance import assert_close

NAME = "sr_capsnet"
BELOW = 2 * 1 * 3  # maps of 9x6, 5x3, 3x2, and of convolutional capsules 2x1


class TestSRCapsNet(family.Contract):
    name, below, dim, terms = NAME, BELOW, 4, 108


def published(image_shape=(32, 32, 3), num_classes=10, **options):
    return family.published(NAME, image_shape, num_classes, **options)


def test_the_published_networks_have_the_published_numbers_of_parameters():
    assert family.count(published()) == 931_664  # 0.9M, SR-1
    assert family.count(published(conv_caps=1)) == 3_187_536  # 3.2M, SR-2
    assert family.count(published(routing="dynamic")) == 5_826_384  # 5.8M, DR-1
    assert family.count(published((32, 32, 1), 5, backbone="convnet")) == 814_960


def test_a_backbone_of_nine_blocks_ends_in_an_eighth_of_the_positions():
    model = published(conv_caps=2)
    assert model.features.stem.output_shape == (32, 32, 16)
    assert [block.output_shape for block in model.features.blocks] == [
        *[(32, 32, 16)] * 3,
        *[(16, 16, 32)] * 3,
        *[(8, 8, 64)] * 3,
    ]
    assert model.primary_caps.output_shape == (8, 8, 32, 16)
    assert [layer.output_shape[:2] for layer in model.conv_caps] == [(4, 4)] * 2
    model = published(backbone="convnet", conv_caps=1)
    assert model.primary_caps.output_shape == (4, 4, 32, 16)
    assert [layer.output_shape[:2] for layer in model.conv_caps] == [(4, 4)]


def test_matrices_start_as_in_the_authors_code():
    # PyTorch's kaiming_uniform_ of [capsules in sight, types * dim, dim]: the fan of a matrix is
    # types * dim * dim, however many capsules are in sight.
    kernel = np.asarray(family.make(NAME).conv_caps[0].kernel[...])
    assert kernel.shape == (9 * 3, 3, 4, 4)
    bound = math.sqrt(6 / (3 * 4 * 4))
    assert 0.99 * bound < abs(kernel).max() <= bound
    assert kernel.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)


def test_it_begins_undecided_as_routing_networks_start_at_zero():
    model = family.small(NAME)
    lengths = family.run(model.test, model.initial, model.stats, family.images(NAME)).lengths
    assert_close(lengths, jnp.full((family.BATCH, 7), 1 / 7), reduction_length=BELOW)


def test_activations_are_class_probabilities_and_the_classes_have_no_matrices():
    output = family.step(NAME).output
    assert output.lengths.std() > 0.01
    assert_close(jnp.sum(output.lengths, axis=1), jnp.ones(family.BATCH), reduction_length=BELOW)
    assert output.logits is None
    assert family.shapes(NAME).class_caps.kernel is None
    assert family.shapes(NAME, class_dim=5).class_caps.kernel.shape == (BELOW, 7, 5, 4)


@pytest.mark.parametrize("routing", ["dynamic", create_routing("dynamic", iterations=2)], ids=str)
def test_another_routing_votes_with_matrices(routing):
    assert family.shapes(NAME, routing=routing).class_caps.kernel.shape == (BELOW, 7, 4, 4)
    model = family.small(NAME, routing=routing)
    output = family.run(model.test, model.params, model.stats, family.images(NAME))
    assert output.lengths.shape == (family.BATCH, 7)
    assert_close(output.lengths, jnp.linalg.norm(output.capsules.pose, axis=-1), reduction_length=4)


def test_gradients_reach_every_parameter_of_the_smaller_backbone():
    family.assert_every_parameter_learns(family.step(NAME, backbone="convnet").gradients)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "vgg"}, "unknown backbone 'vgg', choose from: resnet, convnet"),
        ({"blocks": 0}, "blocks must be an integer of at least 1, not 0"),
        ({"conv_caps": -1}, "conv_caps must be an integer of at least 0, not -1"),
        ({"class_dim": 0}, "class_dim must be an integer of at least 1, not 0"),
        ({"competition": "class"}, "unknown competition 'class', choose from: all, patch"),
        ({"routing": "selfrouting"}, "unknown routing 'selfrouting', choose from: "),
        ({"image_shape": (9, 6)}, r"image_shape is \(height, width, channels\), not \(9, 6\)"),
        ({"dtype": "int8"}, "dtype must be a floating dtype"),
    ],
)
def test_wrong_arguments_are_named(options, message):
    family.assert_refused(NAME, options, message)
