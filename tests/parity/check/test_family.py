"""Every routing and every model has a reference, and what differs from it is found."""

import dataclasses

import numpy as np
import pytest

import capsjax
from parity.__main__ import main
from parity.check import report, weights
from parity.check.cases import Case, check
from parity.check.family import (
    Subject,
    check_all,
    layout_subject,
    model_subject,
    routing_subject,
    subjects,
)
from parity.check.stages import GRADIENT, of_reference
from parity.reference import OTHERS
from parity.reference.models import MODELS
from parity.reference.routing import ROUTINGS


def test_every_routing_and_every_model_is_proven():
    assert sorted(ROUTINGS) == capsjax.list_routings()
    assert sorted([*MODELS, "capsnet"]) == capsjax.list_models()
    assert len(subjects()) == len(ROUTINGS) + len(MODELS)


def quick(subject: Subject) -> Subject:
    return subject._replace(cases=[Case("tiny", 2, 3, kinds=("images",), biases=(True,))])


def faulty(subject: Subject) -> Subject:
    """The same with something wrong in capsjax: half of the first parameter."""

    def make_pair(*arguments, **options):
        pair = subject.make_pair(*arguments, **options)

        def turned(arrays):
            right = pair.to_capsjax(arrays)
            name = next(name for name in right if name.startswith("class_caps"))
            return {**right, name: right[name] / 2}

        return dataclasses.replace(pair, to_capsjax=turned)

    return subject._replace(name=f"{subject.name}, faulty", make_pair=make_pair)


def test_what_agrees_passes_and_what_does_not_is_named(capsys):
    right, model = quick(routing_subject("uniform")), quick(model_subject("aff_capsnet"))
    results = check_all(
        chosen=[right, model, faulty(model)], progress=lambda jobs, total: jobs, workers=0
    )
    assert [len(of_name) for of_name in results.values()] == [2, 2, 2]
    passed = {name: [r.passed for r in of_name] for name, of_name in results.items()}
    assert passed == {
        "routing uniform": [True, True],
        "model aff_capsnet": [True, True],
        "model aff_capsnet, faulty": [False, False],
    }
    text = report.summary(results)
    assert "FAIL: 2 of 6 checks part." in text
    assert "model aff_capsnet, faulty, float32: " in text
    del results["model aff_capsnet, faulty"]
    assert "PASS: 2 routings and models" in report.summary(results)


@pytest.mark.parametrize("name", OTHERS)
def test_a_public_implementation_of_another_network_agrees_in_both_precisions(name):
    subject = layout_subject(name)
    for x64, worst in ((False, 2e-5), (True, 5e-13)):
        cases = [case._replace(batch=3, kinds=("images",)) for case in subject.cases[-1:]]
        result = check(
            layout=subject.name,
            sizes=("tiny",),
            x64=x64,
            make_pair=subject.make_pair,
            networks={"tiny": subject.tiny},
            batch_cases={"tiny": [case._replace(biases=(True,)) for case in cases]},
            training_cases={},
        )
        assert result.passed, result.first_difference
        assert max(c.error.relative for c in result.comparisons) < worst
        stages = {c.stage.name for c in result.comparisons}
        assert {"lengths", "coupling", "total"} <= stages


def test_the_sizes_of_another_network_cannot_be_chosen(capsys):
    assert main(["check", "--layout", "yl-1993", "--sizes", "paper"]) == 2
    assert "--layout yl-1993 compares tiny networks: leave --sizes out" in capsys.readouterr().err
    assert main(["check", "--layout", "yl-1994"]) == 2
    assert "choose one of adambielski, cedrickchee, efficient-capsnet" in capsys.readouterr().err


@pytest.mark.parametrize("name", OTHERS)
def test_what_nothing_depends_on_in_training_is_not_compared_and_nothing_else(name):
    subject = layout_subject(name)
    pair = subject.make_pair(subject.tiny, iterations=2, dtype="float32", seed=0)
    images = np.random.default_rng(0).uniform(size=(3, *subject.tiny["image_shape"]))
    values = of_reference(pair, images.astype(np.float32), np.arange(3, dtype=np.int32))
    gradients = {stage.name: value for stage, value in values.items() if stage.group == GRADIENT}
    parameters = weights.variables(pair.model)
    assert gradients.keys() - {"images"} == parameters.keys() - set(pair.idle)
    assert set(pair.idle) < parameters.keys()
    turned = pair.to_capsjax(
        {n: p.grad.numpy() for n, p in pair.reference.named_parameters() if p.grad is not None}
    )
    kernels = [turned[idle.replace("bias", "kernel")] for idle in pair.idle]
    for idle, kernel in zip(pair.idle, kernels, strict=True):
        assert np.abs(turned[idle]).max() < 1e-5 * np.abs(kernel).max()


@pytest.mark.parametrize("name", ["em", "self-routing"])
def test_a_routings_parameters_are_those_of_its_reference(name):
    pair = routing_subject(name).make_pair(
        routing_subject(name).tiny, iterations=2, dtype="float32", seed=0
    )
    own = [n for n, _ in pair.reference.named_parameters() if n.startswith("routing.")]
    turned = pair.to_capsjax({n: t.detach().numpy() for n, t in pair.reference.named_parameters()})
    assert {f"class_caps.{n}" for n in own} <= turned.keys()
    assert own


@pytest.mark.parametrize(
    "subject",
    [routing_subject("inverted-attention"), model_subject("attention_capsnet")],
    ids=lambda subject: subject.name,
)
def test_the_seed_decides_every_weight(subject):
    def weights(seed):
        pair = subject.make_pair(subject.tiny, iterations=2, dtype="float32", seed=seed)
        return {name: value.numpy() for name, value in pair.reference.state_dict().items()}

    once, again, other = weights(3), weights(3), weights(4)
    for name, value in once.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert any((value != other[name]).any() for name, value in once.items())
