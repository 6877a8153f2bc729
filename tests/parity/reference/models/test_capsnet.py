"""The main PyTorch reference, against the paper and against sums done by hand."""

import math

import pytest
import torch

from parity.reference import CapsNet
from parity.reference.models.capsnet import squash

pytestmark = pytest.mark.torch


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_it_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert parameters(CapsNet()) == 8_215_568
        assert parameters(CapsNet(decoder_hidden=None)) == 6_804_224


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squash_of_a_known_vector(dtype):
    v = squash(torch.tensor([3.0, -4.0], dtype=dtype))
    torch.testing.assert_close(v, torch.tensor([0.6, -0.8], dtype=dtype) * (25 / 26))


def test_squash_at_zero_is_zero_with_a_zero_gradient():
    s = torch.zeros(2, 3, requires_grad=True)
    v = squash(s)
    v.backward(torch.ones_like(v))
    assert torch.equal(v, torch.zeros(2, 3))
    assert torch.equal(s.grad, torch.zeros(2, 3))


def test_squash_beside_a_zero_vector_has_its_gradient():
    """For |s| = n along its own direction dv/dn = 2n / (1 + n^2)^2."""
    s = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    squash(s)[1, 0].backward()
    torch.testing.assert_close(s.grad, torch.tensor([[0.0, 0.0], [4 / 25, 0.0]]).double())


@pytest.mark.parametrize("n", [1e-18, 1e-10, 1e4, 1e25])
def test_squash_is_exact_where_the_square_of_a_float32_is_not(n):
    v = squash(torch.tensor([n, 0.0]))
    torch.testing.assert_close(v[0].item(), n * n / (1 + n * n), rtol=1e-6, atol=0)


def test_squash_runs_over_the_axis_it_is_told():
    s = torch.randn(3, 4, dtype=torch.float64)
    torch.testing.assert_close(squash(s, dim=0), squash(s.T, dim=1).T)
    assert not torch.allclose(squash(s, dim=0), squash(s, dim=1))


def test_eps_is_added_to_the_length_that_squash_divides_by():
    v = squash(torch.tensor([3.0, 4.0], dtype=torch.float64), eps=1.0)
    torch.testing.assert_close(v, torch.tensor([3.0, 4.0]).double() * (25 / 26) / 6)


def test_eps_reaches_primary_and_class_capsules(tiny):
    exact = CapsNet(**tiny).double()
    loose = CapsNet(**tiny, eps=0.1).double()
    loose.load_state_dict(exact.state_dict())
    images = torch.rand(1, 2, 9, 8, dtype=torch.float64)
    a, b = exact(images), loose(images)
    assert torch.equal(a["primary_s"], b["primary_s"])
    assert not torch.allclose(a["primary_u"], b["primary_u"])
    votes = a["u_hat"]
    assert not torch.allclose(exact.route(votes)["v1"], loose.route(votes)["v1"])


def test_one_iteration_in_closed_form(two_by_two):
    """With b = 0 each coupling is 1/2 and s is half the sum of the votes."""
    model = CapsNet(**two_by_two, iterations=1).double()
    votes = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]], [[4.0, 0.0], [0.0, -1.0]]]]).double()
    stages = model.route(votes)
    assert list(stages) == ["b1", "c1", "s1", "v1"]
    assert torch.equal(stages["c1"], torch.full((1, 2, 2), 0.5).double())
    torch.testing.assert_close(stages["s1"], torch.tensor([[[3.0, 0.0], [0.0, 0.0]]]).double())
    torch.testing.assert_close(stages["v1"], torch.tensor([[[0.9, 0.0], [0.0, 0.0]]]).double())


def test_the_second_iteration_in_closed_form(two_by_two):
    """The agreement of the case above is 2 * 0.9 and 4 * 0.9 for class 0, and 0 for class 1."""
    model = CapsNet(**two_by_two, iterations=2).double()
    votes = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]], [[4.0, 0.0], [0.0, -1.0]]]]).double()
    stages = model.route(votes)
    torch.testing.assert_close(stages["b2"], torch.tensor([[[1.8, 0.0], [3.6, 0.0]]]).double())
    first, second = 1 / (1 + math.exp(-1.8)), 1 / (1 + math.exp(-3.6))
    torch.testing.assert_close(stages["c2"][0, 0, 0].item(), first)
    torch.testing.assert_close(stages["s2"][0, 0, 0].item(), 2 * first + 4 * second)
    torch.testing.assert_close(stages["s2"][0, 1, 1].item(), (1 - first) - (1 - second))


def test_loss_terms_of_known_lengths(tiny):
    model = CapsNet(**tiny).double()
    outputs = {
        "lengths": torch.tensor([[0.95, 0.05, 0.3, 0.1, 0.0], [0.4, 0.9, 0.0, 0.0, 0.6]]).double(),
        "reconstruction": torch.full((2, 144), 0.5).double(),
    }
    images = torch.zeros(2, 2, 9, 8, dtype=torch.float64)
    images[1, 0, 0, 0] = 1.5
    terms = model.losses(outputs, images, torch.tensor([0, 4]))
    assert list(terms) == ["margin", "reconstruction", "total"]
    margin = torch.tensor([0.5 * 0.04, 0.5 * 0.09 + 0.5 * 0.64 + 0.09]).double()
    torch.testing.assert_close(terms["margin"], margin, rtol=1e-6, atol=0)
    error = torch.tensor([144 * 0.25, 143 * 0.25 + 1.0]).double()
    torch.testing.assert_close(terms["reconstruction"], error)
    torch.testing.assert_close(terms["total"], (margin + 0.0005 * error).mean(), rtol=1e-6, atol=0)


def test_reconstruction_is_compared_pixel_by_pixel_with_the_channel_last(tiny):
    model = CapsNet(**tiny)
    images = torch.rand(2, 2, 9, 8)
    outputs = model(images, torch.tensor([0, 1]))
    outputs["reconstruction"] = images.permute(0, 2, 3, 1).reshape(2, -1)
    assert model.losses(outputs, images, torch.tensor([0, 1]))["reconstruction"].tolist() == [0, 0]


def test_the_paper_sized_network_learns_a_batch():
    torch.manual_seed(0)
    model = CapsNet()
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4)
    images, labels = torch.rand(2, 1, 28, 28), torch.tensor([3, 7])
    totals = []
    for _ in range(5):
        optimiser.zero_grad()
        stages = model(images, labels)
        total = model.losses(stages, images, labels)["total"]
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.9 * totals[0], totals
    assert stages["u_hat"].shape == (2, 1152, 10, 16)
    assert stages["reconstruction"].shape == (2, 784)
