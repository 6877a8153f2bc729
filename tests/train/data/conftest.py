"""Small data sets for the tests of the data package."""

from collections.abc import Callable

import numpy as np
import pytest

from tests.train.data.small_files import idx_bytes
from train.data import Split


@pytest.fixture(scope="session")
def to_idx() -> Callable[[np.ndarray], bytes]:
    return idx_bytes


@pytest.fixture
def split() -> Split:
    """23 random 6x5 images in four classes."""
    rng = np.random.default_rng(0)
    return Split(
        images=rng.integers(0, 256, (23, 6, 5, 1), dtype=np.uint8),
        labels=rng.integers(0, 4, 23, dtype=np.int32),
    )
