"""Matrix capsules: their published sizes, the class layer's own EM, and other routings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import create_routing
from capsjax.models import MatrixCapsNet
from capsjax.routing import EM, Uniform

SMALL = {
    "image_shape": (9, 12, 2),
    "num_classes": 3,
    "conv_features": 5,
    "conv_kernel": 3,
    "primary_types": 2,
    "caps_types": (4, 3),
    "caps_kernels": (2, 2),
    "caps_strides": (1, 2),
    "pose_dim": 4,
}
BATCH = 2


def small(**options):
    return MatrixCapsNet(**{**SMALL, **options}, rngs=nnx.Rngs(0))


def images(shape=SMALL["image_shape"]):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(BATCH, *shape)), jnp.float32)


@jax.jit
def run(model, images):
    return model(images)


def shapes(**options):
    return nnx.eval_shape(
        lambda: MatrixCapsNet(image_shape=(32, 32, 2), num_classes=5, rngs=nnx.Rngs(0), **options)
    )


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_both_published_networks_have_the_published_number_of_parameters():
    # 310K and 68K, cut off after two digits.
    assert count(shapes()) == 316_650
    assert count(shapes(conv_features=64, primary_types=8, caps_types=(16, 16))) == 68_618


def test_the_published_grids():
    model = shapes()
    assert model.primary_caps.output_shape == (14, 14, 32, 16)
    assert [layer.output_shape for layer in model.conv_caps] == [(6, 6, 32, 16), (4, 4, 32, 16)]
    assert model.class_caps.kernel.shape == (32, 5, 4, 4)


def test_initial_values_are_those_of_the_authors_code():
    model = small(primary_types=40, caps_types=(30, 30), num_classes=40)

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


def test_a_class_layer_has_a_quarter_of_the_inverse_temperature():
    model = small(routing=EM(iterations=2, inverse_temperature=0.02))
    below, top = model.conv_caps[1].routing.settings, model.class_caps.routing.settings
    assert (below.inverse_temperature, top.inverse_temperature) == (0.02, 0.005)
    assert (below.iterations, top.iterations) == (2, 2)


def test_a_class_layer_has_the_same_in_the_papers_formulation_and_its_own_if_given():
    papers = EM(formulation="paper", initial_beta_u=0.0, initial_beta_a=0.0)
    assert small(routing=papers).class_caps.routing.settings == papers
    own = small(class_routing=Uniform())
    assert own.class_caps.routing == Uniform()
    assert own.conv_caps[0].routing.settings == EM()


@pytest.mark.parametrize(("shape", "classes"), [((9, 12, 2), 3), ((10, 9, 1), 6)])
def test_outputs_have_the_documented_shapes(shape, classes):
    model = small(image_shape=shape, num_classes=classes)
    output = run(model, images(shape))
    height, width, types, dim = model.conv_caps[1].output_shape
    assert output.capsules.pose.shape == (BATCH, classes, dim)
    assert output.lengths.shape == (BATCH, classes)
    assert output.coupling.shape == (BATCH, height * width * types, classes)
    assert output.reconstruction is None
    assert output.logits is None
    assert (output.lengths > 0).all()
    assert (output.lengths < 1).all()


def test_gradients_reach_every_parameter():
    graphdef, params = nnx.split(small(routing=EM(iterations=2)))

    @jax.jit
    @jax.grad
    def gradient(params):
        lengths = nnx.merge(graphdef, params)(images()).lengths
        targets = jax.nn.one_hot(jnp.arange(BATCH, dtype=jnp.int32), 3)
        return jnp.sum(capsjax.spread_loss(lengths, targets))

    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


@pytest.mark.parametrize("routing", ["dynamic", create_routing("dynamic", iterations=1)])
def test_other_routings(routing):
    model = small(routing=routing)
    assert type(model.class_caps.routing) is type(model.conv_caps[0].routing)
    output = run(model, images())
    assert np.isfinite(output.lengths).all()
    assert (output.lengths < 1).all()


def test_competition_is_over_all_parents_or_in_each_window():
    # With the small matrices that it begins with, a class is little more than where capsules lie.
    every, patch = (run(small(competition=c), images()).capsules.pose for c in ("all", "patch"))
    assert np.abs(every - patch).max() > 100 * np.finfo(np.float32).eps


def test_coarse_computation_keeps_parameters_and_outputs_in_float32():
    model = small(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model, nnx.Param))} == {
        jnp.dtype("float32")
    }
    output = run(model, images())
    assert {x.dtype for x in jax.tree.leaves(output)} == {jnp.dtype("float32")}
    pose, expected = output.capsules.pose, run(small(), images()).capsules.pose
    assert 0 < np.abs(pose - expected).max() < 0.05 * np.abs(expected).max()


def test_positions_are_exact_in_float64():
    with jax.enable_x64(True):
        model = small(dtype=jnp.float64, param_dtype=jnp.float64)
        height, width, types, dim = model.conv_caps[1].output_shape
        votes = model.class_caps.votes(jnp.zeros((1, height, width, types, dim)))
        rows = np.asarray(votes).reshape(height, width, types, 3, 2, 2)[:, 0, 0, 0, 0, 1]
    np.testing.assert_array_equal(rows, (np.arange(height) + 0.5) / height)


def test_what_reimplementations_have_otherwise():
    model = small(conv_padding=2, conv_norm=True, norm_epsilon=0.5, primary_bias=True)
    # 9x12, padded: 3x3 windows at every second place.
    assert model.features.output_shape == (6, 7, 5)
    assert model.primary_caps.pose.bias.shape == (2 * (4 + 1),)
    maps = np.asarray(model.features.conv(images()))
    assert maps.shape == (BATCH, 6, 7, 5)
    mean, var = maps.mean(axis=(0, 1, 2)), maps.var(axis=(0, 1, 2))
    expected = np.maximum((maps - mean) / np.sqrt(var + 0.5), 0)
    np.testing.assert_allclose(model.features(images()), expected, rtol=1e-5, atol=1e-6)
    model.eval()
    moved = np.maximum((maps - 0.01 * mean) / np.sqrt(0.99 + 0.01 * var + 0.5), 0)
    np.testing.assert_allclose(model.features(images()), moved, rtol=1e-5, atol=1e-6)


def test_an_offset_of_activations():
    features = small().features(images())
    activations = [small(primary_offset=x).primary_caps(features).activation for x in (0.0, -1.0)]
    logits = [jnp.log(a) - jnp.log1p(-a) for a in activations]
    np.testing.assert_allclose(logits[0] - logits[1], jnp.ones_like(logits[0]), rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be an integer of at least 1, not 0"),
        ({"primary_types": 2.0}, "primary_types must be an integer of at least 1, not 2.0"),
        ({"image_shape": (2, 9, 1)}, "kernel does not fit on an input of 2x9"),
        ({"caps_kernels": (2, 9)}, "a 9x9 kernel does not fit on an input of 3x4"),
        ({"caps_types": (4,)}, "caps_types has 1, caps_kernels has 2, caps_strides has 2"),
        ({"caps_strides": (1, 0)}, "each value of caps_strides must be .* at least 1, not 0"),
        ({"pose_dim": 15}, "pose_dim must be the square of at least 2, such as 16, not 15"),
        ({"pose_dim": 1}, "pose_dim must be the square of at least 2"),
        ({"competition": "some"}, "unknown competition 'some', choose from: all, patch"),
        ({"conv_padding": -1}, "padding must be an integer of at least 0, not -1"),
        ({"conv_norm": 1}, "normalize must be True or False, not 1"),
        ({"primary_offset": "none"}, "activation_offset must be a number"),
        ({"class_coordinates": "edge"}, "unknown coordinates_of 'edge', choose from: centre, cor"),
        ({"routing": "magic"}, "unknown routing 'magic', choose from: "),
        ({"class_routing": 3}, "routing must be a routing"),
        ({"dtype": "int8"}, "dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: small(**options))
