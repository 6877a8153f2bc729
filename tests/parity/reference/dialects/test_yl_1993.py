"""The matrix capsules of yl-1993 against what is known of them, worked out by hand."""

import functools
import math

import pytest
import torch

from parity.reference.dialects.yl_1993 import Yl1993
from tests.parity.reference.by_hand import close, float64

TERMS = 2 * 9 * 11
"""Positions of a filter in both images, over which is normalised."""


def drawn(**changes) -> Yl1993:
    model = Yl1993(**{**Yl1993.tiny, **changes})
    model.draw(torch.Generator().manual_seed(0), biases=True)
    return model.double()


@functools.cache
def seen() -> tuple[Yl1993, torch.Tensor, dict[str, torch.Tensor]]:
    """A network, two images, and what it computes of them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(2, 2, 17, 21, generator=generator, dtype=torch.float64)
    model = drawn()
    with torch.no_grad():
        return model, images, model(images)


def test_names_and_shapes_of_the_public_class():
    expected: dict[str, tuple[int, ...]] = {"conv1.weight": (32, 1, 5, 5), "conv1.bias": (32,)}
    expected |= {f"bn1.{n}": (32,) for n in ("weight", "bias", "running_mean", "running_var")}
    expected["bn1.num_batches_tracked"] = ()
    for name, filters in {"pose": 512, "a": 32}.items():
        expected[f"primary_caps.{name}.weight"] = (filters, 32, 1, 1)
        expected[f"primary_caps.{name}.bias"] = (filters,)
    capsules = {"conv_caps1": (288, 32), "conv_caps2": (288, 32), "class_caps": (32, 10)}
    for name, (below, above) in capsules.items():
        expected[f"{name}.weights"] = (1, below, above, 4, 4)
        expected |= {f"{name}.beta_u": (above,), f"{name}.beta_a": (above,)}
    with torch.device("meta"):
        model = Yl1993()
    assert {n: tuple(t.shape) for n, t in model.state_dict().items()} == expected
    assert model.iterations == 2
    # 28x28 -> 14x14 -> 6x6 -> 4x4.
    assert [windows.counts for windows in model.windows] == [(6, 6), (4, 4)]


def test_features_and_primary_capsules():
    model, images, stages = seen()
    with torch.no_grad():
        maps = model.conv1(images)
    mean = maps.mean(dim=(0, 2, 3), keepdim=True)
    var = maps.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
    scale, bias = (x[None, :, None, None] for x in (model.bn1.weight, model.bn1.bias))
    expected = torch.relu((maps - mean) / torch.sqrt(var + 1e-3) * scale + bias)
    close(stages["features"], expected.permute(0, 2, 3, 1), terms=TERMS)
    at = expected[1, :, 3, 4]
    poses = model.primary_caps.pose.weight[:, :, 0, 0] @ at + model.primary_caps.pose.bias
    logits = model.primary_caps.a.weight[:, :, 0, 0] @ at + model.primary_caps.a.bias
    assert stages["primary_caps_pose"].shape == (2, 9, 11, 8, 4)
    close(stages["primary_caps_pose"][1, 3, 4].flatten(), poses, terms=TERMS)
    activations = 1 / (1 + torch.exp(-logits))
    close(stages["primary_caps_activation"][1, 3, 4], activations, terms=TERMS)


def em_by_hand(votes, activations, beta_u, beta_a, iterations):
    """`votes[i][j][d]` -> means, activations and the assignments that they were made with."""
    I, J, D = (range(len(x)) for x in (votes, votes[0], votes[0][0]))  # noqa: E741
    r = [[1 / len(J) for _ in J] for _ in I]
    for _ in range(iterations):
        used = r
        weighted = [[r[i][j] * activations[i] for j in J] for i in I]
        weighted = [[x / (sum(row) + 1e-8) for x in row] for row in weighted]
        mass = [sum(weighted[i][j] for i in I) for j in J]
        c = [[weighted[i][j] / (mass[j] + 1e-8) for j in J] for i in I]
        mu = [[sum(c[i][j] * votes[i][j][d] for i in I) for d in D] for j in J]
        noise = [[[(votes[i][j][d] - mu[j][d]) ** 2 for d in D] for j in J] for i in I]
        var = [[sum(c[i][j] * noise[i][j][d] for i in I) + 1e-8 for d in D] for j in J]
        cost = [sum((beta_u[j] + math.log(math.sqrt(x))) * mass[j] for x in var[j]) for j in J]
        a = [1 / (1 + math.exp(-1e-3 * (beta_a[j] - cost[j]))) for j in J]
        r = []
        for i in I:
            p = list(a)
            for j in J:
                for d in D:
                    density = math.exp(-noise[i][j][d] / (2 * var[j][d]))
                    p[j] *= density / math.sqrt(2 * math.pi * var[j][d])
            r.append([x / sum(p) for x in p])
    return mu, a, used


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_em_by_hand(iterations):
    model = drawn(iterations=iterations)
    generator = torch.Generator().manual_seed(2)
    votes = torch.randn(1, 5, 3, 4, generator=generator, dtype=torch.float64)
    activations = torch.rand(1, 5, generator=generator, dtype=torch.float64)
    layer = model.conv_caps1
    layer.beta_u = torch.nn.Parameter(float64([0.5, -1.0, 2.0]))
    layer.beta_a = torch.nn.Parameter(float64([100.0, -50.0, 3.0]))
    routed = model.route(votes, activations, layer)
    numbers = (x.tolist() for x in (votes[0], activations[0], layer.beta_u, layer.beta_a))
    expected = em_by_hand(*numbers, iterations)
    for name, value in zip(("capsules", "lengths", "coupling"), expected, strict=True):
        close(routed[name][0], float64(value))


def test_positions_are_those_of_corners_in_the_first_two_numbers():
    votes = drawn().class_votes(torch.zeros(1, 3, 4, 4, 4, dtype=torch.float64))
    assert votes.shape == (1, 3 * 4 * 4, 10, 4)
    by_place = votes.unflatten(1, (3, 4, 4))[0, :, :, 0, 0]
    assert by_place[..., 0].tolist() == [[y / 3] * 4 for y in range(3)]
    assert by_place[..., 1].tolist() == [[x / 4 for x in range(4)]] * 3
    assert not by_place[..., 2:].any()


def test_a_capsules_shares_are_of_one_window():
    coupling = seen()[2]["conv_caps_0_coupling"]
    assert coupling.shape == (2, 4, 5, 3 * 3 * 8, 3)
    close(coupling.sum(dim=-1), torch.ones_like(coupling[..., 0]))


def test_the_spread_loss_leaves_the_label_out():
    lengths = float64([[0.2, 0.7, 0.5]])
    name, loss = drawn().class_loss({"lengths": lengths}, torch.tensor([1]))
    assert name == "spread"
    close(loss, float64([(0.9 - 0.5) ** 2 + (0.9 - 0.2) ** 2]))
