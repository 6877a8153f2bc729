import numpy as np
import pytest
import torch

from parity.bench.fast import FastCapsNet
from parity.reference import CapsNet
from tests.tolerance import assert_close

SIZES = {
    "image_shape": (9, 8, 2),
    "num_classes": 4,
    "conv_features": 5,
    "conv_kernel": 3,
    "primary_types": 3,
    "primary_dim": 4,
    "primary_kernel": 3,
    "primary_stride": 2,
    "class_dim": 6,
    "decoder_hidden": (7, 11),
}


@pytest.mark.parametrize("iterations", [1, 2, 3, 5])
@pytest.mark.parametrize("labelled", [True, False])
def test_the_fast_network_computes_what_the_reference_computes(iterations, labelled):
    torch.manual_seed(0)
    reference = CapsNet(**SIZES, iterations=iterations).double()
    fast = FastCapsNet(**SIZES, iterations=iterations).double()
    fast.load_state_dict(reference.state_dict(), strict=True)
    images = torch.rand(5, 2, 9, 8, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 1])

    expected = reference(images, labels if labelled else None)
    found = fast(images, labels if labelled else None)
    for name, output in found.items():
        assert_close(output.detach(), expected[name].detach(), reduction_length=64)

    total = reference.losses(expected, images, labels)["total"]
    loss = fast.losses(found, images, labels)["total"]
    assert_close(np.array(loss.item()), np.array(total.item()), reduction_length=144)
    total.backward()
    loss.backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in fast.named_parameters():
        assert_close(parameter.grad, theirs[name].grad, reduction_length=1024)
