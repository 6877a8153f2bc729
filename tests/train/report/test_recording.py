"""Recorders in the place of a network's parts."""

import jax.numpy as jnp
import pytest
from flax import nnx

from train.report.recording import record


class Adds(nnx.Module):
    def __init__(self, number):
        self.number = number

    def __call__(self, x):
        return x + self.number

    def iterate(self, x, state=0):
        return x + self.number + state


class Network(nnx.Module):
    def __init__(self):
        self.first = Adds(1)
        self.rest = nnx.List([Adds(2), Adds(3)])

    def __call__(self, x):
        return self.rest[1](self.rest[0].iterate(self.rest[0].iterate(self.first(x)), 5))


def test_the_network_computes_as_before_and_all_is_recorded():
    x = jnp.arange(3)
    model = Network()
    recorders = record(model, ["first", "rest.0", "rest.1"])
    assert (model(x) == Network()(x)).all()
    assert (recorders["first"].arguments[0] == x).all()
    assert (recorders["first"].result == x + 1).all()
    (one,), (two, state) = (arguments for arguments, _ in recorders["rest.0"].iterated)
    assert (one == x + 1).all()
    assert (two == x + 3).all()
    assert state == 5
    assert (recorders["rest.0"].iterated[1][1] == x + 10).all()
    assert recorders["rest.0"].result is None
    assert recorders["rest.1"].number == 3


def test_a_part_that_does_not_exist():
    with pytest.raises(AttributeError, match="second"):
        record(Network(), ["second"])
