"""The port of Efficient-CapsNet against what is known of it, worked out by hand."""

import functools
import math

import torch
from torch.nn import functional

from parity.reference.dialects.efficient_capsnet_port import EfficientCapsNet
from tests.parity.reference.by_hand import close, float64

CONVOLUTIONS = [(32, 1, 5), (64, 32, 3), (64, 64, 3), (128, 64, 3)]
LABELS = torch.tensor([4, 0, 9])
TERMS = 540
"""Pixels of the three images, over which is normalised, times two channels."""


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


def drawn() -> EfficientCapsNet:
    model = EfficientCapsNet(**EfficientCapsNet.tiny)
    model.draw(torch.Generator().manual_seed(0), biases=True)
    return model.double()


def batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(3, 2, 9, 10, generator=generator, dtype=torch.float64)


@functools.cache
def in_training() -> tuple[EfficientCapsNet, dict[str, torch.Tensor]]:
    """A network, and what it computes of `batch` and `LABELS`."""
    model = drawn()
    with torch.no_grad():
        return model, model(batch(), LABELS)


def test_names_and_shapes_of_the_published_size():
    decoder = layer("generator.fc1", 512, 160) | layer("generator.fc2", 1024, 512)
    decoder |= layer("generator.fc3", 784, 1024)
    with torch.device("meta"):
        assert shapes_of(EfficientCapsNet()) == state_dict("efficient_capsnet.") | decoder
        assert shapes_of(EfficientCapsNet(decoder_hidden=None)) == state_dict("")


def test_normalisation_comes_before_the_rectifier_with_the_constants_of_pytorch():
    model, stages = in_training()
    maps, net = stages["convolutions_0"], model.efficient_capsnet
    mean, var = maps.mean(dim=(0, 1, 2)), maps.var(dim=(0, 1, 2), unbiased=False)
    expected = (maps - mean) / torch.sqrt(var + 1e-5) * net.bn1.weight + net.bn1.bias
    close(stages["norms_0"], expected, terms=TERMS)
    below = torch.relu(expected).permute(0, 3, 1, 2)
    above = functional.conv2d(below, net.conv2.weight, net.conv2.bias, stride=2)
    close(stages["convolutions_1"], above.permute(0, 2, 3, 1), terms=TERMS)
    assert net.bn1.momentum == 0.1


def test_in_test_it_normalises_by_what_it_has_learned():
    model, images = drawn().eval(), batch()
    norm = model.efficient_capsnet.bn1
    norm.running_mean.fill_(0.25)
    norm.running_var.fill_(4)
    with torch.no_grad():
        stages, alone = model(images), model(images[:1])
    expected = (stages["convolutions_0"] - 0.25) / math.sqrt(4 + 1e-5) * norm.weight + norm.bias
    close(stages["norms_0"], expected, terms=1)
    close(stages["lengths"][:1], alone["lengths"], terms=TERMS)


def test_votes_and_routing_of_two_capsules_by_hand():
    options = {"features": (2,), "kernel_sizes": (1,), "strides": (1,), "decoder_hidden": None}
    capsules = {"primary_dim": 1, "primary_kernel": 2, "class_dim": 1}
    model = EfficientCapsNet((2, 2, 1), 2, **options, **capsules).double()
    votes = float64([[[[1.0], [2.0]], [[0.5], [-1.0]]]])  # [B, J, I, D]
    prior = [[0.1, 0.2], [0.3, 0.4]]
    with torch.no_grad():
        model.routing_caps.b.copy_(float64(prior)[..., None])
        routed = model.route(votes)
    # The product with the sum of all votes for a class: 1 * 3, 2 * 3; 0.5 * -0.5, -1 * -0.5.
    logits = [[3.0, 6.0], [-0.25, 0.5]]
    for j in range(2):
        s = 0.0
        for i in range(2):
            total = math.exp(logits[0][i]) + math.exp(logits[1][i])
            c = math.exp(logits[j][i]) / total + prior[j][i]
            close(routed["coupling"][0, i, j], float64(c))
            s += c * votes[0, j, i, 0].item()
        v = (1 - math.exp(-abs(s))) * math.copysign(1, s)
        close(routed["capsules"][0, j, 0], float64(v))


def test_lengths_have_an_epsilon_and_the_longest_is_shown_in_test():
    _, stages = in_training()
    close(stages["lengths"], torch.sqrt((stages["capsules"] ** 2).sum(dim=2) + 1e-7))
    assert torch.equal(stages["mask"].argmax(dim=1), LABELS)
    in_test = drawn()(batch())
    longest = (in_test["capsules"] ** 2).sum(dim=2).argmax(dim=1)
    assert torch.equal(in_test["mask"].argmax(dim=1), longest)


def test_the_reconstruction_error_is_a_mean_over_pixels():
    model, stages = in_training()
    terms = model.losses(stages, batch(), LABELS)
    error = (stages["reconstruction"].permute(0, 3, 1, 2) - batch()) ** 2
    close(terms["reconstruction"], error.mean(dim=(1, 2, 3)), terms=TERMS)
    close(terms["total"], terms["margin"].mean() + 0.0005 * error.mean(), terms=TERMS)
