"""The check passes on networks that agree, and finds planted faults at the stage they are in."""

import functools
from collections.abc import Callable

import jax
import numpy as np
import optax
import pytest

import capsjax
from parity.check.arithmetic import exact
from parity.check.cases import Case, Result, check, coarser_precisions, reduction_lengths
from parity.check.inputs import cut_to_size, load_images
from parity.check.pairs import SIZES, Pair, build_pair, reference_pair
from parity.check.training import SETTINGS, adam
from parity.layouts import get_layout, match
from parity.reference import CapsNet as ReferenceCapsNet
from train.config.fit_config import FitConfig
from train.learn.objective import Objective

FORWARD_ONLY = {"tiny": [Case("tiny", 3, 4, gradients=False, kinds=("images",), biases=(True,))]}
WITH_GRADIENTS = {"tiny": [Case("tiny", 2, 4, kinds=("images",), biases=(True,))]}
TRAINING = {"tiny": [Case("tiny", 1, 4)]}


def faulty(
    turn: Callable[[dict], dict] = lambda parameters: parameters,
    fewer_iterations: int = 0,
    routing: dict | None = None,
    **options,
) -> Callable[..., Pair]:
    """Makes pairs as `reference_pair` does, but with something wrong in capsjax."""

    def make_pair(sizes, *, iterations: int, **rest) -> Pair:
        reference = ReferenceCapsNet(**sizes, iterations=iterations)
        shapes = {name: tuple(tensor.shape) for name, tensor in reference.state_dict().items()}
        to_capsjax = match(get_layout("reference"), shapes).to_capsjax
        return build_pair(
            reference,
            lambda tensors: turn(to_capsjax(tensors)),
            sizes,
            routing=capsjax.DynamicRouting(
                iterations=iterations - fewer_iterations, **(routing or {})
            ),
            **{**rest, **options},
        )

    return make_pair


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], dict]:
    """Turns parameters as they should be, but for one."""
    return lambda parameters: {**parameters, name: change(parameters[name])}


def run(make_pair=None, cases=FORWARD_ONLY, training=None, **options) -> Result:
    return check(
        sizes=("tiny",),
        make_pair=make_pair,
        batch_cases=cases,
        training_cases=training or {},
        **options,
    )


FAULTS = {
    "softmax over the input capsules": (faulty(routing={"softmax_over": "in"}), "forward", "c1"),
    "one iteration too few": (faulty(fewer_iterations=1), "forward", "b3"),
    "epsilon in the squash": (
        faulty(primary_squash=capsjax.Squash(epsilon=1e-3)),
        "forward",
        "primary_u",
    ),
    "dense kernel not transposed": (
        faulty(changed("decoder.layers.1.kernel", lambda k: k.T.reshape(k.shape))),
        "forward",
        "reconstruction",
    ),
    "capsule matrices transposed": (
        faulty(changed("class_caps.kernel", lambda k: k.swapaxes(2, 3).reshape(k.shape))),
        "forward",
        "u_hat",
    ),
    "height and width of the first kernel swapped": (
        faulty(changed("features.conv.kernel", lambda k: k.swapaxes(0, 1))),
        "forward",
        "conv1",
    ),
    "height and width of the second kernel swapped": (
        faulty(changed("primary_caps.conv.kernel", lambda k: k.swapaxes(0, 1))),
        "forward",
        "primary_s",
    ),
    "logits shared by the batch": (faulty(routing={"shared_logits": True}), "forward", "b2"),
    "mean over the classes": (
        faulty(objective=Objective.of(FitConfig.of(margin_weight=0.1))),
        "loss",
        "margin",
    ),
    "mean over the pixels": (
        faulty(objective=Objective.of(FitConfig.of(reconstruction_weight=0.0005 / 96))),
        "loss",
        "total",
    ),
    "margin not squared": (
        faulty(objective=Objective.of(FitConfig.of(margin_power=1))),
        "loss",
        "margin",
    ),
    "another capsule order": (faulty(primary_order="type_major"), "forward", "primary_s"),
    "bias forgotten": (
        faulty(changed("primary_caps.conv.bias", np.zeros_like)),
        "forward",
        "primary_s",
    ),
    "longest capsule in the place of the label's": (
        faulty(objective=Objective.of(FitConfig.of(mask_in_training="longest"))),
        "forward",
        "mask",
    ),
    "squash over the capsules": (
        faulty(primary_squash=capsjax.Squash(axis="capsules")),
        "forward",
        "primary_u",
    ),
    "squash of each element": (
        faulty(routing={"squash": capsjax.Squash(axis="element")}),
        "forward",
        "v1",
    ),
}


@pytest.mark.parametrize(("make_pair", "group", "stage"), FAULTS.values(), ids=FAULTS.keys())
def test_fault_is_named(make_pair: Callable[..., Pair], group: str, stage: str):
    result = run(make_pair)
    assert not result.passed
    assert result.first_difference is not None
    assert result.first_difference.stage == (group, stage)


def test_detached_logits_part_in_the_gradients_only():
    result = run(faulty(routing={"detach": True}), WITH_GRADIENTS)
    assert result.first_difference is not None
    assert result.first_difference.stage == ("gradient", "class_caps.kernel")


OPTIMISERS = {
    "beta2": (functools.partial(adam, b2=0.99), "second moment after 1 step"),
    "beta1": (functools.partial(adam, b1=0.8), "first moment after 1 step"),
    "epsilon": (functools.partial(adam, eps=1e-4), "parameters after 1 step"),
    "no decay": (
        functools.partial(optax.adam, SETTINGS.schedule.learning_rate),
        "parameters after 20 steps",
    ),
}


@pytest.mark.parametrize(("make", "stage"), OPTIMISERS.values(), ids=OPTIMISERS.keys())
def test_faulty_optimiser_is_named(make: Callable, stage: str):
    result = run(cases={}, training=TRAINING, optimizer=make())
    assert result.first_difference is not None
    assert result.first_difference.stage == ("Adam alone", stage)


@pytest.mark.parametrize("x64", [False, True])
def test_networks_that_agree_pass(x64: bool):
    result = run(cases=WITH_GRADIENTS, training=TRAINING, x64=x64)
    assert result.passed
    assert result.first_difference is None
    assert result.dtype == ("float64" if x64 else "float32")
    groups = {c.stage.group for c in result.comparisons}
    assert groups == {"forward", "loss", "gradient", "Adam alone", "training"}
    (growth,) = result.growth
    assert growth.steps == list(range(1, 21))
    assert bool(growth.reference) is not x64
    worst = max(c.error.relative for c in result.comparisons)
    assert worst < (1e-9 if x64 else 2e-5)


def test_extreme_inputs_and_exact_zeros():
    cases = {"tiny": [Case("tiny", 2, 3, gradients=True)]}
    result = run(cases=cases)
    assert result.passed
    zeros = [c for c in result.comparisons if c.case.endswith("zeros, no biases")]
    untouched = {c.stage.name: c.error for c in zeros if c.stage.group == "forward"}
    assert untouched["primary_u"].absolute == untouched["v2"].absolute == 0


def test_learning_rate_is_computed_in_the_dtype_of_the_check():
    with jax.enable_x64(True):
        optimizer = adam()
        state = optimizer.init({"w": np.zeros(1)})
        updates, _ = optimizer.update({"w": np.ones(1)}, state)
    assert abs(float(updates["w"][0]) + 0.001 / (1 + 1e-8)) < 1e-15


def test_gradients_follow_the_computation_backwards():
    result = run(cases=WITH_GRADIENTS)
    names = [c.stage.name for c in result.worst() if c.stage.group == "gradient"]
    assert names[0].startswith("decoder.layers.2")
    assert names[-1] == "images"


def test_reduction_lengths_of_the_tiny_network():
    with exact(x64=False):
        pair = reference_pair(SIZES["tiny"], iterations=1, dtype="float32")
    assert reduction_lengths(pair, batch=32) == (18, 32, 96, 32 * 24)


def test_coarser_precisions_have_errors_but_no_limit():
    _, split = load_images(None)
    images = cut_to_size(split, SIZES["tiny"]["image_shape"])

    def make_pair(network, **options):
        return reference_pair(SIZES[network], **options)

    with exact(x64=False):
        comparisons = coarser_precisions("tiny", make_pair, images, 0, batch=2)
    assert all(c.limit is None and c.held for c in comparisons)
    by_stage = {(c.network, c.stage): c.error.relative for c in comparisons}
    assert by_stage["tiny in bfloat16", ("forward", "u_hat")] > 1e-4
    assert by_stage["tiny in TF32", ("forward", "u_hat")] < 1e-2


def test_weights_do_not_depend_on_the_dtype():
    with exact(x64=False):
        narrow = reference_pair(SIZES["tiny"], iterations=1, dtype="float32", seed=3)
    with exact(x64=True):
        wide = reference_pair(SIZES["tiny"], iterations=1, dtype="float64", seed=3)
    for name, value in narrow.reference.state_dict().items():
        np.testing.assert_allclose(
            value.numpy(), wide.reference.state_dict()[name].numpy(), rtol=1e-7
        )


def ill_conditioned(make_pair):
    """A pair whose reference rounds: what it returns in float32 is far from float64."""

    def make(sizes, **options):
        pair = make_pair(sizes, **options)
        exact = pair.reference.route

        def route(u_hat):
            # Adds a number and takes it away: float32 loses what float64 keeps.
            return exact(u_hat + 1e3 - 1e3)

        pair.reference.route = route
        return pair

    return make


def test_what_the_reference_cannot_tell_itself_is_information_and_nothing_else_is():
    result = run(ill_conditioned(reference_pair))
    assert result.passed
    told = [c for c in result.comparisons if "from itself in float64" in c.error.note]
    assert {"c2", "capsules"} <= {c.stage.name for c in told}
    assert all(c.limit is None for c in told)
    assert "u_hat" not in {c.stage.name for c in told}
    # Another routing is a defect, whatever the reference's rounding: its first stage differs.
    faults = run(faulty(routing={"softmax_over": "in"}))
    assert not faults.passed
