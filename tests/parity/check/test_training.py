"""The optimiser of the comparison."""

import jax
import numpy as np

from parity.check.training import adam
from tests.tolerance import assert_close


def test_learning_rate_is_computed_in_the_dtype_of_the_check():
    with jax.enable_x64(True):
        optimizer = adam()
        state = optimizer.init({"w": np.zeros(1)})
        updates, _ = optimizer.update({"w": np.ones(1)}, state)
    assert_close(updates["w"], np.array([-0.001 / (1 + 1e-8)]))
