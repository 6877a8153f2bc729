"""The port of Efficient-CapsNet against what is known of it, worked out by hand."""

import math

import pytest
import torch
from torch.nn import functional

from parity.reference import EfficientCapsNet

pytestmark = pytest.mark.torch

TINY = EfficientCapsNet.tiny
CONVOLUTIONS = [(32, 1, 5), (64, 32, 3), (64, 64, 3), (128, 64, 3)]


def layer(name: str, *shape: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def state_dict(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (out, below, side) in enumerate(CONVOLUTIONS, start=1):
        norm = f"{prefix}bn{number}"
        shapes |= layer(f"{prefix}conv{number}", out, below, side, side) | layer(norm, out)
        shapes |= {f"{norm}.running_mean": (out,), f"{norm}.running_var": (out,)}
        shapes[f"{norm}.num_batches_tracked"] = ()
    shapes |= layer(f"{prefix}primary_caps.dw_conv2d", 128, 1, 9, 9)
    shapes[f"{prefix}routing_caps.W"] = (10, 16, 8, 16)
    shapes[f"{prefix}routing_caps.b"] = (10, 16, 1)
    return shapes


def shapes_of(model: torch.nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def drawn(**changes) -> EfficientCapsNet:
    model = EfficientCapsNet(**{**TINY, **changes})
    model.draw(torch.Generator().manual_seed(0), biases=True)
    return model.double()


def batch(size: int = 3) -> torch.Tensor:
    return torch.rand(
        size, 2, 9, 10, generator=torch.Generator().manual_seed(1), dtype=torch.float64
    )


def test_names_and_shapes_of_the_published_size():
    decoder = layer("generator.fc1", 512, 160) | layer("generator.fc2", 1024, 512)
    decoder |= layer("generator.fc3", 784, 1024)
    with torch.device("meta"):
        assert shapes_of(EfficientCapsNet()) == state_dict("efficient_capsnet.") | decoder
        assert shapes_of(EfficientCapsNet(decoder_hidden=None)) == state_dict("")


def test_normalisation_comes_before_the_rectifier_with_the_constants_of_pytorch():
    model, images = drawn(), batch()
    with torch.no_grad():
        stages = model(images)
        maps = stages["convolutions_0"]
        mean, var = maps.mean(dim=(0, 1, 2)), maps.var(dim=(0, 1, 2), unbiased=False)
        norm = model.efficient_capsnet.bn1
        expected = (maps - mean) / torch.sqrt(var + 1e-5) * norm.weight + norm.bias
        torch.testing.assert_close(stages["norms_0"], expected)
        above = functional.conv2d(
            torch.relu(expected).permute(0, 3, 1, 2),
            model.efficient_capsnet.conv2.weight,
            model.efficient_capsnet.conv2.bias,
            stride=2,
        )
    torch.testing.assert_close(stages["convolutions_1"], above.permute(0, 2, 3, 1))
    assert norm.momentum == 0.1


def test_in_test_it_normalises_by_what_it_has_learned():
    model, images = drawn().eval(), batch()
    model.efficient_capsnet.bn1.running_mean.fill_(0.25)
    model.efficient_capsnet.bn1.running_var.fill_(4)
    with torch.no_grad():
        stages, alone = model(images), model(images[:1])
        norm = model.efficient_capsnet.bn1
        expected = (stages["convolutions_0"] - 0.25) / math.sqrt(4 + 1e-5) * norm.weight + norm.bias
    torch.testing.assert_close(stages["norms_0"], expected)
    torch.testing.assert_close(stages["lengths"][:1], alone["lengths"])


def test_votes_and_routing_of_two_capsules_by_hand():
    model = EfficientCapsNet(
        (2, 2, 1),
        2,
        features=(2,),
        kernel_sizes=(1,),
        strides=(1,),
        primary_dim=1,
        primary_kernel=2,
        class_dim=1,
        decoder_hidden=None,
    ).double()
    votes = torch.tensor([[[[1.0], [2.0]], [[0.5], [-1.0]]]], dtype=torch.float64)  # [B, J, I, D]
    with torch.no_grad():
        model.routing_caps.b.copy_(torch.tensor([[[0.1], [0.2]], [[0.3], [0.4]]]))
        routed = model.route(votes)
    # Agreement with the sum of all votes for a class: 1 * 3, 2 * 3; 0.5 * -0.5, -1 * -0.5.
    agreement = [[3.0, 6.0], [-0.25, 0.5]]
    for j in range(2):
        s = 0.0
        for i in range(2):
            total = math.exp(agreement[0][i]) + math.exp(agreement[1][i])
            c = math.exp(agreement[j][i]) / total + [[0.1, 0.2], [0.3, 0.4]][j][i]
            assert routed["coupling"][0, i, j].item() == pytest.approx(c, rel=1e-6)
            s += c * votes[0, j, i, 0].item()
        v = (1 - math.exp(-abs(s))) * math.copysign(1, s)
        assert routed["capsules"][0, j, 0].item() == pytest.approx(v, rel=1e-6)


def test_lengths_have_an_epsilon_and_the_mask_has_none():
    stages = drawn()(batch(), torch.tensor([4, 0, 9]))
    squares = (stages["capsules"] ** 2).sum(dim=2)
    torch.testing.assert_close(stages["lengths"], torch.sqrt(squares + 1e-7), rtol=1e-12, atol=0)
    assert stages["mask"].argmax(dim=1).tolist() == [4, 0, 9]
    in_test = drawn()(batch())
    assert torch.equal(in_test["mask"].argmax(dim=1), squares.argmax(dim=1))


def test_the_reconstruction_error_is_a_mean_over_pixels():
    model, images, labels = drawn(), batch(), torch.tensor([4, 0, 9])
    stages = model(images, labels)
    terms = model.losses(stages, images, labels)
    error = (stages["reconstruction"].permute(0, 3, 1, 2) - images) ** 2
    torch.testing.assert_close(terms["reconstruction"], error.mean(dim=(1, 2, 3)))
    total = terms["margin"].mean() + 0.0005 * error.mean()
    torch.testing.assert_close(terms["total"], total)
