"""Capsules that route by attention: published size, and the order in which layers iterate."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Routed, create_routing
from capsjax.capsules import in_a_list
from capsjax.routing import IterativeRouting
from tests.capsjax.models import family
from tests.tolerance import assert_close

NAME = "attention_capsnet"
TERMS = 3 * 7 * 9


class TestAttentionCapsNet(family.Contract):
    name, below, dim, terms = NAME, 2 * 3 * 2, 9, TERMS


def test_the_published_network_has_the_published_number_of_parameters():
    model = family.published(NAME, (32, 32, 3), 10)
    assert family.count(model) == 1_828_817
    assert model.backbone.output_shape == (16, 16, 128)
    assert [layer.output_shape[:2] for layer in model.conv_caps] == [(7, 7), (5, 5)]
    assert model.class_caps.kernel.shape == (800, 10, 4, 4)


def test_only_classes_have_a_presence_and_logits():
    model = family.shapes(NAME)
    assert not any(layer.routing.settings.presence for layer in model.conv_caps)
    assert model.class_caps.routing.settings.presence
    output = family.step(NAME).output
    assert_close(output.lengths, jax.nn.sigmoid(output.logits))


def in_test(images, **options):
    """The network with the parameters of the small one, and its capsules before any routing."""
    numbers = family.small(NAME)
    model = nnx.merge(family.small(NAME, **options).test, numbers.params, numbers.stats, copy=True)
    primary = model.primary_caps(model.backbone(images))
    return model, primary._replace(pose=model.primary_norm(primary.pose))


def concurrently(model, primary):
    low, high, top = *model.conv_caps, model.class_caps
    # The first iteration goes upwards.
    a = low.iterate(primary)
    b = high.iterate(a.capsules)
    c = top.iterate(in_a_list(b.capsules))
    # Then each sees what the one below was, not what it has become.
    b2 = high.iterate(a.capsules, b.state)
    c2 = top.iterate(in_a_list(b.capsules), c.state)
    return top.iterate(in_a_list(b2.capsules), c2.state).capsules


def sequentially(model, primary):
    for layer in model.conv_caps:
        primary, _ = layer(primary)
    return model.class_caps(in_a_list(primary))[0]


def test_layers_iterate_from_what_the_iteration_before_has_left_below_or_one_after_the_other():
    @jax.jit
    def poses(images):
        results = []
        for order, sequential in ((concurrently, False), (sequentially, True)):
            model, primary = in_test(
                images,
                routing=create_routing("inverted-attention", iterations=3),
                sequential=sequential,
            )
            results.append((model(images).capsules.pose, order(model, primary).pose))
        return results

    (pose, expected), (sequential, expected_sequential) = poses(family.images(NAME))
    assert_close(pose, expected, reduction_length=TERMS)
    assert_close(sequential, expected_sequential, reduction_length=TERMS)
    assert np.abs(pose - sequential).max() > 1e-3


def mean(votes, activation):
    pose = votes.mean(0)
    return Routed(pose, jax.nn.sigmoid(pose[:, 0]), jnp.ones(votes.shape[:2]))


@pytest.mark.parametrize("sequential", [False, True])
@pytest.mark.parametrize(
    "routing", ["dynamic", create_routing("uniform"), mean], ids=["name", "object", "function"]
)
def test_other_routings(routing, sequential):
    options = {"routing": routing, "sequential": sequential}
    if routing is mean and not sequential:
        family.assert_refused(NAME, options, "one iteration at a time.*not with mean: choose seq")
    else:
        output = family.output_shapes(NAME, **options)
        assert output.logits is None
        assert output.lengths.shape == (family.BATCH, 5)


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
    model = family.small(NAME, routing=MeanSoFar())
    output = family.run(model.test, model.params, model.stats, family.images(NAME))
    np.testing.assert_array_equal(output.coupling, np.full(output.coupling.shape, 3))
    assert output.logits is None


def test_coarse_images_and_parameters_have_exact_outputs():
    options = {"dtype": jnp.bfloat16, "param_dtype": jnp.bfloat16}
    images = family.images(NAME, jnp.bfloat16)
    output = nnx.eval_shape(lambda: family.make(NAME, **options)(images))
    assert {leaf.dtype for leaf in jax.tree.leaves(output)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be an integer of at least 1, not 0"),
        ({"primary_types": "3"}, "primary_types must be an integer of at least 1, not '3'"),
        ({"image_shape": (7, 9)}, r"image_shape is \(height, width, channels\)"),
        ({"caps_kernels": (2, 9)}, "a 9x9 kernel does not fit on an input of 3x4"),
        ({"caps_strides": (1,)}, "each capsule layer .* caps_strides has 1"),
        ({"backbone_blocks": (1, 2)}, "each stage needs a value .* blocks has 2"),
        (
            {"backbone_features": (), "backbone_blocks": (), "backbone_strides": ()},
            "features must have a value for each stage",
        ),
        ({"pose_dim": 12}, "pose_dim must be the square of at least 2, such as 16, not 12"),
        ({"sequential": 1}, "sequential must be True or False, not 1"),
        ({"routing": "magic"}, "unknown routing 'magic', choose from: "),
        ({"param_dtype": "int8"}, "param_dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_named(options, message):
    family.assert_refused(NAME, options, message)
