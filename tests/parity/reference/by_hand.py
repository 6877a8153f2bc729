"""Tiny sizes for the tests of the PyTorch references, and routing done by hand."""

import math
from collections.abc import Callable

import torch

from tests.tolerance import assert_close

# No two sizes are equal that could be confused: 3 x 2 positions of 3 types, so 18 capsules.
TINY = {
    "image_shape": (9, 8, 2),
    "num_classes": 5,
    "conv_features": 4,
    "conv_kernel": 3,
    "primary_types": 3,
    "primary_dim": 4,
    "primary_kernel": 3,
    "primary_stride": 2,
    "class_dim": 6,
    "decoder_hidden": (7, 11),
}
# 2 input and 2 output capsules of dimension 2.
TWO_BY_TWO = {
    "image_shape": (4, 3, 1),
    "num_classes": 2,
    "conv_features": 1,
    "conv_kernel": 3,
    "primary_types": 1,
    "primary_dim": 2,
    "primary_kernel": 1,
    "primary_stride": 1,
    "class_dim": 2,
    "decoder_hidden": None,
}
TERMS = 150
"""More than the 144 pixels that the longest sum of a tiny network has."""

Votes = list[list[list[list[float]]]]


def close(actual, expected, *, terms: int = TERMS, dtype=None) -> None:
    """`assert_close` of tensors, or of numbers in float64."""
    actual, expected = (torch.as_tensor(x).detach().numpy() for x in (actual, expected))
    assert_close(actual, expected, reduction_length=terms, dtype=dtype)


def float64(numbers) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def _softmax(numbers: list[float]) -> list[float]:
    exponentials = [math.exp(number) for number in numbers]
    return [e / sum(exponentials) for e in exponentials]


def squash_paper(s: list[float]) -> list[float]:
    n = math.sqrt(sum(x * x for x in s))
    return [n * n / (1 + n * n) * x / n for x in s]


def squash_eps_on_length(s: list[float]) -> list[float]:
    n = math.sqrt(sum(x * x for x in s))
    return [n * n / (1 + n * n) * x / (n + 1e-8) for x in s]


def squash_eps_in_root(s: list[float]) -> list[float]:
    n2 = sum(x * x for x in s)
    return [n2 / (1 + n2) * x / math.sqrt(n2 + 1e-7) for x in s]


def squash_each_element(s: list[float]) -> list[float]:
    return [x * x / (1 + x * x) * x / abs(x) for x in s]


def route(
    votes: Votes,
    iterations: int,
    *,
    softmax_over: str = "outputs",
    shared_by_batch: bool = False,
    squash: Callable[[list[float]], list[float]] = squash_paper,
    prior: list[list[float]] | None = None,
) -> list[dict]:
    """Procedure 1 of the paper on lists of floats, with the choices of the dialects.

    `votes[n][i][j][d]` -> for each iteration the lists `b[n][i][j]`, `c`, `s[n][j][d]` and `v`.
    """
    N, I, J, D = (range(len(x)) for x in (votes, votes[0], votes[0][0], votes[0][0][0]))  # noqa: E741
    b = [[[prior[i][j] if prior else 0.0 for j in J] for i in I] for _ in N]
    history = []
    for _ in range(iterations):
        if softmax_over == "outputs":
            c = [[_softmax(b[n][i]) for i in I] for n in N]
        else:
            shares = [[_softmax([b[n][i][j] for i in I]) for j in J] for n in N]
            c = [[[shares[n][j][i] for j in J] for i in I] for n in N]
        s = [[[sum(c[n][i][j] * votes[n][i][j][d] for i in I) for d in D] for j in J] for n in N]
        v = [[squash(s[n][j]) for j in J] for n in N]
        history.append({"b": b, "c": c, "s": s, "v": v})
        added = [
            [[sum(votes[n][i][j][d] * v[n][j][d] for d in D) for j in J] for i in I] for n in N
        ]
        if shared_by_batch:
            added = [[[sum(added[n][i][j] for n in N) / len(N) for j in J] for i in I]] * len(N)
        b = [[[b[n][i][j] + added[n][i][j] for j in J] for i in I] for n in N]
    return history
