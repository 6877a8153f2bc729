"""The network of variational Bayes: its sizes, its normalisation, its batches."""

import numpy as np
import pytest

from capsjax import create_routing
from tests.capsjax.models import family
from tests.tolerance import assert_close

NAME = "vb_capsnet"


class TestVBCapsNet(family.Contract):
    name, below, dim, terms = NAME, 3 * 2 * 3, 4, 50  # maps of 4x3, capsules of 3x2
    least_gradient = 1e-5


def published(**options):
    return family.published(NAME, (32, 32, 2), 5, **options)


def test_the_published_network_has_the_parameters_of_the_authors_code_but_for_the_betas():
    betas = 2 * (16 + 16 + 5)
    assert family.count(published()) == 68_714 - betas
    assert family.count(published(primary_types=16)) == 95_882 - betas


def test_the_published_network_has_the_published_grids():
    model = published()
    assert model.features.output_shape == (14, 14, 64)
    assert model.primary_caps.output_shape == (14, 14, 8, 16)
    assert [layer.output_shape for layer in model.conv_caps] == [(6, 6, 16, 16), (4, 4, 16, 16)]
    assert all(layer.competition == "all" for layer in model.conv_caps)


def test_what_the_sigmoids_of_classes_see_has_a_mean_of_zero_and_a_deviation_of_one():
    output = family.step(NAME).output
    np.testing.assert_array_equal(output.lengths, output.logits)
    logits = np.log(output.lengths / (1 - output.lengths))
    assert_close(logits.mean(0) + 1, np.ones(3), dtype="float32", reduction_length=family.BATCH)
    # A little less, as a constant is added to a small variance.
    assert ((logits.std(0) > 0.9) & (logits.std(0) < 1.001)).all()


@pytest.mark.parametrize("routing", ["em", create_routing("uniform")], ids=["em", "uniform"])
def test_another_routing_keeps_its_activations(routing):
    assert family.shapes(NAME, routing=routing).class_norm.activation is None
    model = family.small(NAME, routing=routing)
    output = family.run(model.training, model.params, model.stats, family.images(NAME))
    assert output.lengths.shape == (family.BATCH, 3)
    assert ((output.lengths >= 0) & (output.lengths <= 1)).all()


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
    family.assert_refused(NAME, options, message)
