"""The contract of the PyTorch routings; `parity check` compares their numbers with capsjax's."""

import inspect

import pytest
import torch

from parity.reference._parts import Sizes
from parity.reference.routing import ROUTINGS
from parity.reference.routing.variational_bayes import digamma
from tests.parity.reference.by_hand import close

I, K, J, D = SIZES = Sizes(in_capsules=5, in_dim=3, out_capsules=4, out_dim=4)  # noqa: E741
ITERATES = {n: "iterations" in inspect.signature(r).parameters for n, r in ROUTINGS.items()}
# A share is lost, sums are those of an output capsule, 1e-10 is added to them, a prior is learned.
OTHER_SHARES = ("dynamic-leaky", "kde-dynamic", "inverted-attention", "self-attention")


def make(name: str, iterations: int = 2) -> torch.nn.Module:
    torch.manual_seed(0)
    options = {"iterations": iterations} if ITERATES[name] else {}
    routing = ROUTINGS[name](SIZES, **options).double()
    for parameter in routing.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return routing


def inputs() -> list[torch.Tensor]:
    """Votes `[B, I, J, D]`, activations `[B, I]` and poses `[B, I, K]`, which need a gradient."""
    torch.manual_seed(1)
    votes, activation, pose = torch.randn(2, I, J, D), torch.rand(2, I), torch.randn(2, I, K)
    return [x.double().requires_grad_() for x in (votes, activation, pose)]


@pytest.mark.parametrize("name", ROUTINGS)
def test_result_and_gradients_are_of_an_example_by_itself(name):
    routing, batch = make(name), inputs()
    stages = routing(*batch)
    result = [(stage, tuple(value.shape)) for stage, value in stages.items()][-3:]
    assert result == [("capsules", (2, J, D)), ("coupling", (2, I, J)), ("lengths", (2, J))]
    assert all(value.dtype == torch.float64 for value in stages.values())
    assert ((stages["lengths"] >= 0) & (stages["lengths"] <= 1)).all()
    alone = routing(*(x[1:] for x in batch))
    for stage, value in stages.items():
        close(value[1:], alone[stage], terms=I * J * D)
    (stages["capsules"].sum() + stages["lengths"].sum()).backward()
    assert batch[0].grad.abs().max() > 0
    for tensor in (*batch, *routing.parameters()):
        assert tensor.grad is None or torch.isfinite(tensor.grad).all()


@pytest.mark.parametrize("name", [name for name, iterates in ITERATES.items() if iterates])
def test_another_iteration_goes_on_where_the_last_one_stopped(name):
    once, twice = (list(make(name, n)(*inputs()).items()) for n in (1, 2))
    symbols = len(once) - 3
    assert len(twice) == 2 * symbols + 3
    for (stage, value), (same_stage, same_value) in zip(once[:-3], twice, strict=False):
        assert stage == same_stage
        assert torch.equal(value, same_value), stage
    assert [stage[:-1] for stage, _ in twice[symbols:-3]] == [stage[:-1] for stage, _ in once[:-3]]
    assert not torch.equal(once[-3][1], twice[-3][1])


@pytest.mark.parametrize("name", [name for name in ROUTINGS if name not in OTHER_SHARES])
def test_the_shares_of_an_input_capsule_sum_to_one(name):
    coupling = make(name)(*inputs())["coupling"]
    close(coupling.sum(dim=2), torch.ones(2, I).double())


def test_digamma_is_that_of_pytorch_as_far_as_that_is_exact():
    x = torch.logspace(-3, 4, 50, dtype=torch.float64)
    for value, expected in zip(digamma(x), torch.digamma(x), strict=True):
        close(value, expected)
