"""Heinsen's routing of 2022 against a loop in float64 NumPy, and what is particular of it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Sizes, route, trace
from capsjax.routing import Heinsen2022, Heinsen2022Trace
from tests.capsjax.routing.family import assert_slopes_agree, assert_traces_agree, built
from tests.tolerance import assert_close

B, I, K, J, D = 3, 6, 4, 5, 7  # noqa: E741
SIZES = Sizes(I, K, J, D)
# A sum over the input capsules, a normalisation and two products: in each of 3 iterations.
TERMS = 3 * I * J * D


def draw(*shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


VOTES, POSE = draw(B, I, J, D), draw(B, I, K, seed=1)
ACTIVATION = np.random.default_rng(2).uniform(0.1, 0.9, (B, I)).astype(np.float32)


def make(sizes=SIZES, seed=0, **options):
    """A routing whose biases are drawn, too, so that they are seen."""
    routing = built(Heinsen2022(**options), sizes, seed=seed)
    for number, bias in enumerate((routing.B_G2, routing.B_S, routing.B_A)):
        bias[...] = jnp.asarray(draw(*bias.shape, seed=number))
    return routing


def wide(routing):
    """The parameters in float64, by name."""
    parameters = nnx.to_pure_dict(nnx.state(routing, nnx.Param))
    return {name: np.asarray(array, np.float64) for name, array in parameters.items()}


def logistic(x):
    return 1 / (1 + np.exp(-x))


def normalised(x, eps=1e-5):
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)


def numpy_trace(p, votes, activation, pose, iterations, normalize=True, eps=1e-5):
    """Every iteration on one example, an output capsule at a time: arrays `[N, ...]`."""
    I, J, D = votes.shape  # noqa: E741
    zeros = functools.partial(np.zeros, dtype=np.result_type(votes, activation, pose, *p.values()))
    x_pred, S = zeros((J, pose.shape[1])), zeros((I, J))
    steps = []
    for _ in range(iterations):
        R = np.exp(S) / np.exp(S).sum(axis=1, keepdims=True)
        D_use, D_ign = zeros((I, J)), zeros((I, J))
        phi, x_out, a = zeros((I, J)), zeros((J, D)), zeros(J)
        for j in range(J):
            D_use[:, j] = activation * R[:, j]
            D_ign[:, j] = activation * (1 - R[:, j])
            phi[:, j] = p["beta_use"][:, j] * D_use[:, j] - p["beta_ign"][:, j] * D_ign[:, j]
            x_out[j] = sum(phi[i, j] * votes[i, j] for i in range(I))
        x_norm = normalised(x_out, eps)
        x_last = x_norm if normalize else x_out
        for j in range(J):
            a[j] = x_last[j] @ p["W_A"][j] / np.sqrt(J) + p["B_A"][j]
        steps.append((x_pred, S, R, D_use, D_ign, phi, x_out, x_last, a))
        x_pred, S = np.zeros_like(x_pred), np.zeros_like(S)
        for j in range(J):
            x_pred[j] = (p["W_G1"].T @ x_norm[j]) * p["W_G2"][j] + p["B_G2"][j]
            for i in range(I):
                score = pose[i] @ x_pred[j] * p["W_S"][i, j] + p["B_S"][i, j]
                S[i, j] = np.log(logistic(score))
    return Heinsen2022Trace(*(np.stack(arrays) for arrays in zip(*steps, strict=True)))


@nnx.jit
def routed_and_traced(routing, votes, activation, pose):
    return route(routing, votes, activation, pose=pose), trace(
        routing, votes, activation, pose=pose
    )


@functools.cache
def outputs(**options):
    return routed_and_traced(make(**options), VOTES, ACTIVATION, POSE)


@pytest.mark.parametrize(
    "options",
    [{"iterations": 1}, {}, {"iterations": 3, "normalize": False, "epsilon": 0.1}],
    ids=str,
)
def test_every_iteration_is_that_of_a_plain_loop(options):
    routed, traced = outputs(**options)
    parameters = wide(make())
    iterations = options.get("iterations", 2)
    traces = [
        numpy_trace(
            parameters,
            *(x.astype(np.float64) for x in example),
            iterations,
            options.get("normalize", True),
            options.get("epsilon", 1e-5),
        )
        for example in zip(VOTES, ACTIVATION, POSE, strict=True)
    ]
    expected = Heinsen2022Trace(*(np.stack(arrays) for arrays in zip(*traces, strict=True)))
    assert_traces_agree(traced, expected, TERMS, "float32")
    last = Heinsen2022Trace(*(array[:, -1] for array in expected))
    assert_close(routed.pose, last.x_norm, dtype="float32", reduction_length=TERMS)
    assert_close(routed.coupling, last.R, dtype="float32", reduction_length=TERMS)
    assert_close(routed.activation, logistic(last.a_out), dtype="float32", reduction_length=TERMS)


def published(p, x_inp, f, scores, iterations=2):
    """The author's routing of vectors `[I, K]` as it is published, `A` and `F` included."""
    scaled = x_inp / np.sqrt(len(x_inp))
    activation = logistic((scaled * scores["W_A"]).sum(-1) + scores["B_A"])
    votes = np.einsum("ik,jk,kd->ijd", scaled, f["W_F1"], f["W_F2"]) + f["B_F2"]
    return numpy_trace(p, votes, activation, x_inp, iterations).x_norm[-1]


def test_two_in_sequence_are_two_of_the_published_ones():
    # The activations that the first one returns are those that the published second begins with.
    L, E = 3, 8
    first, second = make(), make(Sizes(J, D, L, E), seed=1)
    random = np.random.default_rng(3)
    a = {"W_A": random.standard_normal((I, K)), "B_A": random.standard_normal(I)}
    f, g = (
        {
            "W_F1": random.standard_normal((n, d_in)),
            "W_F2": random.standard_normal((d_in, d_out)),
            "B_F2": random.standard_normal((n, d_out)),
        }
        for n, d_in, d_out in ((J, K, D), (L, D, E))
    )
    x = POSE[0].astype(np.float64)
    x_hid = published(wide(first), x, f, a)
    x_out = published(wide(second), x_hid, g, wide(first))

    def votes(f, x):
        f = {name: jnp.asarray(array, jnp.float32) for name, array in f.items()}
        made = jnp.einsum("ik,jk,kd->ijd", x / np.sqrt(len(x)), f["W_F1"], f["W_F2"])
        return made + f["B_F2"][None]

    scores = logistic((x / np.sqrt(I) * a["W_A"]).sum(-1) + a["B_A"])

    @nnx.jit
    def run(first, second, activation, pose):
        hid = first(votes(f, pose), activation, pose=pose)
        return hid, second(votes(g, hid.pose), hid.activation, pose=hid.pose)

    hid, out = run(first, second, scores.astype(np.float32), POSE[0])
    assert_close(hid.pose, x_hid, dtype="float32", reduction_length=TERMS)
    assert_close(out.pose, x_out, dtype="float32", reduction_length=2 * TERMS)


def test_an_input_capsule_is_shared_out_and_its_credit_may_be_negative():
    routed, traced = outputs()
    assert_close(traced.R[:, 0], np.full((B, I, J), 1 / J), dtype="float32")
    assert_close(routed.coupling.sum(-1), np.ones((B, I)), dtype="float32", reduction_length=J)
    assert np.abs(traced.R[:, 1] - 1 / J).max() > 0.1
    assert traced.phi.min() < -0.1
    assert traced.phi.max() > 0.1


def test_the_output_that_predicts_an_input_better_gets_more_of_it():
    routing = make()
    routing.W_S[...] = jnp.ones((I, J))
    routing.B_S[...] = jnp.zeros((I, J))
    x_pred = outputs()[1].x_pred[:, 1]
    similar = jnp.repeat(x_pred[:, 2:3], I, axis=1) / 4
    _, traced = routed_and_traced(routing, VOTES, ACTIVATION, similar)
    closest = jnp.argmax(jnp.einsum("bjk,bik->bij", x_pred, similar), axis=-1)
    np.testing.assert_array_equal(jnp.argmax(traced.R[:, 1], axis=-1), closest)


def test_poses_are_normalised_or_not():
    plain = outputs(iterations=3, normalize=False, epsilon=0.1)[0].pose
    pose = outputs()[0].pose
    zeros, ones = np.zeros((B, J)), np.ones((B, J))
    assert np.abs(pose.mean(-1) - zeros).max() < 1e-6
    assert np.abs(pose.var(-1) - ones).max() < 1e-3  # epsilon
    assert np.abs(plain.mean(-1)).max() > 0.1


def test_a_capsule_of_one_component_is_left_as_it_is():
    routing = make(Sizes(I, K, J, 1))
    routed, traced = routed_and_traced(routing, VOTES[..., :1], ACTIVATION, POSE)
    np.testing.assert_array_equal(routed.pose, traced.x_out[:, -1])
    assert np.abs(routed.pose).max() > 0.1


def test_it_starts_from_the_deviations_of_the_published_one():
    sizes = Sizes(40, 64, 30, 50)
    routing = Heinsen2022().build(sizes, param_dtype=jnp.float32, rngs=nnx.Rngs(0))
    expected = {
        "W_G1": ((50, 64), 50**-0.5),
        "W_G2": ((30, 64), 1),
        "B_G2": ((30, 64), 0),
        "W_S": ((40, 30), 64**-0.5),
        "B_S": ((40, 30), 0),
        "beta_use": ((40, 30), 1),
        "beta_ign": ((40, 30), 1),
        "W_A": ((30, 50), 2 * 50**-0.5),
        "B_A": ((30,), 0),
    }
    parameters = wide(routing)
    assert sorted(parameters) == sorted(expected)
    for name, (shape, deviation) in expected.items():
        assert parameters[name].shape == shape, name
        # Six standard errors of a deviation from 1200 numbers.
        assert abs(parameters[name].std() - deviation) <= 0.13 * deviation, name
    assert np.abs(parameters["beta_use"] - parameters["beta_ign"]).max() > 1


def test_the_parameters_have_the_dtype_that_is_asked_for():
    routing = Heinsen2022().build(SIZES, param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    assert {x.dtype for x in jax.tree.leaves(nnx.state(routing, nnx.Param))} == {
        jnp.dtype("bfloat16")
    }


def test_gradients_flow_through_every_iteration_to_everything():
    parameters = wide(make())

    def ours(votes, activation, pose, **parameters):
        routing = built(Heinsen2022(3), SIZES, "float64")
        for name, array in parameters.items():
            getattr(routing, name)[...] = array
        return routing(votes, activation, pose=pose)

    def loop(votes, activation, pose, **parameters):
        traced = numpy_trace(parameters, votes, activation, pose, 3)
        return traced.x_norm[-1], logistic(traced.a_out[-1])

    example = {"votes": VOTES[0], "activation": ACTIVATION[0], "pose": POSE[0]}
    assert_slopes_agree(ours, loop, {**example, **parameters}, TERMS)


def test_other_sizes_are_refused():
    message = r"cannot route votes of shape \(7, 5, 7\) of poses of shape \(7, 4\)"
    with pytest.raises(ValueError, match=message):
        route(make(), jnp.zeros((B, 7, J, D)), jnp.ones((B, 7)), pose=jnp.zeros((B, 7, K)))
    with pytest.raises(ValueError, match=r"poses of shape \(6, 5\)"):
        route(make(), jnp.asarray(VOTES), jnp.ones((B, I)), pose=jnp.zeros((B, I, 5)))
    with pytest.raises(ValueError, match="Heinsen2022 needs the poses"):
        route(make(), jnp.asarray(VOTES), jnp.ones((B, I)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"iterations": 0}, "iterations must be .* at least 1, not 0"),
        ({"normalize": 1}, "normalize must be True or False, not 1"),
        ({"epsilon": 2}, "epsilon must be a number above 0 and at most 1"),
        ({"epsilon": 0}, "epsilon must be a number above 0 and at most 1"),
    ],
)
def test_wrong_values_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        Heinsen2022(**options)
