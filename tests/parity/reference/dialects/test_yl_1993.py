"""The matrix capsules of yl-1993 against what is known of them, worked out by hand."""

import math

import pytest
import torch

from parity.reference import Yl1993

pytestmark = pytest.mark.torch


def drawn(**changes) -> Yl1993:
    model = Yl1993(**{**Yl1993.tiny, **changes})
    model.draw(torch.Generator().manual_seed(0), biases=True)
    return model.double()


def batch(size: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(size, 2, 17, 21, generator=generator, dtype=torch.float64)


def test_names_and_shapes_of_the_public_class():
    capsules = {"conv_caps1": (288, 32), "conv_caps2": (288, 32), "class_caps": (32, 10)}
    expected = {
        "conv1.weight": (32, 1, 5, 5),
        "conv1.bias": (32,),
        "bn1.weight": (32,),
        "bn1.bias": (32,),
        "bn1.running_mean": (32,),
        "bn1.running_var": (32,),
        "bn1.num_batches_tracked": (),
        "primary_caps.pose.weight": (512, 32, 1, 1),
        "primary_caps.pose.bias": (512,),
        "primary_caps.a.weight": (32, 32, 1, 1),
        "primary_caps.a.bias": (32,),
    }
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
    model, images = drawn(), batch()
    with torch.no_grad():
        stages = model(images)
        maps = model.conv1(images)
        mean = maps.mean(dim=(0, 2, 3), keepdim=True)
        var = maps.var(dim=(0, 2, 3), unbiased=False, keepdim=True)
        scale, bias = (x[None, :, None, None] for x in (model.bn1.weight, model.bn1.bias))
        expected = torch.relu((maps - mean) / torch.sqrt(var + 1e-3) * scale + bias)
        torch.testing.assert_close(stages["features"], expected.permute(0, 2, 3, 1))
        at = expected[1, :, 3, 4]
        poses = model.primary_caps.pose.weight[:, :, 0, 0] @ at + model.primary_caps.pose.bias
        logits = model.primary_caps.a.weight[:, :, 0, 0] @ at + model.primary_caps.a.bias
    assert stages["primary_caps_pose"].shape == (2, 9, 11, 8, 4)
    torch.testing.assert_close(stages["primary_caps_pose"][1, 3, 4].flatten(), poses)
    torch.testing.assert_close(
        stages["primary_caps_activation"][1, 3, 4], 1 / (1 + torch.exp(-logits))
    )


def em_by_hand(votes, activations, beta_u, beta_a, iterations):
    """`votes[i][j][d]` -> means, activations and the assignments that they were made with."""
    I, J, D = len(votes), len(votes[0]), len(votes[0][0])  # noqa: E741
    r = [[1 / J] * J for _ in range(I)]
    for _ in range(iterations):
        used = r
        weighted = [[r[i][j] * activations[i] for j in range(J)] for i in range(I)]
        weighted = [[x / (sum(row) + 1e-8) for x in row] for row in weighted]
        mass = [sum(weighted[i][j] for i in range(I)) for j in range(J)]
        c = [[weighted[i][j] / (mass[j] + 1e-8) for j in range(J)] for i in range(I)]
        mu = [[sum(c[i][j] * votes[i][j][d] for i in range(I)) for d in range(D)] for j in range(J)]
        var = [
            [
                sum(c[i][j] * (votes[i][j][d] - mu[j][d]) ** 2 for i in range(I)) + 1e-8
                for d in range(D)
            ]
            for j in range(J)
        ]
        cost = [
            sum((beta_u[j] + math.log(math.sqrt(var[j][d]))) * mass[j] for d in range(D))
            for j in range(J)
        ]
        a = [1 / (1 + math.exp(-1e-3 * (beta_a[j] - cost[j]))) for j in range(J)]
        r = []
        for i in range(I):
            p = [
                a[j]
                * math.prod(
                    math.exp(-((votes[i][j][d] - mu[j][d]) ** 2) / (2 * var[j][d]))
                    / math.sqrt(2 * math.pi * var[j][d])
                    for d in range(D)
                )
                for j in range(J)
            ]
            r.append([x / sum(p) for x in p])
    return mu, a, used


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_em_by_hand(iterations):
    model = drawn(iterations=iterations)
    generator = torch.Generator().manual_seed(2)
    votes = torch.randn(1, 5, 3, 4, generator=generator, dtype=torch.float64)
    activations = torch.rand(1, 5, generator=generator, dtype=torch.float64)
    layer = model.conv_caps1
    layer.beta_u = torch.nn.Parameter(torch.tensor([0.5, -1.0, 2.0], dtype=torch.float64))
    layer.beta_a = torch.nn.Parameter(torch.tensor([100.0, -50.0, 3.0], dtype=torch.float64))
    with torch.no_grad():
        routed = model.route(votes, activations, layer)
    expected = em_by_hand(
        votes[0].tolist(),
        activations[0].tolist(),
        layer.beta_u.tolist(),
        layer.beta_a.tolist(),
        iterations,
    )
    for name, value in zip(("capsules", "lengths", "coupling"), expected, strict=True):
        torch.testing.assert_close(routed[name][0], torch.tensor(value, dtype=torch.float64))


def test_a_vote_is_the_pose_times_the_matrix():
    model = drawn()
    pose = torch.tensor([[[1.0, 2.0, 3.0, 4.0]]], dtype=torch.float64)
    weights = torch.tensor([[5.0, 6.0], [7.0, 8.0]], dtype=torch.float64)[None, None, None]
    assert model.votes(pose, weights).flatten().tolist() == [19.0, 22.0, 43.0, 50.0]


def test_positions_are_those_of_corners_in_the_first_two_numbers():
    model = drawn()
    votes = model.class_votes(torch.zeros(1, 3, 4, 4, 4, dtype=torch.float64))
    assert votes.shape == (1, 3 * 4 * 4, 10, 4)
    by_place = votes.unflatten(1, (3, 4, 4))[0, :, :, 0, 0]
    assert by_place[..., 0].tolist() == [[y / 3] * 4 for y in range(3)]
    assert by_place[..., 1].tolist() == [[x / 4 for x in range(4)]] * 3
    assert not by_place[..., 2:].any()


def test_a_capsules_shares_are_of_one_window():
    stages = drawn()(batch())
    coupling = stages["conv_caps_0_coupling"]
    assert coupling.shape == (2, 4, 5, 3 * 3 * 8, 3)
    torch.testing.assert_close(coupling.sum(dim=-1), torch.ones_like(coupling[..., 0]))


def test_the_spread_loss_leaves_the_label_out():
    model = drawn()
    lengths = torch.tensor([[0.2, 0.7, 0.5]], dtype=torch.float64)
    name, loss = model.class_loss({"lengths": lengths}, torch.tensor([1]))
    assert name == "spread"
    assert loss.item() == pytest.approx((0.9 - 0.5) ** 2 + (0.9 - 0.2) ** 2)
