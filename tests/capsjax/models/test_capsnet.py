"""CapsNet: its published size, its outputs, its precision, and what it is lowered to."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import Squash, create_routing
from tests.capsjax.models import family
from tests.tolerance import assert_close

NAME = "capsnet"
BATCH = family.BATCH
BELOW = 3 * 6 * 3  # (12 - 4, 17 - 4) = (8, 13), and (3, 6) with a stride of 2; of 3 types


class TestCapsNet(family.Contract):
    name, below, dim, terms, normalises = NAME, BELOW, 6, 200, False
    decodes = True


def small(**options):
    return family.make(NAME, **options)


def images(dtype=jnp.float32):
    return family.images(NAME, dtype)


def labels():
    return jnp.arange(BATCH, dtype=jnp.int32)


def loss(model, images, labels):
    """The paper's loss, mean over the batch."""
    output = model(images, labels)
    targets = jax.nn.one_hot(labels, output.lengths.shape[-1], dtype=output.lengths.dtype)
    value = capsjax.margin_loss(output.lengths, targets)
    if output.reconstruction is not None:
        value = value + 0.0005 * capsjax.reconstruction_loss(output.reconstruction, images)
    return jnp.mean(value)


def published(**options):
    return family.published(NAME, (28, 28, 1), 10, **options)


def test_the_published_network_has_the_published_number_of_parameters():
    assert family.count(published()) == 8_215_568
    assert family.count(published(decoder_hidden=None)) == 6_804_224


def test_options_add_the_parameters_they_say():
    assert family.count(published(decoder_combine="sum")) == 8_215_568 - 144 * 512
    prior = published(routing=create_routing("dynamic-prior"))
    assert family.count(prior) == 8_215_568 + 1152 * 10
    same = published(primary_order="flat", primary_squash=Squash("capsules"))
    assert family.count(same) == 8_215_568


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_values_may_start_as_in_the_authors_code(graph):
    options = {"initial_values": "authors", "routing": create_routing("dynamic-bias")}
    with nnx.set_graph_mode(graph):
        model = small(conv_features=64, primary_types=8, **options)
    layers = [model.features.conv, model.primary_caps.conv, *model.decoder.layers]
    for layer in layers:
        np.testing.assert_array_equal(layer.bias[...], np.full_like(layer.bias[...], 0.1))
    np.testing.assert_array_equal(model.class_caps.routing.bias[...], np.full((7, 6), 0.1, "f"))
    kernels = [model.class_caps.kernel, *(layer.kernel for layer in layers)]
    for kernel, deviation in zip(kernels, [0.1, 0.05, 0.1, 0.1, 0.1, 0.1], strict=True):
        # A normal distribution that is cut off at two deviations has 0.88 of its deviation left.
        assert abs(np.std(kernel[...]) / (0.8796 * deviation) - 1) < 4 / kernel.size**0.5
        assert np.abs(kernel[...]).max() <= 2 * deviation
    with pytest.raises(ValueError, match="unknown initial_values 'x', choose from: scaled"):
        family.shapes(NAME, initial_values="x")


def test_hidden_capsules_are_routed_before_the_classes():
    options = {"hidden_capsules": [5, 9], "routing": create_routing("dynamic-bias")}
    model = small(**options)
    shapes = [layer.kernel.shape for layer in (*model.hidden_caps, model.class_caps)]
    assert shapes == [(BELOW, 5, 6, 4), (5, 9, 6, 6), (9, 7, 6, 6)]
    assert [layer.routing.bias.shape[0] for layer in model.hidden_caps] == [5, 9]
    capsules = model.primary_caps(model.features(images()))
    for layer in model.hidden_caps:
        capsules, _ = layer(capsules)
    expected, coupling = model.class_caps(capsules)
    output = model(images())
    assert output.coupling.shape == coupling.shape == (BATCH, 9, 7)
    assert_close(output.capsules.pose, expected.pose, reduction_length=200)


def test_the_primary_convolution_is_scaled_before_its_bias_is_added():
    model, scaled = small(), small(primary_scale=0.25)
    maps = model.features(images())
    model.primary_caps.conv.bias[...] = scaled.primary_caps.conv.bias[...] = jnp.arange(12.0)
    bias = np.tile(np.arange(12.0), BELOW // 3).reshape(1, BELOW, 4)
    expected = 0.25 * (model.primary_caps.project(maps) - bias) + bias
    assert_close(scaled.primary_caps.project(maps), expected, reduction_length=200)


def longest(name=NAME, **options):
    """The output for images without labels, with initial values."""
    network = family.small(name, **options)
    return family.run(network.training, network.initial, network.stats, images())


def test_reconstructions_are_pixels():
    images = family.step(NAME).output.reconstruction
    assert ((images > 0) & (images < 1)).all()


def test_without_a_decoder_nothing_is_reconstructed_and_the_capsules_are_the_same():
    output = longest(decoder_hidden=None)
    assert output.reconstruction is None
    assert_close(output.lengths, longest().lengths, reduction_length=200)


def test_labels_choose_the_capsule_that_is_decoded_and_nothing_else():
    network = family.small(NAME)
    labelled = family.run(network.training, network.initial, network.stats, images(), labels())
    assert_close(longest().lengths, labelled.lengths, reduction_length=200)
    decoder = small().decoder
    for output, shown in ((longest(), np.argmax(longest().lengths, axis=-1)), (labelled, labels())):
        mask = np.eye(7, dtype=np.float32)[np.asarray(shown)]
        expected = decoder(output.capsules.pose, jnp.asarray(mask))
        assert_close(output.reconstruction, expected, reduction_length=42)
    assert (longest().reconstruction != labelled.reconstruction).any()
    assert_close(
        labelled.lengths, jnp.linalg.norm(labelled.capsules.pose, axis=-1), reduction_length=6
    )


def test_coarse_poses_and_parameters():
    def poses():
        model = small(dtype=jnp.bfloat16)
        return model.primary_caps(model.features(images())).pose

    assert jax.eval_shape(poses).dtype == jnp.bfloat16
    options = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    assert family.shapes(NAME, **options).class_caps.kernel.dtype == jnp.bfloat16
    output = jax.eval_shape(lambda: small(**options)(images(jnp.bfloat16), labels()))
    assert {x.dtype for x in jax.tree.leaves(output)} == {jnp.dtype("float32")}


@pytest.mark.parametrize("shape", [(6, 17, 3), (12, 6, 3), (4, 4, 3)])
def test_images_that_are_too_small_are_refused(shape):
    with pytest.raises(ValueError, match="kernel does not fit on an input of .*: choose a small"):
        family.shapes(NAME, image_shape=shape)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
def test_the_network_is_taken_apart_and_trained_in_both_modes_of_nnx(graph):
    with nnx.set_graph_mode(graph):
        model = small(routing=create_routing("dynamic-prior"))
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        @jax.jit
        @jax.value_and_grad
        def step(params):
            return loss(nnx.merge(graphdef, params, rest), images(), labels())

        value, gradients = step(params)
        stepped = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients)
        assert step(stepped)[0] < value
        family.assert_every_parameter_learns(gradients)


def test_float64_throughout_and_the_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        model = small(dtype=jnp.float64, param_dtype=jnp.float64)
        graphdef, params = nnx.split(model)
        x, y = images(jnp.float64), labels()

        @jax.jit
        @functools.partial(jax.value_and_grad, has_aux=True)
        def value_and_gradient(params):
            model = nnx.merge(graphdef, params)
            return loss(model, x, y), model(x, y)

        (_, output), gradient = value_and_gradient(params)
        assert {x.dtype for x in jax.tree.leaves(output)} == {jnp.dtype("float64")}
        rng = np.random.default_rng(1)
        direction = jax.tree.map(
            lambda p: jnp.asarray(rng.standard_normal(p.shape)) / math.sqrt(family.count(model)),
            params,
        )
        slope = sum(map(jnp.vdot, *map(jax.tree.leaves, (gradient, direction))))
        ahead, behind = (
            value_and_gradient(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction))[0][0]
            for h in (1e-5, -1e-5)
        )
        # Right to the square of the step and to the rounding divided by the step.
        assert abs(slope - (ahead - behind) / 2e-5) < 1e-6 * abs(slope)
    network = family.small(NAME)
    narrow = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), params)
    exact = family.run(network.training, narrow, network.stats, images())
    assert_close(exact.lengths, output.lengths, dtype="float32", reduction_length=200)


@pytest.fixture(scope="module")
def training_step():
    """The gradient of the loss of the published network, traced but not compiled."""
    graphdef, params = nnx.split(published())

    def gradient(params, x, y):
        return jax.grad(lambda params: loss(nnx.merge(graphdef, params), x, y))(params)

    x = jax.ShapeDtypeStruct((BATCH, 28, 28, 1), jnp.float32)
    y = jax.ShapeDtypeStruct((BATCH,), jnp.int32)
    return jax.jit(gradient).trace(params, x, y)


# Of the two convolutions, windows through the whole kernel, 81 taps of 1 channel, and through a row
# of the kernel, 9 taps of 256 channels.
PATCHES = re.compile(r"tensor<(5x20x20x81|5x6x6x2304)x")


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_on_an_accelerator_convolutions_are_the_compilers_own(training_step, platform):
    text = training_step.lower(lowering_platforms=(platform,)).as_text()
    # Forward, and the gradients of both kernels and of the second convolution's input.
    assert text.count("stablehlo.convolution") >= 5
    assert not PATCHES.search(text)


def test_on_a_cpu_convolutions_are_matrix_products(training_step):
    text = training_step.lower(lowering_platforms=("cpu",)).as_text()
    assert "stablehlo.convolution" not in text
    products = [line for line in text.splitlines() if "stablehlo.dot_general" in line]
    assert {m for line in products for m in PATCHES.findall(line)} == {
        "5x20x20x81",
        "5x6x6x2304",
    }


def test_recomputed_layers_keep_less_and_change_nothing():
    def kept_and_gradient(remat):
        model = small(routing_implementation="xla", remat=remat)
        graphdef, params = nnx.split(model)

        def value(params):
            return loss(nnx.merge(graphdef, params), images(), labels())

        pullback = jax.eval_shape(lambda params: jax.vjp(value, params)[1], params)
        kept = sum(array.size for array in jax.tree.leaves(pullback))
        return kept, jax.jit(jax.grad(value))(params)

    (kept, gradient), (all_kept, expected) = map(kept_and_gradient, (True, False))
    assert kept < 0.6 * all_kept
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient, expected)), strict=True):
        assert_close(ours, theirs, reduction_length=BATCH * BELOW)
