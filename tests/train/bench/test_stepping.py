import jax
import numpy as np
import pytest

from train.bench.measure import smallest_program
from train.bench.stepping import endless_batches, lower_step, train
from train.errors import UserError
from train.program import assemble


def test_steps_are_those_of_training(config, dataset):
    ours, theirs = (assemble(config, dataset, devices=2) for _ in range(2))
    batches = endless_batches(ours)
    train(ours, batches, 2)
    train(ours, batches, 1)
    for batch in theirs.feed.batches(0, 3):
        theirs.train(batch)
    jax.tree.map(np.testing.assert_array_equal, ours.state.params, theirs.state.params)
    assert int(ours.state.step) == 3


def test_a_program_is_lowered_for_any_batch(config, dataset):
    program = smallest_program(config, dataset, devices=2)
    assert program.config.batch_size == 2
    lowered = lower_step(program, 4096)  # more than there are examples
    indices = lowered.in_avals[0][2]["indices"]
    assert indices.shape == (2, 2048)


def test_no_device_is_told(config, dataset):
    with pytest.raises(UserError, match="--devices is 0"):
        smallest_program(config, dataset, devices=0)
