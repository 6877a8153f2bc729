"""The training step of a program, as the benchmark takes it and looks into it."""

import itertools
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from train.learn.program import Program
from train.learn.step import make_dispatch

_NO_END = 10**9


def endless_batches(program: Program) -> Iterator[Any]:
    """The batches of the program's feed, from the first on, ahead of time as in training."""
    return program.feed.batches(0, _NO_END)


def train(program: Program, batches: Iterator[Any], steps: int) -> None:
    """Takes so many steps on the next batches, as `fit` does, and waits for the last."""
    metrics: list[Any] = []
    while steps > 0:
        dispatch = list(itertools.islice(batches, min(steps, program.capacity)))
        metrics = [program.train(dispatch)]
        steps -= len(dispatch)
    jax.block_until_ready(metrics)


def lower_step(program: Program, batch_size: int) -> jax.stages.Lowered:
    """The program's training step, lowered for any batch size: nothing is computed.

    Args:
        program: it may have been assembled for another batch size.
        batch_size: a multiple of the number of devices.
    """
    example = next(iter(program.feed.batches(0, 1)))
    batch = {
        name: np.zeros((batch_size, *array.shape[1:]), array.dtype)
        for name, array in example.items()
    }
    dispatch = jax.eval_shape(lambda: make_dispatch([batch], program.capacity, program.mesh))
    return program.train_step.lower(  # type: ignore[attr-defined]
        program.state, program.feed.constants, *dispatch
    )
