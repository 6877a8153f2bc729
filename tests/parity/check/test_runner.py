"""The check passes on networks that agree, and finds planted faults at the stage they are in."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import optax
import pytest
from flax import nnx

import capsjax
from parity.check import report, training
from parity.check.comparison import Result
from parity.check.pairs import SIZES, Pair, layout_pair, learned
from parity.check.runner import check, check_all
from parity.check.subjects import Case, Subject, find_subject
from parity.check.training import SETTINGS, adam
from parity.layouts import weights
from parity.reference import OTHERS
from train.config.fit_config import FitConfig
from train.learn.objective import Objective

FORWARD_ONLY = Case("tiny", 3, 4, gradients=False, kinds=("images",), biases=(True,))
WITH_GRADIENTS = Case("tiny", 2, 4, kinds=("images",), biases=(True,))
TRAINING = Case("tiny", 1, 4, trained=True)

reference_pair = functools.partial(layout_pair, "reference")


def faulty(
    turn: Callable[[dict], dict] = lambda parameters: parameters,
    fewer_iterations: int = 0,
    routing: dict | None = None,
    objective: Objective = Objective(),  # noqa: B008 (frozen, has no state)
    **options,
) -> Callable[..., Pair]:
    """Makes pairs as `reference_pair` does, but with something wrong in capsjax."""

    def make_pair(sizes, *, iterations: int, **drawn) -> Pair:
        right = reference_pair(sizes, iterations=iterations, **drawn)
        settings = {"iterations": iterations - fewer_iterations, **(routing or {})}
        model = capsjax.CapsNet(
            **sizes, routing=capsjax.routing.Dynamic(**settings), **options, rngs=nnx.Rngs(0)
        )
        pair = Pair(
            right.reference, model, objective, lambda tensors: turn(right.to_capsjax(tensors))
        )
        weights.load(model, pair.to_capsjax(learned(right.reference)))
        return pair

    return make_pair


def changed(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[dict], dict]:
    """Turns parameters as they should be, but for one."""
    return lambda parameters: {**parameters, name: change(parameters[name])}


def run(make_pair=reference_pair, cases=(FORWARD_ONLY,), **options) -> Result:
    return check(Subject("mine", make_pair, cases, {"tiny": SIZES["tiny"]}), **options)


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
    result = run(faulty(routing={"detach": True}), [WITH_GRADIENTS])
    assert result.first_difference is not None
    assert result.first_difference.stage == ("gradient", "class_caps.kernel")


def test_what_a_decoder_is_shown_in_test_is_compared():
    wrong = faulty(objective=Objective.of(FitConfig.of(mask_in_test="label")))
    found = run(wrong, [WITH_GRADIENTS._replace(batch=7)]).first_difference
    assert found is not None
    assert found.stage == ("in test", "mask")


def test_averages_of_batches_are_seen_in_test_alone():
    subject = find_subject("model", "sr_capsnet")

    def make_pair(sizes, **drawn) -> Pair:
        pair = subject.make_pair(sizes, **drawn)
        model: Any = pair.model
        mean = model.primary_norm.pose.mean
        mean[...] = mean[...] + 0.1
        return pair

    found = check(Subject("mine", make_pair, [WITH_GRADIENTS], subject.sizes)).first_difference
    assert found is not None
    assert found.stage == ("in test", "primary_norm_pose")


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
def test_faulty_optimiser_is_named(make: Callable, stage: str, monkeypatch):
    monkeypatch.setattr(training, "adam", make)
    result = run(cases=[TRAINING])
    assert result.first_difference is not None
    assert result.first_difference.stage == ("Adam alone", stage)


@pytest.mark.parametrize("x64", [False, True])
def test_networks_that_agree_pass(x64: bool):
    result = run(cases=[WITH_GRADIENTS, TRAINING], x64=x64)
    assert result.passed
    assert result.first_difference is None
    assert result.dtype == ("float64" if x64 else "float32")
    groups = list(dict.fromkeys(c.stage.group for c in result.worst()))
    assert groups == ["forward", "loss", "gradient", "in test", "Adam alone", "training"]
    (growth,) = result.growth
    assert growth.steps == list(range(1, 21))
    assert bool(growth.reference_against_float64) is not x64
    worst = max(c.error.relative for c in result.comparisons)
    assert worst < (1e-9 if x64 else 2e-5)
    gradients = [c.stage.name for c in result.worst() if c.stage.group == "gradient"]
    assert gradients[0].startswith("decoder.layers.2")
    assert gradients[-1] == "images"
    named = [c.stage.name for c in result.worst() if c.stage.group == "Adam alone"]
    assert [name.split()[0] for name in named] == ["first", "second", "parameters"] * 2


def test_extreme_inputs_and_exact_zeros():
    result = run(cases=[Case("tiny", 2, 3)])
    assert result.passed
    zeros = [c for c in result.comparisons if c.case.endswith("zeros, no biases")]
    untouched = {c.stage.name: c.error for c in zeros if c.stage.group == "forward"}
    assert untouched["primary_u"].absolute == untouched["v2"].absolute == 0


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


def test_only_an_error_of_the_reference_itself_is_information():
    result = run(ill_conditioned(reference_pair))
    assert result.passed
    noted = [c for c in result.comparisons if "from itself in float64" in c.error.note]
    assert {"c2", "capsules"} <= {c.stage.name for c in noted}
    assert all(c.limit is None for c in noted)
    assert "u_hat" not in {c.stage.name for c in noted}


@pytest.mark.parametrize("name", OTHERS)
def test_a_public_implementation_of_another_network_agrees_in_both_precisions(name):
    subject = find_subject("layout", name)
    case = subject.cases[-2]._replace(batch=3, kinds=("images",), biases=(True,))
    for x64, worst in ((False, 2e-5), (True, 5e-13)):
        result = check(subject._replace(cases=[case]), x64=x64)
        assert result.passed, result.first_difference
        assert max(c.error.relative for c in result.comparisons) < worst
        stages = {c.stage.name for c in result.comparisons}
        assert {"lengths", "coupling", "total"} <= stages


def test_of_all_that_is_checked_the_faulty_is_named():
    case = Case("tiny", 2, 3, kinds=("images",), biases=(True,))
    routing = find_subject("routing", "uniform")._replace(cases=[case])
    model = find_subject("model", "aff_capsnet")._replace(cases=[case, TRAINING])

    def make_pair(*arguments, **options):
        pair = routing.make_pair(*arguments, **options)
        half = changed("class_caps.kernel", lambda kernel: kernel / 2)
        return pair._replace(to_capsjax=lambda arrays: half(pair.to_capsjax(arrays)))

    faulty = routing._replace(name="routing uniform, faulty", make_pair=make_pair)
    results = check_all([routing, model, faulty], workers=0)
    assert {name: [r.passed for r in both] for name, both in results.items()} == {
        "routing uniform": [True, True],
        "model aff_capsnet": [True, True],
        "routing uniform, faulty": [False, False],
    }
    text = report.summary(results)
    assert "FAIL: 2 of 6 checks part." in text
    assert "routing uniform, faulty, float32: " in text
    del results["routing uniform, faulty"]
    assert "PASS: 2 routings and models" in report.summary(results)
