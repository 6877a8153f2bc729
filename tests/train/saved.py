"""What the last checkpoint of a run holds, for tests that compare runs bit for bit."""

from pathlib import Path

import jax
import numpy as np

from train.report.loading import load_state
from train.run.folder import load_run


def arrays(out: Path) -> list[np.ndarray]:
    """All of it: parameters, moments, average, counts and the words of the key."""
    _, state = load_state(load_run(out), "last", devices=1)
    state = state._replace(key=jax.random.key_data(state.key))
    return [np.asarray(leaf) for leaf in jax.tree.leaves(state)]
