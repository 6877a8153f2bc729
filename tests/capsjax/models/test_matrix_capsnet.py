"""Matrix capsules: their published sizes, the class layer's own EM, and other routings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import create_routing
from tests.capsjax.models import family
from tests.tolerance import assert_close

NAME = "matrix_capsnet"


class TestMatrixCapsNet(family.Contract):
    name, below, dim, terms, normalises = NAME, 1 * 2 * 3, 4, 50, False


def published(**options):
    return family.published(NAME, (32, 32, 2), 5, **options)


def test_both_published_networks_have_the_published_number_of_parameters():
    # 310K and 68K, cut off after two digits.
    assert family.count(published()) == 316_650
    small = {"conv_features": 64, "primary_types": 8, "caps_types": (16, 16)}
    assert family.count(published(**small)) == 68_618


def test_the_published_grids():
    model = published()
    assert model.primary_caps.output_shape == (14, 14, 32, 16)
    assert [layer.output_shape for layer in model.conv_caps] == [(6, 6, 32, 16), (4, 4, 32, 16)]
    assert model.class_caps.kernel.shape == (32, 5, 4, 4)


def test_initial_values_are_those_of_the_authors_code():
    model = family.make(NAME, primary_types=40, caps_types=(30, 30), num_classes=40)

    def deviation(kernel):  # of a normal distribution that is cut off at two deviations
        return np.std(kernel) / 0.8796

    filters = np.asarray(model.primary_caps.pose.kernel[...])
    assert abs(deviation(filters[..., :160]) - 0.5) < 0.05
    assert abs(deviation(filters[..., 160:]) - 3.0) < 0.3
    assert model.primary_caps.pose.bias is None
    for layer in model.conv_caps:
        assert abs(deviation(layer.kernel[...]) - 0.3) < 0.01
        assert np.all(layer.routing.beta_u[...] == 0.5)
        assert np.all(layer.routing.beta_a[...] == 0.5)
    assert abs(deviation(model.class_caps.kernel[...]) - 0.01) < 0.001
    assert np.all(model.class_caps.routing.beta_u[...] == 2)
    assert np.all(model.class_caps.routing.beta_a[...] == 1)


def routings(**options):
    """Of the last convolutional layer and of the classes: their settings."""
    model = family.shapes(NAME, **options)
    return [layer.routing.settings for layer in (model.conv_caps[1], model.class_caps)]


def test_a_class_layer_has_a_quarter_of_the_inverse_temperature():
    em = create_routing("em", iterations=2, inverse_temperature=0.02)
    below, top = routings(routing=em)
    assert (below.inverse_temperature, top.inverse_temperature) == (0.02, 0.005)
    assert (below.iterations, top.iterations) == (2, 2)


def test_a_class_layer_has_the_same_in_the_papers_formulation_and_its_own_if_given():
    papers = create_routing("em", formulation="paper", initial_beta_u=0.0, initial_beta_a=0.0)
    assert routings(routing=papers) == [papers, papers]
    own = create_routing("em", iterations=1)
    assert routings(routing="em", class_routing=own) == [create_routing("em"), own]


def test_other_routings_and_sizes():
    options = {"image_shape": (10, 9, 1), "num_classes": 6, "routing": "dynamic"}
    model = family.shapes(NAME, **options)
    assert type(model.class_caps.routing) is type(model.conv_caps[0].routing)
    images = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 10, 9, 1)), jnp.float32)
    network = family.small(NAME, **options)
    output = family.run(network.test, network.params, network.stats, images)
    height, width, types, dim = model.conv_caps[1].output_shape
    assert output.capsules.pose.shape == (2, 6, dim)
    assert output.coupling.shape == (2, height * width * types, 6)
    assert output.logits is None
    assert ((output.lengths > 0) & (output.lengths < 1)).all()
    by_object = family.shapes(NAME, routing=create_routing("dynamic", iterations=1))
    assert by_object.class_caps.routing == create_routing("dynamic", iterations=1)


def test_competition_is_over_all_parents_or_in_each_window():
    every, patch = family.small(NAME), family.small(NAME, competition="patch")
    pose, other = (
        family.run(m.test, every.params, every.stats, family.images(NAME)).capsules.pose
        for m in (every, patch)
    )
    assert np.abs(pose - other).max() > 1e-4


def test_positions_are_exact_in_float64():
    options = {"caps_types": (3,), "caps_kernels": (2,), "caps_strides": (1,)}
    with jax.enable_x64(True):
        model = family.make(NAME, dtype=jnp.float64, param_dtype=jnp.float64, **options)
        height, width, types, dim = model.conv_caps[0].output_shape
        votes = model.class_caps.votes(jnp.zeros((1, height, width, types, dim)))
        rows = np.asarray(votes).reshape(height, width, types, 3, 2, 2)[:, 0, 0, 0, 0, 1]
    assert_close(rows, (np.arange(height) + 0.5) / height)


def test_what_reimplementations_have_otherwise():
    options = {"conv_padding": 2, "conv_norm": True, "norm_epsilon": 0.5, "primary_bias": True}
    model = family.make(NAME, **options)
    # 9x12, padded: 3x3 windows at every second place.
    assert model.features.output_shape == (6, 7, 5)
    assert model.primary_caps.pose.bias.shape == (2 * (4 + 1),)
    features = nnx.jit(lambda layer, images: (layer.conv(images), layer(images)))
    maps, normalised = features(model.features, family.images(NAME))
    assert maps.shape == (family.BATCH, 6, 7, 5)
    maps = np.asarray(maps, np.float64)
    mean, var = maps.mean(axis=(0, 1, 2)), maps.var(axis=(0, 1, 2))
    expected = np.maximum((maps - mean) / np.sqrt(var + 0.5), 0)
    assert_close(normalised, expected, dtype="float32", reduction_length=18)
    model.eval()
    moved = np.maximum((maps - 0.01 * mean) / np.sqrt(0.99 + 0.01 * var + 0.5), 0)
    in_test = features(model.features, family.images(NAME))[1]
    assert_close(in_test, moved, dtype="float32", reduction_length=18)


def test_an_offset_of_activations():
    plain, moved = (family.make(NAME, primary_offset=x).primary_caps for x in (0.0, -1.0))
    features = jnp.ones((1, 4, 5, 5))
    logits = [jnp.log(a) - jnp.log1p(-a) for a in (c(features).activation for c in (plain, moved))]
    assert_close(logits[0], logits[1] + 1, reduction_length=5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be an integer of at least 1, not 0"),
        ({"primary_types": 2.0}, "primary_types must be an integer of at least 1, not 2.0"),
        ({"image_shape": (2, 9, 1)}, "a 3x3 kernel does not fit on an input of 2x9"),
        ({"caps_kernels": (2, 9)}, "a 9x9 kernel does not fit on an input of 3x4"),
        ({"caps_types": (4,)}, "caps_types has 1, caps_kernels has 2, caps_strides has 2"),
        ({"caps_strides": (1, 0)}, "each value of caps_strides must be .* at least 1, not 0"),
        ({"pose_dim": 15}, "pose_dim must be the square of at least 2, such as 16, not 15"),
        ({"pose_dim": 1}, "pose_dim must be the square of at least 2"),
        ({"competition": "some"}, "unknown competition 'some', choose from: all, patch"),
        ({"conv_padding": -1}, "padding must be an integer of at least 0, not -1"),
        ({"conv_norm": 1}, "conv_norm must be True or False, not 1"),
        ({"primary_offset": "none"}, "activation_offset must be a number"),
        ({"class_coordinates": "edge"}, "unknown class_coordinates 'edge', choose from: cent"),
        ({"routing": "magic"}, "unknown routing 'magic', choose from: "),
        ({"class_routing": 3}, "routing must be a name of list_routings"),
        ({"dtype": "int8"}, "dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, message):
    family.assert_refused(NAME, options, message)
