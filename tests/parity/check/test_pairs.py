"""Two networks have the same weights, which a seed decides."""

import numpy as np
import pytest

from parity.check.arithmetic import exact
from parity.check.comparison import GRADIENT
from parity.check.pairs import SIZES, layout_pair
from parity.check.stages import of_reference
from parity.check.subjects import find_subject
from parity.layouts import weights
from parity.reference import OTHERS


def tiny_pair(subject, seed=0):
    return subject.make_pair(subject.sizes["tiny"], iterations=2, dtype="float32", seed=seed)


def test_weights_do_not_depend_on_the_dtype():
    pairs = []
    for dtype in ("float32", "float64"):
        with exact(x64=dtype == "float64"):
            pairs.append(layout_pair("reference", SIZES["tiny"], iterations=1, dtype=dtype, seed=3))
    narrow, wide = (pair.reference.state_dict() for pair in pairs)
    for name, value in narrow.items():
        np.testing.assert_array_equal(value.double().numpy(), wide[name].numpy())


@pytest.mark.parametrize("name", ["em", "self-routing"])
def test_a_routings_parameters_are_those_of_its_reference(name):
    pair = tiny_pair(find_subject("routing", name))
    own = [n for n, _ in pair.reference.named_parameters() if n.startswith("routing.")]
    turned = pair.to_capsjax({n: t.detach().numpy() for n, t in pair.reference.named_parameters()})
    assert {f"class_caps.{n}" for n in own} <= turned.keys()
    assert own


@pytest.mark.parametrize(
    "subject",
    [find_subject("routing", "inverted-attention"), find_subject("model", "attention_capsnet")],
    ids=lambda subject: subject.name,
)
def test_the_seed_decides_every_weight(subject):
    def weights(seed):
        state = tiny_pair(subject, seed).reference.state_dict()
        return {name: value.numpy() for name, value in state.items()}

    once, again, other = weights(3), weights(3), weights(4)
    for name, value in once.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    assert any((value != other[name]).any() for name, value in once.items())


@pytest.mark.parametrize("name", OTHERS)
def test_what_nothing_depends_on_in_training_is_not_compared_and_nothing_else(name):
    subject = find_subject("layout", name)
    pair = tiny_pair(subject)
    images = np.random.default_rng(0).uniform(size=(3, *subject.sizes["tiny"]["image_shape"]))
    values = of_reference(pair, images.astype(np.float32), np.arange(3, dtype=np.int32))
    gradients = {stage.name: value for stage, value in values.items() if stage.group == GRADIENT}
    parameters = weights.variables(pair.model)
    assert gradients.keys() - {"images"} == parameters.keys() - set(pair.reference.idle)
    assert set(pair.reference.idle) < parameters.keys()
    turned = pair.to_capsjax(
        {n: p.grad.numpy() for n, p in pair.reference.named_parameters() if p.grad is not None}
    )
    kernels = [turned[idle.replace("bias", "kernel")] for idle in pair.reference.idle]
    for idle, kernel in zip(pair.reference.idle, kernels, strict=True):
        assert np.abs(turned[idle]).max() < 1e-5 * np.abs(kernel).max()
