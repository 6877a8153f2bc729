"""DeepCaps: its sizes, its cells, its two routings."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import create_model, norm
from capsjax.models import DeepCaps
from capsjax.routing import EM, Dynamic, DynamicPrior, Uniform
from tests.tolerance import assert_close

SMALL = {
    "image_shape": (7, 10, 2),
    "num_classes": 7,
    "conv_features": 5,
    "types": 3,
    "dims": (2, 2),
    "class_dim": 4,
    "decoder_channels": 3,
    "decoder_features": (4,),
    "decoder_strides": (2,),
}
BATCH = 4
VOTERS = (2 * 3 + 4 * 5) * 3  # of the last cell on 2x3 positions, and of the one before on 4x5


def small(**options):
    return DeepCaps(**{**SMALL, **options}, rngs=nnx.Rngs(0))


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
    return nnx.eval_shape(lambda: create_model("deepcaps", rngs=nnx.Rngs(0), **options))


def test_the_published_networks_have_the_parameters_of_the_authors_code_but_for_its_biases():
    # The layers of the code, added up: convolution and normalisation, 15 layers of capsules, the
    # routed one, the class capsules of 640 or 2,560 below; and the decoder.
    capsules = 4 * 9 * 128 * 128 + 9 * 128 * 256 + 10 * 9 * 256 * 256 + 9 * 8 * 256
    encoder = 9 * 128 + 3 * 128 + capsules + 640 * 10 * 32 * 8
    decoder = 33 * 784 + 32 + 16 * 64 * 9 + 64 * 32 * 9 + 32 * 16 * 9 + 16 * 9 + 64 + 32 + 16 + 1
    assert count(published(decoder_features=None)) == encoder == 8_441_344
    assert count(published()) == encoder + decoder == 8_499_761
    large = {
        "image_shape": (64, 64, 3),
        "decoder_features": (64, 32, 16, 8),
        "decoder_strides": (1, 2, 2, 2),
    }
    assert count(published(**large)) == 13_426_419


def test_outputs_have_the_documented_shapes(model):
    output = run(model, images())
    assert output.capsules.pose.shape == (BATCH, 7, 4)
    assert output.lengths.shape == (BATCH, 7)
    assert output.coupling.shape == (BATCH, VOTERS, 7)
    assert output.reconstruction.shape == (BATCH, 7, 10, 2)
    assert_close(output.lengths, norm(output.capsules.pose), reduction_length=4)
    without = nnx.eval_shape(lambda: small(decoder_features=None)(images()))
    assert without.reconstruction is None


def test_labels_choose_the_capsule_that_is_decoded_and_nothing_else(model):
    labels = jnp.arange(BATCH, dtype=jnp.int32)
    longest, labelled = run(model, images()), run(model, images(), labels)
    np.testing.assert_array_equal(longest.lengths, labelled.lengths)
    assert (longest.reconstruction != labelled.reconstruction).any()


def test_a_cell_adds_what_a_shortcut_makes_of_its_first_layer(model):
    cell, routed = model.cells
    x = jnp.asarray(np.random.default_rng(1).standard_normal((1, 7, 10, 5)), jnp.float32)
    first = cell.enter(x).pose
    assert first.shape == (1, 4, 5, 3, 2)
    inside = first.reshape(1, 4, 5, 6)
    last = cell.leave(cell.middle(inside).pose.reshape(1, 4, 5, 6)).pose
    assert_close(cell(x), last + cell.shortcut(inside).pose, reduction_length=54)
    assert not cell.is_routed
    assert routed.is_routed
    assert isinstance(routed.shortcut, capsjax.layers.Conv3dCaps)


def test_the_capsules_of_the_last_two_cells_vote_the_last_first(model):
    @nnx.jit
    def class_capsules(model, x):
        x = model.norm(nnx.relu(model.convolution(x)))
        earlier = model.cells[0](x)
        later = model.cells[1](earlier.reshape(BATCH, 4, 5, 6))
        pose = jnp.concatenate([p.reshape(BATCH, -1, 2) for p in (later, earlier)], axis=1)
        return model.class_caps(capsjax.Capsules(pose, norm(pose)))[0].pose

    actual, expected = run(model, images()).capsules.pose, class_capsules(model, images())
    assert_close(actual, expected, reduction_length=VOTERS * 3)


def test_poses_begin_neither_short_nor_all_of_length_one():
    options = {"image_shape": (32, 32, 1), "types": 8, "dims": (4, 8, 8, 8)}
    model = small(**options, decoder_features=None)

    @nnx.jit
    def lengths(model, x):
        x = model.norm(nnx.relu(model.convolution(x)))
        lengths = []
        for cell in model.cells:
            pose = cell(x)
            lengths.append(norm(pose))
            x = pose.reshape(*pose.shape[:3], -1)
        return lengths

    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 1)), jnp.float32)
    for of_cell in lengths(model, x):
        # The sum of two poses, of a length below 1 each; one, where the routed one is short yet.
        assert 0.5 < np.median(of_cell) < 1.5


@pytest.mark.parametrize(
    ("options", "grid", "classes"),
    [
        ({"routing": "em"}, Dynamic, EM),
        ({"routing": Uniform()}, Dynamic, Uniform),
        ({"grid_routing": "dynamic-prior"}, DynamicPrior, Dynamic),
    ],
    ids=["classes", "object", "grid"],
)
def test_other_routings(options, grid, classes):
    model = nnx.eval_shape(lambda: small(**options))
    for layer, expected in ((model.cells[-1].shortcut, grid), (model.class_caps, classes)):
        routing = layer.routing
        assert isinstance(getattr(routing, "settings", routing), expected)
    output = nnx.eval_shape(lambda: small(**options)(images()))
    assert output.coupling.shape == (BATCH, VOTERS, 7)


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
    assert_close(output.lengths, exact.lengths, dtype="bfloat16", reduction_length=VOTERS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (2,)}, r"dims are of two cells at least, .* not \(2,\)"),
        ({"dims": (2, 3)}, r"the last two have the same, .* not \(2, 3\)"),
        ({"dims": (2, 0)}, "each value of dims must be an integer of at least 1, not 0"),
        ({"types": 0}, "types must be an integer of at least 1, not 0"),
        ({"decoder_strides": (1, 2)}, "of the same convolutions, but there are 1 and 2"),
        ({"grid_routing": "nonsense"}, "unknown routing 'nonsense', choose from"),
        ({"dtype": "float33"}, "dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: small(**options))
