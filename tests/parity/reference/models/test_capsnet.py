"""The main PyTorch reference, against the paper and against sums done by hand."""

import math

import pytest
import torch

from parity.reference import CapsNet
from parity.reference.models.capsnet import RoutedCapsNet, squash, window_counts
from parity.reference.routing import ROUTINGS
from tests.parity.reference.by_hand import TINY, TWO_BY_TWO, close, float64

# Of two capsules for two classes.
VOTES = float64([[[[2, 0], [0, 1]], [[4, 0], [0, -1]]]])


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def test_it_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert parameters(CapsNet()) == 8_215_568
        assert parameters(CapsNet(decoder_hidden=None)) == 6_804_224


def test_window_counts_of_the_paper_and_of_an_oblong_image():
    assert window_counts((28, 28, 1), 9, 9, 2) == (6, 6)
    assert window_counts((9, 8, 2), 3, 3, 2) == (3, 2)
    assert window_counts((17, 17, 1), 9, 9, 2) == (1, 1)


def test_an_image_smaller_than_the_kernels_or_without_channels_is_refused():
    for shape in ((16, 28, 1), (28, 16, 1)):
        with pytest.raises(ValueError, match="too small"):
            window_counts(shape, 9, 9, 2)
    with pytest.raises(ValueError, match=r"\(height, width, channels\)"):
        window_counts((28, 28), 9, 9, 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_squash_of_a_known_vector(dtype):
    v = squash(torch.tensor([3.0, -4.0], dtype=dtype))
    close(v, torch.tensor([0.6, -0.8], dtype=dtype) * (25 / 26))


def test_squash_beside_a_zero_vector_has_its_gradient():
    """For |s| = n along its own direction dv/dn = 2n / (1 + n^2)^2."""
    s = torch.tensor([[0.0, 0.0], [2.0, 0.0]], dtype=torch.float64, requires_grad=True)
    squash(s)[1, 0].backward()
    close(s.grad, float64([[0.0, 0.0], [4 / 25, 0.0]]))


@pytest.mark.parametrize("n", [1e-18, 1e-10, 1e4, 1e25])
def test_squash_is_exact_where_the_square_of_a_float32_is_not(n):
    v = squash(torch.tensor([n, 0.0]))
    close(v[0], torch.tensor(n * n / (1 + n * n), dtype=torch.float32), terms=1)


def test_squash_runs_over_the_axis_it_is_told():
    s = torch.randn(3, 4, dtype=torch.float64)
    close(squash(s, dim=0), squash(s.T, dim=1).T)
    assert not torch.allclose(squash(s, dim=0), squash(s, dim=1))


def test_two_iterations_in_closed_form():
    """With b = 0 each coupling is 1/2 and s is half the sum of the votes.

    What is added to b then is 2 * 0.9 and 4 * 0.9 for class 0, and 0 for class 1.
    """
    stages = CapsNet(**TWO_BY_TWO, iterations=2).double().route(VOTES)
    assert list(stages) == ["b1", "c1", "s1", "v1", "b2", "c2", "s2", "v2"]
    assert torch.equal(stages["c1"], torch.full((1, 2, 2), 0.5).double())
    close(stages["s1"], float64([[[3.0, 0.0], [0.0, 0.0]]]))
    close(stages["v1"], float64([[[0.9, 0.0], [0.0, 0.0]]]))
    close(stages["b2"], float64([[[1.8, 0.0], [3.6, 0.0]]]))
    first, second = 1 / (1 + math.exp(-1.8)), 1 / (1 + math.exp(-3.6))
    close(stages["c2"], float64([[[first, 1 - first], [second, 1 - second]]]))
    close(stages["s2"], float64([[[2 * first + 4 * second, 0], [0, second - first]]]))


def test_stages_of_the_published_size():
    with torch.device("meta"):
        stages = CapsNet()(torch.empty(2, 1, 28, 28))
    assert stages["u_hat"].shape == (2, 1152, 10, 16)
    assert stages["reconstruction"].shape == (2, 784)


def test_it_learns_a_batch():
    torch.manual_seed(0)
    model = CapsNet(**TINY)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    images, labels = torch.rand(2, 2, 9, 8), torch.tensor([3, 1])
    totals = []
    for _ in range(30):
        optimiser.zero_grad()
        total = model.losses(model(images, labels), images, labels)["total"]
        total.backward()
        optimiser.step()
        totals.append(total.item())
    assert totals[-1] < 0.5 * totals[0], totals


def test_another_routing_stands_where_dynamic_routing_did():
    """And dynamic routing in that place computes what the paper's network computes."""
    own, other = CapsNet(**TINY), RoutedCapsNet(ROUTINGS["dynamic"], **TINY)
    other.load_state_dict(own.state_dict())
    images, labels = torch.rand(2, 2, 9, 8), torch.tensor([0, 1])
    stages = other(images, labels)
    for name, value in own(images, labels).items():
        assert torch.equal(stages[name], value), name
