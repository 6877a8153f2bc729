"""What the devices can do at best: the rate of matrix products, and of reading and writing."""

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from train.bench.timing import time_rounds

_SIDES = (512, 1024, 2048, 4096, 8192, 16384)
_LONG_ENOUGH = 0.05
_BYTES = 2**28
"""Larger than any cache, and small beside the memory of an accelerator."""


@dataclass(frozen=True)
class Ceilings:
    """The best rates of all devices together.

    Attributes:
        matrix_flops: operations a second of a matrix product, for each dtype.
        memory_bytes: bytes read plus bytes written a second, by scaling an array in place.
    """

    matrix_flops: dict[str, float]
    memory_bytes: float


def measure_ceilings(
    devices: Sequence[jax.Device], dtypes: Sequence[str], *, repetitions: int, seconds: float
) -> Ceilings:
    """Measures both, each device at work at the same time.

    Args:
        devices: those that train.
        dtypes: of the matrix products. JAX chooses their precision as it does in a model.
        repetitions: number of rounds, of which the fastest counts.
        seconds: about how long a round is.
    """
    return Ceilings(
        {
            dtype: _matrix_rate(devices, dtype, repetitions=repetitions, seconds=seconds)
            for dtype in dtypes
        },
        _memory_rate(devices, repetitions=repetitions, seconds=seconds),
    )


def _matrix_rate(
    devices: Sequence[jax.Device], dtype: str, *, repetitions: int, seconds: float
) -> float:
    """Larger and larger products, until one takes long: small ones do not fill a device."""
    product = jax.jit(jnp.matmul)
    best = 0.0
    for side in _SIDES:
        factors = [
            jax.device_put(jnp.full((side, side), 1 / side, dtype), device) for device in devices
        ]

        def run(times: int, factors: Sequence[jax.Array] = factors) -> None:
            for _ in range(times):
                products = [product(factor, factor) for factor in factors]
            jax.block_until_ready(products)

        fastest = min(time_rounds(run, repetitions=repetitions, seconds=seconds))
        best = max(best, 2 * side**3 * len(devices) / fastest)
        if fastest > _LONG_ENOUGH:
            break
    return best


def _memory_rate(devices: Sequence[jax.Device], *, repetitions: int, seconds: float) -> float:
    scale = jax.jit(lambda x: x * 0.5, donate_argnums=0)
    arrays = [jax.device_put(jnp.ones(_BYTES // 4, jnp.float32), device) for device in devices]

    def run(times: int) -> None:
        for _ in range(times):
            arrays[:] = [scale(array) for array in arrays]
        jax.block_until_ready(arrays)

    fastest = min(time_rounds(run, repetitions=repetitions, seconds=seconds))
    return 2 * _BYTES * len(devices) / fastest
