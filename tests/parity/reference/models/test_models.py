"""The contract of the PyTorch models; `parity check` compares their numbers with capsjax's."""

import math

import pytest
import torch

from parity.reference import OTHERS
from parity.reference.models import MODELS, ModelReference

KINDS = {**MODELS, **OTHERS}
LABELS = torch.tensor([3, 0, 9, 1])
every_model = pytest.mark.parametrize("name", KINDS)


def drawn(name: str, seed: int = 0) -> ModelReference:
    kind = KINDS[name]
    torch.manual_seed(seed)
    model = kind(**kind.tiny, **kind.with_iterations(2))
    model.draw(torch.Generator().manual_seed(seed), biases=True)
    return model.double()


@every_model
def test_every_part_is_in_the_stages_and_every_parameter_has_a_gradient(name):
    model = drawn(name)
    height, width, channels = model.tiny["image_shape"]
    images = torch.rand(4, channels, height, width, dtype=torch.float64, requires_grad=True)
    stages = model(images, LABELS)
    for part in model.parts:
        own = [stage for stage in stages if stage.startswith(part.replace(".", "_"))]
        assert own, part
    assert all(len(value) % 4 == 0 for value in stages.values())
    assert stages["lengths"].shape == (4, 10)
    assert ((stages["lengths"] >= 0) & (stages["lengths"] <= 1)).all()

    losses = model.losses(stages, images, LABELS)
    assert next(iter(losses)) == model.loss
    assert all(value.shape == (4,) for key, value in losses.items() if key != "total")
    if "reconstruction" in stages:
        assert stages["reconstruction"].shape == (4, height, width, channels)
        assert torch.equal(stages["mask"].argmax(dim=1), LABELS)
        weight = 0.0005
        expected = losses[model.loss] + weight * losses["reconstruction"]
        assert math.isclose(losses["total"].item(), expected.mean().item())
    losses["total"].backward()
    for key, parameter in model.named_parameters():
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key
    assert images.grad.any()


@every_model
def test_the_seed_decides_every_weight(name):
    once, again, other = (drawn(name, seed).state_dict() for seed in (3, 3, 4))
    for key, value in once.items():
        assert torch.equal(value, again[key]), key
    assert any(not torch.equal(value, other[key]) for key, value in once.items())


def test_networks_without_iterations_take_none():
    assert KINDS["cnn"].with_iterations(3) == {}
    assert KINDS["deepcaps"].with_iterations(3) == {"iterations": 3}
