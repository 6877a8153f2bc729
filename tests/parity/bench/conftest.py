"""Contenders as they were measured, without measuring."""

import pytest

from parity.bench.side_by_side import Measured


@pytest.fixture
def results() -> list[Measured]:
    """Two contenders that ran at 8 images, one of them at 16 too, and one that cannot run."""
    found = {"device": "a device", "first_step_seconds": 1.5, "first_loss": 0.25}
    found |= {"peak_bytes": 2**30}
    ours = {"train": [0.4, 0.1, 0.2], "forward": [1.0] * 3}
    base = {"train": [0.8, 0.4, 0.8], "forward": [4.0] * 3}
    return [
        Measured("ours", 8, found, ours),
        Measured("base", 8, found, base),
        Measured("broken", 8, failure="no such device"),
        Measured("base", 16, found, base),
    ]
