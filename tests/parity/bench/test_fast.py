"""The fast networks compute what their references compute."""

import pytest
import torch

from parity.bench.fast import FAST
from parity.reference import CapsNet
from parity.reference.models import MODELS
from parity.reference.routing import variational_bayes
from tests.tolerance import assert_close

REFERENCES = {**MODELS, "capsnet": CapsNet}
SIZES = {"image_shape": (9, 8, 2), "num_classes": 4, "conv_features": 5, "conv_kernel": 3}
SIZES |= {"primary_types": 3, "primary_dim": 4, "primary_kernel": 3, "primary_stride": 2}
SIZES |= {"class_dim": 6, "decoder_hidden": (7, 11)}

CASES = [
    (name, iterations)
    for name in FAST
    for iterations in (1, 2, 3)
    if iterations == 3 or name == "capsnet" or REFERENCES[name].with_iterations(iterations)
]
# A second layer of windows, whose stride is not 1, and whose capsules are not all seen.
DEEPER = {"caps_types": (3, 4), "caps_kernels": (2, 2), "caps_strides": (2, 1)}
MORE = {"matrix_capsnet": DEEPER, "vb_capsnet": {**DEEPER, "conv_stride": 1}}


def pair(name, iterations, more):
    """A reference and the fast network with its weights, in float64."""
    kind = REFERENCES[name]
    sizes = SIZES if name == "capsnet" else {**kind.tiny, **more}
    given = {"iterations": iterations} if name == "capsnet" else kind.with_iterations(iterations)
    torch.manual_seed(0)
    reference, fast = kind(**sizes, **given).double(), FAST[name](**sizes, **given).double()
    reference.draw(torch.Generator().manual_seed(0), biases=True)
    fast.load_state_dict(reference.state_dict(), strict=True)
    height, width, channels = sizes["image_shape"]
    images = torch.rand(7, channels, height, width, dtype=torch.float64)
    return reference, fast, images, torch.arange(7) % sizes["num_classes"]


@pytest.mark.parametrize(
    ("name", "iterations", "more"),
    [*((name, i, {}) for name, i in CASES), *((name, 3, more) for name, more in MORE.items())],
)
def test_a_fast_network_computes_and_learns_what_its_reference_does(
    name, iterations, more, monkeypatch
):
    # PyTorch's own is right in nine digits of its derivative only.
    monkeypatch.setattr(torch, "digamma", variational_bayes.digamma)
    reference, fast, images, labels = pair(name, iterations, more)
    expected, found = reference(images, labels), fast(images, labels)
    assert {"lengths"} <= found.keys() <= {"lengths", "logits", "reconstruction"}
    for stage, output in found.items():
        assert_close(output.detach(), expected[stage].detach(), reduction_length=1024)

    total = reference.losses(expected, images, labels)["total"]
    loss = fast.losses(found, images, labels)["total"]
    assert_close(loss.detach(), total.detach(), reduction_length=1024)
    total.backward()
    loss.backward()
    theirs = dict(reference.named_parameters())
    for parameter_name, parameter in fast.named_parameters():
        gradient = theirs[parameter_name].grad
        if gradient is None:
            assert parameter.grad is None, parameter_name
            continue
        assert_close(parameter.grad, gradient, reduction_length=2**14)


@pytest.mark.parametrize("name", FAST)
def test_in_test_it_decodes_the_longest_and_normalises_as_it_has_learned(name):
    reference, fast, images, _ = pair(name, 2, {})
    fast = fast.to(memory_format=torch.channels_last)  # as it is timed
    seen = images.contiguous(memory_format=torch.channels_last)
    expected, found = reference.eval()(images, None), fast.eval()(seen, None)
    for stage, output in found.items():
        assert_close(output.detach(), expected[stage].detach(), reduction_length=1024)
