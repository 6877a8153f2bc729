"""Capsules on a grid against the routing of each window by hand, with every routing there is."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import (
    Capsules,
    ClassCaps,
    ConvCaps,
    ConvPrimaryCaps,
    DenseCaps,
    DynamicRouting,
    GridShape,
    Routed,
    Squash,
    UniformRouting,
    create_routing,
    list_routings,
    norm,
    route,
)
from tests.tolerance import assert_close

GRID = GridShape(height=4, width=5, types=2, dim=4)
BATCH = 2


def draw(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), jnp.float32)


def capsules(shape=GRID, seed=0):
    return Capsules(
        draw(BATCH, *shape, seed=seed),
        jax.nn.sigmoid(draw(BATCH, *shape[:3], seed=seed + 1)),
    )


def layer(**options):
    options = {"kernel_size": 2, "types": 3, "dim": 4, "routing": DynamicRouting(2)} | options
    return ConvCaps(GRID, **options, rngs=nnx.Rngs(0))


@nnx.jit
def run(layer, below):
    return layer(below)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("transform", ["linear", "matrix"])
def test_each_window_is_routed_by_itself(stride, transform):
    conv = layer(stride=stride, competition="patch", transform=transform)
    below = capsules()
    above, coupling = run(conv, below)
    p, q = conv.windows.counts
    assert (p, q) == ((4 - 2) // stride + 1, (5 - 2) // stride + 1)
    assert above.pose.shape == (BATCH, *conv.output_shape) == (BATCH, p, q, 3, 4)
    kernel = np.asarray(conv.kernel[...], np.float64)
    for y in range(p):
        for x in range(q):
            window = (
                slice(None),
                slice(y * stride, y * stride + 2),
                slice(x * stride, x * stride + 2),
            )
            pose = np.asarray(below.pose[window], np.float64).reshape(BATCH, 8, 4)
            if transform == "linear":
                votes = np.einsum("ijdk,bik->bijd", kernel, pose)
            else:
                votes = pose.reshape(BATCH, 8, 1, 2, 2) @ kernel
            votes = jnp.asarray(votes.reshape(BATCH, 8, 3, 4), jnp.float32)
            routed = route(DynamicRouting(2), votes, jnp.ones((BATCH, 8)))
            assert_close(above.pose[:, y, x], routed.pose, reduction_length=2 * 8 * 4)
            assert_close(above.activation[:, y, x], routed.activation, reduction_length=2 * 8 * 4)
            assert_close(coupling[:, y, x], routed.coupling, reduction_length=2 * 8 * 4)


def test_capsules_compete_over_all_windows_that_see_them():
    conv = layer(routing=UniformRouting())
    _, coupling = run(conv, capsules())
    p, q = conv.windows.counts
    total = np.zeros((BATCH, 4, 5, 2))
    seen_by = np.zeros((4, 5))
    for y in range(p):
        for x in range(q):
            shares = np.asarray(coupling[:, y, x]).reshape(BATCH, 2, 2, 2, 3)
            total[:, y : y + 2, x : x + 2] += shares.sum(-1)
            seen_by[y : y + 2, x : x + 2] += 1
    assert_close(total, np.ones(total.shape), dtype="float32", reduction_length=12)
    # Uniform: one over the number of parents, four windows of three types in the middle.
    assert_close(coupling[:, 1, 1, -1], np.full((BATCH, 3), 1 / 12), dtype="float32")
    assert seen_by[0, 0] == 1
    assert_close(coupling[:, 0, 0, 0], np.full((BATCH, 3), 1 / 3), dtype="float32")


def test_what_leaks_is_shared_out_over_all_windows_too():
    # In the first iteration all logits are zero, that of nothing included: 1 / (12 + 1).
    _, coupling = run(layer(routing=DynamicRouting(1, leaky=True)), capsules())
    assert_close(coupling[:, 1, 1, -1], np.full((BATCH, 3), 1 / 13), dtype="float32")


def test_where_a_capsule_lies_in_one_window_alone_both_competitions_are_the_same():
    below = capsules()
    # Two windows that do not overlap.
    every, patch = (
        run(layer(stride=2, competition=competition), below) for competition in ("all", "patch")
    )
    for ours, theirs in zip(jax.tree.leaves(every), jax.tree.leaves(patch), strict=True):
        assert_close(ours, theirs, reduction_length=2 * 8 * 4)
    overlapping = [
        run(layer(competition=competition), below)[1] for competition in ("all", "patch")
    ]
    assert np.abs(overlapping[0] - overlapping[1]).max() > 0.1


def test_outside_of_the_grid_nothing_is_there():
    conv = layer(
        padding="SAME",
        routing=lambda votes, activation: Routed(
            votes.sum(0), jnp.broadcast_to(activation.sum(), (3,)), votes[..., 0]
        ),
        competition="patch",
    )
    below = capsules()
    above, _ = run(conv, below)
    assert above.pose.shape == (BATCH, 4, 5, 3, 4)
    corner = below.activation[:, -1, -1].sum(-1)
    assert_close(above.activation[:, -1, -1], np.repeat(corner[:, None], 3, 1), reduction_length=8)


@pytest.mark.slow
@pytest.mark.parametrize("name", list_routings())
def test_every_routing_works_on_a_grid_and_above_it(name):
    """Forwards, backwards and over all windows; parameters are built for the window."""
    routing = create_routing(name)
    conv = ConvCaps(GRID, 3, 4, kernel_size=3, routing=routing, rngs=nnx.Rngs(0))
    top = ClassCaps(conv.output_shape, 2, 4, routing=create_routing(name), rngs=nnx.Rngs(1))
    model = nnx.List([conv, top])

    @nnx.jit
    def gradient_of(model, below):
        def loss(model, pose):
            above, _ = model[0](below._replace(pose=pose))
            classes, coupling = model[1](above)
            assert coupling.shape == (BATCH, 2 * 3 * 3, 2)
            return jnp.sum(classes.pose * jnp.cos(jnp.arange(4.0)).reshape(1, 1, 4)) + jnp.sum(
                classes.activation
            )

        return nnx.value_and_grad(loss, argnums=(0, 1))(model, below.pose)

    value, (of_model, of_pose) = gradient_of(model, capsules())
    assert np.isfinite(value)
    for array in (*jax.tree.leaves(of_model), of_pose):
        assert np.isfinite(array).all()
    assert np.abs(of_pose).max() > 0
    assert np.abs(of_model[0]["kernel"][...]).max() > 0


@pytest.mark.parametrize("competition", ["all", "patch", "dense"])
def test_steps_are_what_a_call_takes_at_once(competition):
    below, routing = capsules(), create_routing("inverted-attention", iterations=3)
    if competition == "dense":
        made = DenseCaps(40, 4, 3, 4, routing=routing, rngs=nnx.Rngs(0))
        below = Capsules(below.pose.reshape(BATCH, 40, 4), below.activation.reshape(BATCH, 40))
    else:
        made = layer(routing=routing, competition=competition)

    @nnx.jit
    def both(made, below):
        step = made.step(below)
        for _ in range(2):
            step = made.step(below, step.state)
        return (step.capsules, step.coupling), made(below)

    steps, call = both(made, below)
    for ours, theirs in zip(*map(jax.tree.leaves, (steps, call)), strict=True):
        assert_close(ours, theirs, reduction_length=3 * 40 * 4)
    assert np.abs(steps[1] - made.step(below).coupling).max() > 0.01


def test_a_routing_that_asks_for_no_softmax_cannot_compete_over_all_windows():
    def mean(votes, activation):
        pose = votes.mean(0)
        return Routed(pose, norm(pose), jnp.full(votes.shape[:2], 1 / len(votes)))

    with pytest.raises(ValueError, match="mean does not ask for a softmax.*competition='patch'"):
        layer(routing=mean)
    above, _ = run(layer(routing=mean, competition="patch"), capsules())
    assert np.isfinite(above.pose).all()


def test_coordinates_are_those_of_the_centre_of_each_position():
    top = ClassCaps(GridShape(2, 4, 3, 9), 2, 9, routing=UniformRouting(), rngs=nnx.Rngs(0))
    plain = ClassCaps(
        GridShape(2, 4, 3, 9), 2, 9, routing=UniformRouting(), coordinates=False, rngs=nnx.Rngs(0)
    )
    pose = draw(BATCH, 2, 4, 3, 9)
    added = np.asarray(top.votes(pose) - plain.votes(pose)).reshape(BATCH, 2, 4, 3, 2, 3, 3)
    expected = np.zeros(added.shape)
    expected[..., 0, 2] = np.array([0.25, 0.75])[:, None, None, None]
    expected[..., 1, 2] = np.array([0.125, 0.375, 0.625, 0.875])[:, None, None]
    np.testing.assert_allclose(added, expected, atol=1e-6)


def test_coordinates_of_corners_are_added_to_the_first_two_elements():
    make = functools.partial(
        ClassCaps, GridShape(2, 4, 3, 9), 2, 9, routing=UniformRouting(), coordinates_of="corner"
    )
    top, plain = make(rngs=nnx.Rngs(0)), make(coordinates=False, rngs=nnx.Rngs(0))
    pose = draw(BATCH, 2, 4, 3, 9)
    added = np.asarray(top.votes(pose) - plain.votes(pose)).reshape(BATCH, 2, 4, 3, 2, 9)
    expected = np.zeros(added.shape)
    expected[..., 0] = np.array([0, 0.5])[:, None, None, None]
    expected[..., 1] = np.array([0, 0.25, 0.5, 0.75])[:, None, None]
    np.testing.assert_allclose(added, expected, atol=1e-6)


def test_all_capsules_of_a_type_have_the_same_matrices():
    # Routing by agreement: where all votes count alike, their positions add up to the same.
    top = ClassCaps(GRID, 2, 4, routing=DynamicRouting(), rngs=nnx.Rngs(0))
    assert top.kernel.shape == (2, 2, 2, 2)
    below = capsules()
    moved = Capsules(jnp.roll(below.pose, 1, axis=1), below.activation)
    plain = functools.partial(
        ClassCaps, GRID, 2, 4, routing=DynamicRouting(), coordinates=False, rngs=nnx.Rngs(0)
    )()
    assert_close(plain(moved)[0].pose, plain(below)[0].pose, reduction_length=40)
    assert np.abs(top(moved)[0].pose - top(below)[0].pose).max() > 1e-4


@pytest.mark.parametrize("activation", ["sigmoid", "logit", "length", "one"])
def test_primary_capsules_are_a_convolution(activation):
    primary = ConvPrimaryCaps(
        (5, 6, 3),
        2,
        4,
        kernel_size=3,
        stride=2,
        padding="SAME",
        activation=activation,
        squash=Squash() if activation == "length" else None,
        rngs=nnx.Rngs(0),
    )
    features = draw(BATCH, 5, 6, 3)
    below = primary(features)
    assert below.pose.shape == (BATCH, *primary.output_shape) == (BATCH, 3, 3, 2, 4)
    maps = jax.lax.conv_general_dilated(
        features,
        primary.pose.kernel[...],
        (2, 2),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    pose = maps[..., :8].reshape(BATCH, 3, 3, 2, 4)
    expected = {
        "sigmoid": lambda: jax.nn.sigmoid(maps[..., 8:]),
        "logit": lambda: maps[..., 8:],
        "length": lambda: norm(Squash()(pose)),
        "one": lambda: jnp.ones((BATCH, 3, 3, 2)),
    }[activation]()
    assert_close(below.activation, expected, reduction_length=27)
    assert_close(
        below.pose, Squash()(pose) if activation == "length" else pose, reduction_length=27
    )


def test_primary_activations_start_where_they_are_told_to():
    primary = ConvPrimaryCaps(
        (5, 6, 3),
        2,
        4,
        activation_offset=-1.0,
        use_bias=False,
        kernel_init=nnx.initializers.ones,
        rngs=nnx.Rngs(0),
    )
    assert primary.pose.bias is None
    features = draw(BATCH, 5, 6, 3)
    below, total = primary(features), features.sum(-1, keepdims=True)
    assert_close(below.activation, jax.nn.sigmoid(jnp.repeat(total, 2, -1) - 1), reduction_length=3)
    assert_close(below.pose[..., 0, :], jnp.repeat(total, 4, -1), reduction_length=3)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer(kernel_size=6), "a 6x6 window does not fit on a grid of 4x5"),
        (lambda: layer(types=0), "types must be an integer of at least 1, not 0"),
        (lambda: layer(dim=-1), "dim must be an integer of at least 1, not -1"),
        (lambda: layer(stride=0), "stride must be an integer of at least 1, not 0"),
        (lambda: layer(competition="none"), "unknown competition 'none', choose from: all, patch"),
        (lambda: layer(transform="affine"), "unknown transform 'affine'"),
        (lambda: layer(dim=9, transform="matrix"), "needs poses that are square matrices"),
        (lambda: layer(routing="dynamic"), r"such as create_routing\('dynamic'\), not 'dynamic'"),
        (
            lambda: ClassCaps(
                GRID, 2, 4, routing=UniformRouting(), transform="linear", rngs=nnx.Rngs(0)
            ),
            "coordinates can be added to matrix poses alone",
        ),
        (
            lambda: ConvPrimaryCaps((4, 4, 1), 2, 4, activation="relu", rngs=nnx.Rngs(0)),
            "unknown activation 'relu', choose from: sigmoid, logit, length, one",
        ),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
