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
    GridShape,
    Routed,
    create_routing,
    list_routings,
    norm,
    route,
)
from capsjax.layers import Conv3dCaps
from capsjax.ops import parts as ops_parts
from capsjax.routing import Dynamic, Uniform
from tests.capsjax import meshes
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
    options = {"kernel_size": 2, "types": 3, "dim": 4, "routing": Dynamic(2)} | options
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
            routed = route(Dynamic(2), votes, jnp.ones((BATCH, 8)))
            assert_close(above.pose[:, y, x], routed.pose, reduction_length=2 * 8 * 4)
            assert_close(above.activation[:, y, x], routed.activation, reduction_length=2 * 8 * 4)
            assert_close(coupling[:, y, x], routed.coupling, reduction_length=2 * 8 * 4)


def test_capsules_compete_over_all_windows_that_see_them():
    conv = layer(routing=Uniform())
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
    _, coupling = run(layer(routing=Dynamic(1, leaky=True)), capsules())
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


def drawing(votes, activation, *, softmax, key):
    """A routing that is given a key, and compares the positions of one example."""
    c = softmax(votes[..., 0]) * jax.random.uniform(key, (votes.shape[0], 1))
    pose = jnp.einsum("ij,ijd->jd", c, votes)
    return Routed(pose, norm(pose), c)


SOME = ("em", "inverted-attention", drawing)


@pytest.mark.parametrize(
    ("routing", "competition"),
    [(routing, competition) for routing in SOME for competition in ("all", "patch")],
)
def test_part_by_part_the_numbers_and_gradients_are_the_same(routing, competition):
    """Of three examples in two parts, forwards and backwards, with a mask and a key."""
    below = Capsules(draw(3, *GRID), jax.nn.sigmoid(draw(3, *GRID[:3], seed=1)))
    mask = draw(3, *GRID[:3], seed=2) > -1
    key = jax.random.key(0, impl="threefry2x32")
    found = {}
    for implementation in ("xla", "recompute"):
        conv = layer(routing=routing, competition=competition, implementation=implementation)
        graph, state = nnx.split(conv)

        def loss(state, below, graph=graph):
            (pose, activation), coupling = nnx.merge(graph, state)(below, mask=mask, key=key)
            return jnp.sum(pose**2) + jnp.sum(activation**2), (pose, activation, coupling)

        step = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
        found[implementation] = step(state, below)
    for ours, theirs in zip(*map(jax.tree.leaves, found.values()), strict=True):
        assert_close(ours, theirs, reduction_length=3 * 3 * 2 * 4 * 8 * 3)


def sum_of_squares(conv):
    """A function of the state of a layer and of capsules below it, and that state."""
    graph, state = nnx.split(conv)

    def loss(state, below):
        return jnp.sum(nnx.merge(graph, state)(below)[0].pose ** 2)

    return loss, state


@pytest.mark.parametrize(
    ("batch", "implementation", "size"),
    [(4, None, 4), (64, None, 4), (62, None, 2), (64, "xla", 64), (4, "recompute", 2)],
)
def test_a_program_has_the_votes_of_a_part_of_a_large_batch(
    batch, implementation, size, monkeypatch
):
    monkeypatch.setattr(ops_parts, "SMALLEST_PART", 4 * (3 * 4 * 8 * 3 * 4) * 4)
    loss, state = sum_of_squares(layer(implementation=implementation))
    grid = jax.ShapeDtypeStruct((batch, *GRID), jnp.float32)
    below = Capsules(grid, jax.ShapeDtypeStruct(grid.shape[:-1], jnp.float32))
    text = jax.jit(jax.grad(loss)).lower(state, below).as_text()
    assert [n for n in range(1, 65) if f"tensor<{n}x3x4x8x3x4xf32>" in text] == [size]


def test_examples_that_share_something_stay_together(monkeypatch):
    monkeypatch.setattr(ops_parts, "SMALLEST_PART", 1)
    loss, state = sum_of_squares(layer(routing=Dynamic(2, shared_logits=True), competition="patch"))
    below = capsules()
    text = jax.jit(loss).lower(state, below).as_text()
    assert f"tensor<{BATCH}x3x4x8x3x4xf32>" in text
    assert "while" not in text
    conv = layer(routing=Dynamic(2, shared_logits=True), implementation="recompute")
    with pytest.raises(ValueError, match=r"Dynamic shares something between all .* there is: xla"):
        conv(below)


@pytest.mark.parametrize(
    "options",
    [{}, {"transform": "matrix"}, {"routing": Uniform(), "competition": "patch"}],
    ids=["votes", "votes of matrices", "no votes"],
)
@pytest.mark.parametrize("mode", meshes.MODES)
def test_parts_of_a_batch_that_is_spread(mode, options):
    loss, state = sum_of_squares(layer(implementation="recompute", **options))
    below = Capsules(*(jnp.concatenate([x, 2 * x]) for x in capsules()))
    gradient, arguments = meshes.gradient(loss, mode, state, below)
    expected = jax.jit(jax.grad(loss))(state, below)
    for ours, theirs in zip(
        jax.tree.leaves(gradient(*arguments)), jax.tree.leaves(expected), strict=True
    ):
        assert_close(ours, theirs, reduction_length=4 * 12 * 8 * 4)


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


def test_a_routing_that_takes_no_softmax_cannot_compete_over_all_windows():
    def mean(votes, activation):
        pose = votes.mean(0)
        return Routed(pose, norm(pose), jnp.full(votes.shape[:2], 1 / len(votes)))

    with pytest.raises(ValueError, match="mean takes no softmax.*competition='patch'"):
        layer(routing=mean)
    above, _ = run(layer(routing=mean, competition="patch"), capsules())
    assert np.isfinite(above.pose).all()


def test_coordinates_are_those_of_the_centre_of_each_position():
    top = ClassCaps(GridShape(2, 4, 3, 9), 2, 9, routing=Uniform(), rngs=nnx.Rngs(0))
    plain = ClassCaps(
        GridShape(2, 4, 3, 9), 2, 9, routing=Uniform(), coordinates=False, rngs=nnx.Rngs(0)
    )
    pose = draw(BATCH, 2, 4, 3, 9)
    added = np.asarray(top.votes(pose) - plain.votes(pose)).reshape(BATCH, 2, 4, 3, 2, 3, 3)
    expected = np.zeros(added.shape)
    expected[..., 0, 2] = np.array([0.25, 0.75])[:, None, None, None]
    expected[..., 1, 2] = np.array([0.125, 0.375, 0.625, 0.875])[:, None, None]
    assert_close(added, expected, dtype="float32", reduction_length=3)


def test_coordinates_of_corners_are_added_to_the_first_two_elements():
    make = functools.partial(
        ClassCaps, GridShape(2, 4, 3, 9), 2, 9, routing=Uniform(), coordinates_of="corner"
    )
    top, plain = make(rngs=nnx.Rngs(0)), make(coordinates=False, rngs=nnx.Rngs(0))
    pose = draw(BATCH, 2, 4, 3, 9)
    added = np.asarray(top.votes(pose) - plain.votes(pose)).reshape(BATCH, 2, 4, 3, 2, 9)
    expected = np.zeros(added.shape)
    expected[..., 0] = np.array([0, 0.5])[:, None, None, None]
    expected[..., 1] = np.array([0, 0.25, 0.5, 0.75])[:, None, None]
    assert_close(added, expected, dtype="float32", reduction_length=3)


def test_all_capsules_of_a_type_have_the_same_matrices():
    # Routing by agreement: where all votes count alike, their positions add up to the same.
    top = ClassCaps(GRID, 2, 4, routing=Dynamic(), rngs=nnx.Rngs(0))
    assert top.kernel.shape == (2, 2, 2, 2)
    below = capsules()
    moved = Capsules(jnp.roll(below.pose, 1, axis=1), below.activation)
    plain = functools.partial(
        ClassCaps, GRID, 2, 4, routing=Dynamic(), coordinates=False, rngs=nnx.Rngs(0)
    )()
    assert_close(run(plain, moved)[0].pose, run(plain, below)[0].pose, reduction_length=40)
    assert np.abs(run(top, moved)[0].pose - run(top, below)[0].pose).max() > 1e-4


@pytest.mark.parametrize("competition", ["all", "patch"])
def test_a_grid_that_a_layer_is_not_made_for_is_refused(competition):
    plain = {"routing": Uniform(), "coordinates": False}
    layers = (
        layer(competition=competition),
        Conv3dCaps(GRID, 3, 4, kernel_size=2, stride=2, routing=Uniform(), rngs=nnx.Rngs(0)),
        ClassCaps(GRID, 2, 4, routing=Uniform(), rngs=nnx.Rngs(0)),
        ClassCaps(GRID, 2, 4, **plain, rngs=nnx.Rngs(0)),
    )
    right, (pose, activation) = r"must be of shape \[batch, 4, 5, 2", capsules()
    for made in layers:
        for shape in ((1, 1, 2, 4), (4, 6, 2, 4), (8, 10, 2, 4), (4, 5, 1, 4), (4, 5, 2, 5)):
            other = draw(BATCH, *shape)
            with pytest.raises(ValueError, match=rf"poses {right}, 4\], not \[{BATCH}, "):
                made(Capsules(other, activation))
            with pytest.raises(ValueError, match=f"poses {right}"):
                made.votes(other)
        for shape in ((1, 1, 2), (4, 6, 2), (4, 5, 1)):
            with pytest.raises(ValueError, match=rf"activations {right}\], not \[{BATCH}, "):
                made.iterations(Capsules(pose, draw(BATCH, *shape)))


TYPES_GRID = GridShape(height=5, width=4, types=3, dim=2)


def by_type(**options):
    options = {"kernel_size": 3, "types": 2, "dim": 4, "routing": Dynamic(2)} | options
    return Conv3dCaps(TYPES_GRID, **options, rngs=nnx.Rngs(0))


def below_types():
    pose = jnp.asarray(np.random.default_rng(0).standard_normal((BATCH, *TYPES_GRID)), jnp.float32)
    return Capsules(pose, norm(pose))


def votes_in_numpy(conv, pose, stride, padding):
    """`[batch, B, P, Q, types, dim]`, vote by vote."""
    kernel = np.asarray(conv.conv.kernel[...], np.float64)
    (top, bottom), (left, right) = padding
    padded = np.pad(
        np.asarray(pose, np.float64), [(0, 0), (top, bottom), (left, right), (0, 0), (0, 0)]
    )
    size = len(kernel)
    height, width, types, dim = conv.output_shape
    votes = np.zeros((BATCH, TYPES_GRID.types, height, width, types * dim))
    for y in range(height):
        for x in range(width):
            seen = padded[:, y * stride : y * stride + size, x * stride : x * stride + size]
            votes[:, :, y, x] = np.einsum("byxik,yxkd->bid", seen, kernel)
    return votes.reshape(BATCH, TYPES_GRID.types, height, width, types, dim)


@pytest.mark.parametrize(
    ("stride", "padding", "grid", "pads"),
    [
        (1, "VALID", (3, 2), ((0, 0), (0, 0))),
        (1, "SAME", (5, 4), ((1, 1), (1, 1))),
        (2, "SAME", (3, 2), ((1, 1), (0, 1))),
    ],
)
def test_every_type_votes_for_all_positions_with_the_same_filters(stride, padding, grid, pads):
    conv, below = by_type(stride=stride, padding=padding), below_types()
    assert conv.output_shape == (*grid, 2, 4)
    above, coupling = run(conv, below)
    votes = votes_in_numpy(conv, below.pose, stride, pads)
    assert coupling.shape == votes.shape[:-1]
    flat = jnp.asarray(votes.reshape(BATCH, TYPES_GRID.types, -1, 4), jnp.float32)
    assert_close(conv.votes(below.pose), flat, reduction_length=18)
    routed = route(Dynamic(2), flat, jnp.zeros((BATCH, TYPES_GRID.types)))
    assert_close(above.pose.reshape(routed.pose.shape), routed.pose, reduction_length=54)
    assert_close(above.activation, norm(above.pose), reduction_length=4)
    assert_close(coupling.reshape(routed.coupling.shape), routed.coupling, reduction_length=54)


def test_a_type_shares_itself_out_over_all_types_and_positions_jointly():
    _, coupling = run(by_type(), below_types())
    total = jnp.sum(coupling, axis=(2, 3, 4))
    assert_close(total, jnp.ones_like(total), reduction_length=12)
    assert np.abs(coupling - 1 / 12).max() > 0.001


def test_a_routing_that_asks_sees_types_as_a_whole():
    asked = {}

    def spy(votes, activation, *, pose):
        asked.update(activation=activation, pose=pose)
        return Dynamic(1)(votes, activation)

    below = below_types()
    jax.jit(lambda below: by_type(routing=spy)(below))(below)
    assert asked["pose"].shape == (TYPES_GRID.types, 5 * 4 * 2)
    assert asked["activation"].shape == (TYPES_GRID.types,)


def test_a_routing_with_parameters_is_built_for_types_and_all_positions():
    conv = by_type(routing=create_routing("dynamic-prior"))
    assert conv.routing.prior.shape == (TYPES_GRID.types, 3 * 2 * 2)


def test_coarse_votes_and_exact_capsules():
    conv = by_type(dtype=jnp.bfloat16)
    assert conv.votes(below_types().pose).dtype == jnp.bfloat16
    above, coupling = run(conv, below_types())
    assert above.pose.dtype == above.activation.dtype == coupling.dtype == jnp.float32


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layer(kernel_size=6), "a 6x6 kernel does not fit on an input of 4x5"),
        (lambda: layer(types=0), "types must be an integer of at least 1, not 0"),
        (lambda: layer(dim=-1), "dim must be an integer of at least 1, not -1"),
        (lambda: layer(stride=0), "stride must be an integer of at least 1, not 0"),
        (lambda: layer(competition="none"), "unknown competition 'none', choose from: all, patch"),
        (lambda: layer(transform="affine"), "unknown transform 'affine'"),
        (lambda: layer(dim=9, transform="matrix"), "needs poses that are square matrices"),
        (lambda: layer(routing="dynamics"), "unknown routing 'dynamics', choose from: dynamic,"),
        (
            lambda: ClassCaps(GRID, 2, 4, routing=Uniform(), transform="linear", rngs=nnx.Rngs(0)),
            "coordinates can be added to matrix poses alone",
        ),
        (lambda: layer(routing=Dynamic(softmax_over="in")), "capsules of Dynamic do not compete"),
        (lambda: layer(routing=Dynamic), r"a name of list_routings\(\) or a routing"),
        (lambda: layer(dtype=jnp.int32), "dtype must be a floating dtype such as 'float32', not"),
        (
            lambda: ClassCaps((5, 5, 4), 2, 4, routing=Uniform(), rngs=nnx.Rngs(0)),
            r"input_shape must be \(height, width, types, dim\), not \(5, 5, 4\)",
        ),
        (
            lambda: ClassCaps((5, 0, 4, 4), 2, 4, routing=Uniform(), rngs=nnx.Rngs(0)),
            "each value of input_shape must be an integer of at least 1, not 0",
        ),
        (lambda: by_type(kernel_size=6), "a 6x6 kernel does not fit on an input of 5x4"),
        (lambda: by_type(types=0), "types must be an integer of at least 1, not 0"),
        (lambda: by_type(stride=0), "stride must be an integer of at least 1, not 0"),
        (lambda: by_type(padding="FULL"), "unknown padding 'FULL', choose from: VALID, SAME"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()
