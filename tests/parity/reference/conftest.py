"""What the tests of the PyTorch references share: a tiny size, and routing done by hand."""

import importlib.util
import math
from collections.abc import Callable
from types import SimpleNamespace

import pytest

collect_ignore_glob = ["test_*.py"] if importlib.util.find_spec("torch") is None else []

Votes = list[list[list[list[float]]]]


@pytest.fixture
def tiny() -> dict:
    """Constructor arguments of a network in which no two sizes are equal that could be confused.

    Primary capsules: 3 x 2 positions, 3 types, so 18.
    """
    return {
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


@pytest.fixture
def two_by_two() -> dict:
    """Constructor arguments of a network with 2 input and 2 output capsules of dimension 2."""
    return {
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
    N, I = len(votes), len(votes[0])  # noqa: E741
    J, D = len(votes[0][0]), len(votes[0][0][0])
    b = [[[prior[i][j] if prior else 0.0 for j in range(J)] for i in range(I)] for _ in range(N)]
    history = []
    for _ in range(iterations):
        c = [[[0.0] * J for _ in range(I)] for _ in range(N)]
        for n in range(N):
            if softmax_over == "outputs":
                for i in range(I):
                    c[n][i] = _softmax(b[n][i])
            else:
                for j in range(J):
                    for i, share in enumerate(_softmax([b[n][i][j] for i in range(I)])):
                        c[n][i][j] = share
        s = [
            [[sum(c[n][i][j] * votes[n][i][j][d] for i in range(I)) for d in range(D)]
             for j in range(J)]
            for n in range(N)
        ]  # fmt: skip
        v = [[squash(s[n][j]) for j in range(J)] for n in range(N)]
        history.append({"b": b, "c": c, "s": s, "v": v})
        agreement = [
            [[sum(votes[n][i][j][d] * v[n][j][d] for d in range(D)) for j in range(J)]
             for i in range(I)]
            for n in range(N)
        ]  # fmt: skip
        if shared_by_batch:
            mean = [
                [sum(agreement[n][i][j] for n in range(N)) / N for j in range(J)] for i in range(I)
            ]
            agreement = [mean] * N
        b = [
            [[b[n][i][j] + agreement[n][i][j] for j in range(J)] for i in range(I)]
            for n in range(N)
        ]
    return history


@pytest.fixture
def by_hand() -> SimpleNamespace:
    """Routing and the squashes of the dialects in plain Python, on lists of floats."""
    return SimpleNamespace(
        route=route,
        squash_paper=squash_paper,
        squash_eps_on_length=squash_eps_on_length,
        squash_eps_in_root=squash_eps_in_root,
        squash_each_element=squash_each_element,
    )
