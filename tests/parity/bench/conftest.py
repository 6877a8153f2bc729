"""Contenders as they were measured, without measuring."""

import pytest

from parity.bench.side_by_side import Measured


@pytest.fixture
def results() -> list[Measured]:
    """Contenders that ran at 8 images, one of them at 16 too, and one that cannot run."""
    found = {"device": "a device", "first_step_seconds": 1.5, "first_loss": 0.25}
    found |= {"peak_bytes": 2**30}
    ours = {"train": [0.4, 0.1, 0.2], "forward": [1.0] * 3}
    base = {"train": [0.8, 0.4, 0.8], "forward": [4.0] * 3}
    slow = {"train": [4.0] * 3, "forward": [8.0] * 3}

    def at(contender: str, batch_size: int, *values: dict, **failure: str) -> Measured:
        return Measured(contender, "capsnet", "float32", batch_size, *values, **failure)

    return [
        at("capsjax", 8, {**found, "tracing_seconds": 0.4, "compiling_seconds": 0.9}, ours),
        at("plain", 8, found, slow),
        at("base", 8, {**found, "peak_bytes": 2**31, "first_step_seconds": 0.5}, base),
        at("broken", 8, failure="no such device"),
        at("base", 16, found, base),
    ]
