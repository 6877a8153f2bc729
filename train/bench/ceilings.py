"""The devices that train, and the best that they can do: the ceilings of every rate."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from train.bench.timing import Rounds, time_rounds
from train.learn.pmap import data_mesh

_SIDES = (512, 1024, 2048, 4096, 8192, 16384)
_LONG_ENOUGH = 0.05
_BYTES = 2**28
"""Larger than any cache, and small beside the memory of an accelerator."""


def measure_machine(dtypes: Sequence[str], devices: int | None, rounds: Rounds) -> dict[str, Any]:
    """The devices, all if None, and their `ceilings`, all at work at the same time.

    Those are `matrix_flops`, the operations a second of a matrix product in each dtype, in the
    precision that JAX chooses in a model too; and `memory_bytes`, the bytes read plus those written
    a second by scaling an array in place. The fastest round counts.

    Raises:
        UserError: if there are not so many devices.
    """
    chosen = list(data_mesh(0, devices).devices.flat)
    return {
        "devices": len(chosen),
        "device_kind": chosen[0].device_kind,
        "platform": chosen[0].platform,
        "ceilings": {
            "matrix_flops": {dtype: _matrix_flops(chosen, dtype, rounds) for dtype in dtypes},
            "memory_bytes": _memory_bytes(chosen, rounds),
        },
    }


def _matrix_flops(devices: Sequence[jax.Device], dtype: str, rounds: Rounds) -> float:
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

        fastest = min(time_rounds(run, rounds))
        best = max(best, 2 * side**3 * len(devices) / fastest)
        if fastest > _LONG_ENOUGH:
            break
    return best


def _memory_bytes(devices: Sequence[jax.Device], rounds: Rounds) -> float:
    scale = jax.jit(lambda x: x * 0.5, donate_argnums=0)
    arrays = [jax.device_put(jnp.ones(_BYTES // 4, jnp.float32), device) for device in devices]

    def run(times: int) -> None:
        for _ in range(times):
            arrays[:] = [scale(array) for array in arrays]
        jax.block_until_ready(arrays)

    return 2 * _BYTES * len(devices) / min(time_rounds(run, rounds))
