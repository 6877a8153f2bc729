"""Capsules that route by attention: published size, and the order in which layers iterate."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import Capsules, Routed
from capsjax.models import AttentionCapsNet
from capsjax.routing import InvertedAttention, IterativeRouting, Uniform
from tests.tolerance import assert_close

SMALL = {
    "image_shape": (7, 9, 2),
    "num_classes": 5,
    "backbone_features": (8,),
    "backbone_blocks": (1,),
    "backbone_strides": (2,),
    "primary_types": 3,
    "caps_types": (4, 2),
    "caps_kernels": (2, 2),
    "caps_strides": (1, 1),
    "pose_dim": 9,
}
BATCH = 3
TERMS = BATCH * 7 * 9


def small(**options):
    return AttentionCapsNet(**{**SMALL, **options}, rngs=nnx.Rngs(0))


def images(shape=SMALL["image_shape"]):
    return jnp.asarray(np.random.default_rng(0).uniform(size=(BATCH, *shape)), jnp.float32)


@nnx.jit
def run(model, images):
    return model(images)


def count(model):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


def test_the_published_network_has_the_published_number_of_parameters():
    model = nnx.eval_shape(
        lambda: AttentionCapsNet(image_shape=(32, 32, 3), num_classes=10, rngs=nnx.Rngs(0))
    )
    assert count(model) == 1_828_817
    assert model.backbone.output_shape == (16, 16, 128)
    assert [layer.output_shape[:2] for layer in model.conv_caps] == [(7, 7), (5, 5)]
    assert model.class_caps.kernel.shape == (800, 10, 4, 4)


@pytest.mark.parametrize(("shape", "classes"), [((7, 9, 2), 5), ((8, 6, 1), 4)])
def test_outputs_have_the_documented_shapes(shape, classes):
    model = small(image_shape=shape, num_classes=classes)
    output = nnx.eval_shape(lambda model: model(images(shape)), model)
    height, width, types, dim = model.conv_caps[1].output_shape
    assert output.capsules.pose.shape == (BATCH, classes, dim)
    assert output.coupling.shape == (BATCH, height * width * types, classes)
    assert output.reconstruction is None
    assert output.lengths.shape == output.logits.shape == (BATCH, classes)


def test_only_classes_have_a_presence():
    model = small()
    assert not any(layer.routing.settings.presence for layer in model.conv_caps)
    assert model.class_caps.routing.settings.presence


def primary_of(model):
    primary = model.primary_caps(model.backbone(images()))
    return primary._replace(pose=model.primary_norm(primary.pose))


def flat(capsules):
    return Capsules(*(x.reshape(BATCH, -1, *x.shape[4:]) for x in capsules))


def test_layers_iterate_from_what_the_iteration_before_has_left_below():
    model = small(routing=InvertedAttention(iterations=3))
    model.eval()

    @nnx.jit
    def by_hand(model):
        primary = primary_of(model)
        low, high, top = *model.conv_caps, model.class_caps
        # The first iteration goes upwards.
        a = low.iterate(primary)
        b = high.iterate(a.capsules)
        c = top.iterate(flat(b.capsules))
        # Then each sees what the one below was, not what it has become.
        b2 = high.iterate(a.capsules, b.state)
        c2 = top.iterate(flat(b.capsules), c.state)
        c3 = top.iterate(flat(b2.capsules), c2.state)
        return c3, c.capsules

    expected, first = by_hand(model)
    output = run(model, images())
    assert_close(output.lengths, jax.nn.sigmoid(output.logits), dtype="float32")
    assert_close(output.capsules.pose, expected.capsules.pose, reduction_length=TERMS)
    assert_close(output.coupling, expected.coupling, reduction_length=TERMS)
    assert np.abs(output.capsules.pose - first.pose).max() > 1e-3


def test_sequentially_a_layer_is_done_before_the_next_begins():
    model = small(sequential=True)
    model.eval()

    @nnx.jit
    def by_hand(model):
        capsules = primary_of(model)
        for layer in model.conv_caps:
            capsules, _ = layer(capsules)
        return model.class_caps(flat(capsules))[0].pose

    poses = run(model, images()).capsules.pose
    assert_close(poses, by_hand(model), reduction_length=TERMS)
    model = small()
    model.eval()
    assert np.abs(run(model, images()).capsules.pose - poses).max() > 1e-3


def mean(votes, activation):
    pose = votes.mean(0)
    return Routed(pose, jax.nn.sigmoid(pose[:, 0]), jnp.ones(votes.shape[:2]))


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize("routing", ["dynamic", Uniform(), mean])
def test_other_routings(routing, sequential):
    def output():
        return small(routing=routing, sequential=sequential)(images())

    if routing is mean and not sequential:
        with pytest.raises(ValueError, match=r"one iteration at a time.*not with mean: choose seq"):
            nnx.eval_shape(output)
    else:
        shapes = nnx.eval_shape(output)
        assert shapes.logits is None
        assert shapes.lengths.shape == (BATCH, 5)


class Mean(NamedTuple):
    pose: jax.Array
    taken: jax.Array


class MeanSoFar(IterativeRouting):
    """A routing of one's own: the mean of all votes so far, as often as it was taken."""

    iterations = 3

    def __call__(self, votes, activation):
        raise AssertionError("layers that route at once take single iterations")

    def first(self, inputs):
        return Mean(inputs.votes.mean(0), jnp.ones(len(inputs.votes)))

    def again(self, inputs, state, index):
        return Mean(state.pose + inputs.votes.mean(0), state.taken + 1)

    def outcome(self, state):
        n_in, n_out = len(state.taken), len(state.pose)
        coupling = jnp.broadcast_to(state.taken[:, None], (n_in, n_out))
        return Routed(state.pose, jax.nn.sigmoid(state.pose[:, 0]), coupling)


def test_any_routing_that_iterates_routes_concurrently():
    output = run(small(routing=MeanSoFar()), images())
    np.testing.assert_array_equal(output.coupling, np.full(output.coupling.shape, 3))
    assert output.logits is None


def test_gradients_reach_every_parameter_and_a_shared_bias_through_lengths_alone():
    graphdef, params, rest = nnx.split(small(), nnx.Param, ...)

    @jax.jit
    @jax.grad
    def gradient(params):
        lengths = nnx.merge(graphdef, params, rest, copy=True)(images()).lengths
        targets = jax.nn.one_hot(jnp.arange(BATCH, dtype=jnp.int32), 5)
        return jnp.sum(capsjax.margin_loss(lengths, targets))

    for path, leaf in jax.tree.leaves_with_path(gradient(params)):
        assert np.isfinite(leaf).all(), jax.tree_util.keystr(path)
        assert np.abs(leaf).max() > 0, jax.tree_util.keystr(path)


def test_statistics_are_of_the_batch_in_training_and_learned_in_test():
    model = small()
    run(model, images())
    model.eval()
    together, alone = run(model, images()), run(model, images()[:1])
    assert_close(together.logits[:1], alone.logits, reduction_length=TERMS)
    model.train()
    assert np.abs(run(model, images()).logits - together.logits).max() > 1e-3


def test_coarse_computation_keeps_parameters_and_outputs_in_float32():
    narrow = small(dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)
    shapes = nnx.eval_shape(lambda model: model(images().astype(jnp.bfloat16)), narrow)
    assert shapes.lengths.dtype == jnp.float32
    coarse = small(dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(coarse, nnx.Param))} == {
        jnp.dtype("float32")
    }
    output, exact = run(coarse, images()), run(small(), images())
    assert {x.dtype for x in jax.tree.leaves(output)} == {jnp.dtype("float32")}
    assert 0 < np.abs(output.lengths - exact.lengths).max() < 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be an integer of at least 1, not 0"),
        ({"primary_types": "3"}, "primary_types must be an integer of at least 1, not '3'"),
        ({"image_shape": (7, 9)}, r"image_shape is \(height, width, channels\)"),
        ({"caps_kernels": (2, 9)}, "a 9x9 kernel does not fit on an input of 3x4"),
        ({"caps_strides": (1,)}, "each capsule layer .* caps_strides has 1"),
        ({"backbone_blocks": (1, 2)}, "each stage of the backbone .* backbone_blocks has 2"),
        (
            {"backbone_features": (), "backbone_blocks": (), "backbone_strides": ()},
            "backbone_features must have a value for each stage",
        ),
        ({"pose_dim": 12}, "pose_dim must be the square of at least 2, such as 16, not 12"),
        ({"sequential": 1}, "sequential must be True or False, not 1"),
        ({"routing": "magic"}, "unknown routing 'magic', choose from: "),
        ({"param_dtype": "int8"}, "param_dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda: small(**options))


def test_a_layer_whose_routing_does_not_iterate_does_not():
    model = small(routing=mean, sequential=True)
    below = Capsules(jnp.zeros((1, 4, 5, 3, 9)), jnp.zeros((1, 4, 5, 3)))
    with pytest.raises(ValueError, match="mean cannot take one iteration at a time"):
        model.conv_caps[0].iterate(below)
