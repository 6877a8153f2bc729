from types import SimpleNamespace

import jax
import numpy as np
import pytest

from train.bench.measure import smallest_program
from train.bench.stepping import endless_batches, lower_step, train
from train.learn.program import assemble
from train.system.errors import UserError


def test_steps_are_those_of_training(config, dataset):
    feed = assemble(config, dataset, devices=2).feed
    seen = []
    program = SimpleNamespace(feed=feed, train=seen.append, capacity=2)
    batches = endless_batches(program)
    train(program, batches, 3)
    train(program, batches, 1)
    assert [len(dispatch) for dispatch in seen] == [2, 1, 1]
    taken = [batch for dispatch in seen for batch in dispatch]
    jax.tree.map(np.testing.assert_array_equal, taken, list(feed.batches(0, 4)))


def test_a_program_is_lowered_for_any_batch(config, dataset):
    program = smallest_program(config, dataset, devices=2)
    assert program.config.schedule.batch_size == 2
    lowered = lower_step(program, 4096)  # more than there are examples
    indices = lowered.in_avals[0][2]["indices"]
    assert indices.shape == (2, program.capacity, 2048)


def test_no_device_is_told(config, dataset):
    with pytest.raises(UserError, match="--devices is 0"):
        smallest_program(config, dataset, devices=0)
