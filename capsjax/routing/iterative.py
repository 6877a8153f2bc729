"""The loop of routings that repeat a step: its last state, or all of them."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

S = TypeVar("S")


def last_of(first: S, again: Callable[[S, jax.Array], S], iterations: int) -> S:
    """The state after the last iteration.

    Args:
        first: the state after the first iteration. It stands outside of the loop: what is the same
            for all examples of a batch in it, such as coupling that starts uniform, stays so.
        again: the state after an iteration and the number of the next one, from 1 on (int32) -> the
            state after that.
        iterations: at least 1.
    """
    state, _ = lax.scan(
        lambda state, index: (again(state, index), None),
        first,
        jnp.arange(1, iterations, dtype=jnp.int32),
        unroll=True,
    )
    return state


def all_of(first: S, again: Callable[[S, jax.Array], S], iterations: int) -> S:
    """The states after each of `R` iterations, arrays `[R, ...]`; arguments as of `last_of`."""
    states = [first]
    for index in range(1, iterations):
        states.append(again(states[-1], jnp.asarray(index, jnp.int32)))
    return jax.tree.map(lambda *arrays: jnp.stack(arrays), *states)
