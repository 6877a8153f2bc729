import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.config.settings import OPTIMIZERS
from train.learn.optimizer import build_optimizer, is_matrix, learning_rate, muon
from train.system.errors import UserError

BASE = FitConfig.of(steps=100, learning_rate=0.5, schedule="constant")


def rates(at, **changes) -> np.ndarray:
    """The learning rates of some steps of a run of 100."""
    schedule = learning_rate(BASE.changed(**changes), training_examples=1000)
    return np.asarray(schedule(np.asarray(at)))


# --- The learning rate


def test_exponential_decay_falls_smoothly():
    actual = rates([0, 5, 20], schedule="exponential", decay_rate=0.25, decay_steps=10)
    assert_close(actual, np.float32([0.5, 0.25, 0.03125]))


def test_a_staircase_falls_at_once():
    actual = rates([0, 9, 10, 20, 39], schedule="staircase", decay_rate=0.5, decay_steps=10)
    assert_close(actual, np.float32([0.5, 0.5, 0.25, 0.125, 0.0625]))


@pytest.mark.parametrize("schedule", ["exponential", "staircase", "cosine"])
def test_the_rate_stops_at_its_floor_which_a_warm_up_may_be_below(schedule):
    settings = {"schedule": schedule, "decay_rate": 0.25, "decay_steps": 10, "warmup_steps": 9}
    actual = rates(range(100), learning_rate_floor=0.1, **settings)
    free = rates(range(100), **settings)
    assert actual[0] == free[0] < 0.1
    assert_close(actual[9:], np.maximum(free[9:], np.float32(0.1)))
    assert (actual[60:] == np.float32(0.1)).all()


def test_a_floor_above_the_highest_rate_is_refused():
    with pytest.raises(UserError, match="--learning-rate-floor is 0.6, but the learning rate is 0"):
        rates([0], learning_rate_floor=0.6)
    scaled = {"lr_scaling": "linear", "batch_size": 256}
    assert rates([0], learning_rate_floor=0.6, **scaled) == 1


def test_without_steps_the_decay_follows_the_whole_run():
    run = {"steps": None, "epochs": 2.0, "batch_size": 200}  # ten steps
    actual = rates([0, 5, 10], schedule="exponential", decay_rate=0.25, **run)
    assert_close(actual, np.float32([0.5, 0.25, 0.125]))


def test_the_cosine_ends_with_the_run_and_stays_at_zero():
    actual = rates([0, 25, 50, 100, 120], schedule="cosine")
    expected = [0.5, 0.25 * (1 + math.cos(math.pi / 4)), 0.25, 0, 0]
    assert_close(actual, np.float32(expected))
    assert_close(rates([10, 20], schedule="cosine", decay_steps=20), np.float32([0.25, 0]))


def test_a_constant_rate_has_a_value_for_every_step():
    assert_close(rates([0, 1, 99]), np.float32([0.5, 0.5, 0.5]))


def test_the_warm_up_rises_in_equal_steps_and_wastes_none():
    assert_close(rates(range(6), warmup_steps=4), np.float32([0.1, 0.2, 0.3, 0.4, 0.5, 0.5]))


@pytest.mark.parametrize("schedule", ["exponential", "cosine"])
def test_the_decay_begins_when_the_warm_up_is_over_and_takes_what_is_left(schedule):
    later = rates(range(20, 101), schedule=schedule, warmup_steps=20)
    alone = rates(range(81), schedule=schedule, steps=80)
    assert_close(later, alone)


@settings(deadline=None, max_examples=30)  # the first waits for JAX
@given(batch=st.integers(1, 10**5), base=st.integers(1, 10**5), step=st.integers(0, 99))
def test_the_rate_is_scaled_by_the_batch_or_its_root(batch, base, step):
    sizes = {"batch_size": batch, "base_batch": base, "warmup_steps": 10, "schedule": "cosine"}
    plain = rates(step, **sizes)
    assert_close(rates(step, lr_scaling="linear", **sizes), plain * np.float32(batch / base))
    root = np.float32(math.sqrt(batch / base))
    assert_close(rates(step, lr_scaling="sqrt", **sizes), plain * root)
    assert rates(step, **{**sizes, "batch_size": base}) == plain


def test_a_run_that_ends_before_its_warm_up_is_refused():
    with pytest.raises(UserError, match="--warmup-steps is 100, but the run ends after 100"):
        rates([0], warmup_steps=100)


def test_the_rate_is_computed_in_the_widest_dtype():
    with jax.enable_x64(True):
        rate = learning_rate(BASE.changed(schedule="cosine", warmup_steps=3), 1)
        actual = rate(jnp.int32(50))
        assert actual.dtype == np.float64
        assert_close(actual, np.float64(0.25 * (1 + math.cos(math.pi * 47 / 97))))


# --- The updates, against the papers' formulas


PARAMS = {
    "bias": np.float64([1.0, -2.0, 0.5]),
    "capsules": np.random.default_rng(1).normal(size=(3, 2, 2, 2)),
    "kernel": np.random.default_rng(2).normal(size=(4, 3)),
}
GRADIENTS = [
    {name: np.random.default_rng(10 * step).normal(size=x.shape) for name, x in PARAMS.items()}
    for step in (1, 2, 3)
]
RATE, DECAY = 0.05, 0.1


def trained(**changes) -> dict[str, np.ndarray]:
    """The parameters after a step on each of the gradients, in float64."""
    with jax.enable_x64(True):
        config = BASE.changed(learning_rate=RATE, **changes)
        optimizer = build_optimizer(config, training_examples=1000)
        params = jax.tree.map(jnp.asarray, PARAMS)
        state = optimizer.init(params)
        for gradient in GRADIENTS:
            updates, state = optimizer.update(gradient, state, params)
            params = jax.tree.map(jnp.add, params, updates)
        return jax.tree.map(np.asarray, params)


def adam_directions(gradients: list[np.ndarray], epsilon: float) -> list[np.ndarray]:
    """`m / (sqrt(v) + epsilon)` after each gradient, with bias correction."""
    m = v = np.zeros_like(gradients[0])
    directions = []
    for t, g in enumerate(gradients, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
        directions.append(m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + epsilon))
    return directions


def of(name: str, gradients=None) -> list[np.ndarray]:
    return [gradient[name] for gradient in gradients or GRADIENTS]


def assert_trained(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, value in expected.items():
        assert_close(actual[name], value, reduction_length=32)


@pytest.mark.parametrize("momentum", [0.9, 0.0])
def test_sgd(momentum):
    expected = {}
    for name, x in PARAMS.items():
        velocity = np.zeros_like(x)
        for gradient in of(name):
            velocity = momentum * velocity + gradient + DECAY * (x if x.ndim > 1 else 0)
            x = x - RATE * velocity
        expected[name] = x
    assert_trained(trained(optimizer="sgd", weight_decay=DECAY, momentum=momentum), expected)


def test_adam():
    expected = {}
    for name, x in PARAMS.items():
        for direction in adam_directions(of(name), 1e-8):
            x = x - RATE * direction
        expected[name] = x
    assert_trained(trained(), expected)


def test_adamw_decays_matrices_alone():
    expected = {}
    for name, x in PARAMS.items():
        for direction in adam_directions(of(name), 1e-8):
            x = x - RATE * (direction + (DECAY * x if name != "bias" else 0))
        expected[name] = x
    assert_trained(trained(optimizer="adamw", weight_decay=DECAY), expected)


def test_lamb_gives_each_matrix_and_all_capsule_matrices_a_trust_ratio_and_biases_none():
    expected = {}
    for name, x in PARAMS.items():
        for u in adam_directions(of(name), 1e-6):
            if name == "bias":
                x = x - RATE * u
                continue
            u = u + DECAY * x
            x = x - RATE * np.linalg.norm(x) / np.linalg.norm(u) * u
        expected[name] = x
    assert_trained(trained(optimizer="lamb", weight_decay=DECAY), expected)


def test_lars_gives_each_matrix_a_trust_ratio_and_biases_none():
    expected = {}
    for name, x in PARAMS.items():
        velocity = np.zeros_like(x)
        for g in of(name):
            if name != "bias":
                g = g + DECAY * x
                g = 0.001 * np.linalg.norm(x) / np.linalg.norm(g) * g
            velocity = 0.9 * velocity + RATE * g
            x = x - velocity
        expected[name] = x
    assert_trained(trained(optimizer="lars", weight_decay=DECAY), expected)


def test_muon_makes_the_singular_values_of_every_matrix_alike():
    """In convolutions, in dense layers, and from each capsule below to all above."""
    generator = np.random.default_rng(5)
    shapes = {
        ("stem", "conv", "kernel"): (3, 3, 2, 8),
        ("class_caps", "kernel"): (5, 3, 4, 6),
        ("dense", "kernel"): (9, 7),
        ("dense", "bias"): (7,),
    }
    gradient: dict = {}
    for (*modules, name), shape in shapes.items():
        inner = gradient
        for module in modules:
            inner = inner.setdefault(module, {})
        inner[name] = generator.normal(size=shape)
    with jax.enable_x64(True):
        optimizer = muon(optax.constant_schedule(RATE), 0.0)
        params = jax.tree.map(jnp.zeros_like, gradient)
        updates, _ = optimizer.update(gradient, optimizer.init(params), params)
        updates = jax.tree.map(np.asarray, updates)

    stem, dense = updates["stem"]["conv"]["kernel"], updates["dense"]
    from_each = updates["class_caps"]["kernel"].transpose(0, 2, 1, 3)  # [I, D, J, K]
    matrices = {
        "stem": stem.reshape(1, 18, 8),
        "dense": dense["kernel"][None],
        "capsules": from_each.reshape(5, 4, 18),
    }
    for name, some in matrices.items():
        singular = np.linalg.svd(some, compute_uv=False)
        expected = 0.2 * RATE * np.sqrt(max(some.shape[1:]))
        # Five iterations of Newton and Schulz come as close as this on purpose.
        assert np.all((0.6 * expected < singular) & (singular < 1.3 * expected)), name
    # A first step of Adam has the learning rate as its size; with Nesterov's look ahead, more.
    bias = gradient["dense"]["bias"]
    step = -RATE * bias / (abs(bias) + 1e-8) * (1 + 0.9 * (1 - 0.9) / (1 - 0.9**2))
    assert_close(dense["bias"], step, reduction_length=32)
    for ours, theirs in zip(*map(jax.tree.leaves, (updates, gradient)), strict=True):
        assert np.sum(ours * theirs) < 0


def test_long_gradients_are_shortened_all_by_one_factor_and_short_ones_left():
    def length(gradient):
        return math.sqrt(sum((x**2).sum() for x in gradient.values()))

    lengths = sorted(map(length, GRADIENTS))
    limit = (lengths[0] + lengths[1]) / 2
    clipped = [
        {name: x * min(1, limit / length(gradient)) for name, x in gradient.items()}
        for gradient in GRADIENTS
    ]
    expected = {}
    for name, x in PARAMS.items():
        velocity = np.zeros_like(x)
        for g in of(name, clipped):  # LARS leaves a bias with plain momentum
            velocity = 0.9 * velocity + RATE * g
            x = x - velocity
        expected[name] = x
    actual = trained(optimizer="lars", clip_norm=limit)
    assert_close(actual["bias"], expected["bias"], reduction_length=32)
    assert np.any(actual["bias"] != trained(optimizer="lars")["bias"])


def test_shape_and_not_name_decides_what_a_matrix_is():
    tree = {"bias": jnp.zeros((2, 2)), "kernel": jnp.zeros(3), "scale": jnp.zeros(())}
    assert is_matrix(tree) == {"bias": True, "kernel": False, "scale": False}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_state_that_is_not_trained_is_of_the_same_form(optimizer):
    config = BASE.changed(optimizer=optimizer, clip_norm=1.0, warmup_steps=9)
    params = jax.tree.map(jnp.float32, PARAMS)
    states = [build_optimizer(config, examples).init(params) for examples in (None, 1000)]
    assert jax.tree.structure(states[0]) == jax.tree.structure(states[1])
