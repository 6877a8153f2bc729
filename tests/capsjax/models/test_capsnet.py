"""CapsNet: its published size, its outputs, its precision, and what it is lowered to."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import CapsNet, Squash, create_routing
from tests.tolerance import assert_close

SMALL = {
    "image_shape": (12, 17, 3),
    "num_classes": 7,
    "conv_features": 8,
    "conv_kernel": 5,
    "primary_types": 3,
    "primary_dim": 4,
    "primary_kernel": 3,
    "class_dim": 6,
    "decoder_hidden": (10, 11),
}
POSITIONS = 3 * 6  # (12 - 4, 17 - 4) = (8, 13), and (3, 6) with a stride of 2
BATCH = 5


def small(**options):
    return CapsNet(**{**SMALL, **options}, rngs=nnx.Rngs(0))


def images(dtype=jnp.float32):
    values = np.random.default_rng(0).uniform(size=(BATCH, *SMALL["image_shape"]))
    return jnp.asarray(values, dtype)


def labels():
    return jnp.arange(BATCH, dtype=jnp.int32)


@jax.jit
def run(model, images, labels=None):
    return model(images, labels)


def loss(model, images, labels):
    """The paper's loss, mean over the batch."""
    output = model(images, labels)
    targets = jax.nn.one_hot(labels, output.lengths.shape[-1], dtype=output.lengths.dtype)
    value = capsjax.margin_loss(output.lengths, targets)
    if output.reconstruction is not None:
        value = value + 0.0005 * capsjax.reconstruction_loss(output.reconstruction, images)
    return jnp.mean(value)


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def published(**options):
    return nnx.eval_shape(
        lambda: CapsNet(image_shape=(28, 28, 1), num_classes=10, rngs=nnx.Rngs(0), **options)
    )


def test_the_published_network_has_the_published_number_of_parameters():
    assert count(published()) == 8_215_568
    assert count(published(decoder_hidden=None)) == 6_804_224


def test_options_add_the_parameters_they_say():
    assert count(published(decoder_combine="sum")) == 8_215_568 - 144 * 512
    prior = published(routing=create_routing("dynamic-prior"))
    assert count(prior) == 8_215_568 + 1152 * 10
    same = published(primary_order="flat", primary_squash=Squash("capsules"))
    assert count(same) == 8_215_568


def test_outputs_have_the_documented_shapes():
    output = run(small(), images())
    assert output.capsules.pose.shape == (BATCH, 7, 6)
    assert output.capsules.activation.shape == (BATCH, 7)
    assert output.lengths.shape == (BATCH, 7)
    assert output.coupling.shape == (BATCH, POSITIONS * 3, 7)
    assert output.reconstruction.shape == (BATCH, 12, 17, 3)
    assert_close(output.lengths, jnp.linalg.norm(output.capsules.pose, axis=-1), reduction_length=6)
    assert (output.reconstruction > 0).all()
    assert (output.reconstruction < 1).all()


def test_without_a_decoder_nothing_is_reconstructed_and_the_capsules_are_the_same():
    output = run(small(decoder_hidden=None), images())
    assert output.reconstruction is None
    np.testing.assert_array_equal(output.lengths, run(small(), images()).lengths)


def test_labels_choose_the_capsule_that_is_decoded_and_nothing_else():
    model = small()
    longest, labelled = run(model, images()), run(model, images(), labels())
    np.testing.assert_array_equal(longest.lengths, labelled.lengths)
    for output, shown in ((longest, jnp.argmax(longest.lengths, axis=-1)), (labelled, labels())):
        mask = np.eye(7, dtype=np.float32)[np.asarray(shown)]
        expected = model.decoder(output.capsules.pose, jnp.asarray(mask))
        assert_close(output.reconstruction, expected, reduction_length=42)
    assert (longest.reconstruction != labelled.reconstruction).any()


def test_examples_do_not_depend_on_their_batch():
    model = small()
    together, alone = run(model, images()), run(model, images()[:1])
    assert_close(together.lengths[:1], alone.lengths, reduction_length=200)
    assert_close(together.reconstruction[:1], alone.reconstruction, reduction_length=200)


def test_coarse_computation_keeps_parameters_and_outputs_in_float32():
    coarse, exact = small(dtype=jnp.bfloat16), small()
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(coarse, nnx.Param))} == {
        jnp.dtype("float32")
    }
    assert coarse.primary_caps(coarse.features(images())).pose.dtype == jnp.bfloat16
    output, expected = run(coarse, images(), labels()), run(exact, images(), labels())
    assert {x.dtype for x in jax.tree.leaves(output)} == {jnp.dtype("float32")}
    for name in ("lengths", "coupling", "reconstruction"):
        ours, theirs = getattr(output, name), getattr(expected, name)
        assert_close(ours, theirs, dtype="bfloat16", reduction_length=POSITIONS * 3)


def test_coarse_parameters():
    model = small(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    assert model.class_caps.kernel.dtype == jnp.bfloat16
    assert run(model, images(jnp.bfloat16)).lengths.dtype == jnp.float32


def test_float64_throughout():
    with jax.enable_x64(True):
        model = small(dtype=jnp.float64, param_dtype=jnp.float64)
        output = run(model, images(jnp.float64), labels())
        assert {x.dtype for x in jax.tree.leaves(output)} == {jnp.dtype("float64")}
        narrow = jax.tree.map(lambda x: x.astype(jnp.float32), nnx.state(model, nnx.Param))
        lengths = output.lengths
    exact = small()
    nnx.update(exact, narrow)
    assert_close(run(exact, images()).lengths, lengths, dtype="float32", reduction_length=200)


@pytest.mark.parametrize("shape", [(6, 17, 3), (12, 6, 3), (4, 4, 3)])
def test_images_that_are_too_small_are_refused(shape):
    with pytest.raises(ValueError, match="does not fit on an input of .*: choose a smaller kernel"):
        small(image_shape=shape)


@pytest.mark.parametrize("graph", [True, False], ids=["graph", "tree"])
@pytest.mark.parametrize("routing", ["dynamic", "dynamic-prior"])
def test_the_network_is_taken_apart_and_trained_in_both_modes_of_nnx(graph, routing):
    with nnx.set_graph_mode(graph):
        model = small(routing=create_routing(routing))
        graphdef, params, rest = nnx.split(model, nnx.Param, ...)

        @jax.jit
        @jax.value_and_grad
        def step(params):
            return loss(nnx.merge(graphdef, params, rest), images(), labels())

        value, gradients = step(params)
        stepped = jax.tree.map(lambda p, g: p - 0.01 * g, params, gradients)
        assert step(stepped)[0] < value
        for path, gradient in jax.tree.leaves_with_path(gradients):
            assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)


def test_the_gradient_agrees_with_finite_differences():
    with jax.enable_x64(True):
        model = small(dtype=jnp.float64, param_dtype=jnp.float64)
        graphdef, params = nnx.split(model)
        x, y = images(jnp.float64), labels()

        @jax.jit
        def value(params):
            return loss(nnx.merge(graphdef, params), x, y)

        rng = np.random.default_rng(1)
        direction = jax.tree.map(
            lambda p: jnp.asarray(rng.standard_normal(p.shape)) / math.sqrt(count(model)), params
        )
        slope = sum(
            jnp.vdot(g, d)
            for g, d in zip(
                jax.tree.leaves(jax.jit(jax.grad(value))(params)),
                jax.tree.leaves(direction),
                strict=True,
            )
        )
        ahead, behind = (
            value(jax.tree.map(lambda p, d, h=h: p + h * d, params, direction))
            for h in (1e-5, -1e-5)
        )
        # Right to the square of the step and to the rounding divided by the step.
        np.testing.assert_allclose(slope, (ahead - behind) / 2e-5, rtol=1e-6)


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
        assert_close(ours, theirs, reduction_length=BATCH * POSITIONS)
