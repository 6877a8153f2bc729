"""Rows as the benchmark makes them, without measuring."""

from typing import Any

import pytest

from train.bench.step_parts import NAMES

PREDICTION = {
    "batch_size": 4900,
    "predicted_bytes": 50_000_000,
    "compiled_bytes": 50_100_000,
    "bytes_per_image": 10_000.0,
    "fixed_bytes": 1e6,
    "compiled": {16: 1_160_000},
}


def make_row(**changes: Any) -> dict[str, Any]:
    """A configuration that trains 1,000 images a second in steps of 8 ms, 5 of them in parts."""
    memory = {
        "arguments": 10,
        "outputs": 20,
        "temporaries": 1_200_000,
        "aliased": 0,
        "total": 2_500_000,
    }
    part = {"seconds": 0.001, "memory": memory, "flops": 40_000_000, "bytes_accessed": None}
    row = {
        "model": None,
        "batch_size": 8,
        "dtype": "float32",
        "iterations": 3,
        "implementation": None,
        "primary_types": None,
        "primary_capsules": 32,
        "failure": None,
        "step_seconds": 0.008,
        "images_per_second": 1000.0,
        "slowest": 900.0,
        "fastest": 1100.0,
        "compile_seconds": 1.25,
        "peak_bytes": 5 * 10**8,
        "memory": memory,
        "flops_per_image": {
            "forward": 4e6,
            "training": 12e6,
            "forward_compiled": 5e6,
            "training_compiled": None,
        },
        "parts": [{"name": name, **part} for name in NAMES],
    }
    return row | changes


@pytest.fixture
def failed() -> dict[str, Any]:
    """A configuration that could not run."""
    point = ("model", "batch_size", "dtype", "iterations", "implementation", "primary_types")
    return {k: v for k, v in make_row(batch_size=16).items() if k in point} | {"failure": "no room"}


@pytest.fixture
def machine() -> dict[str, Any]:
    """Two devices with round ceilings."""
    return {
        "devices": 2,
        "device_kind": "abacus",
        "jax": "0.10.2",
        "ceilings": {"matrix_flops": {"float32": 120e9}, "memory_bytes": 20e9},
    }
