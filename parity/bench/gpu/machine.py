"""The devices, and what they can do at best."""

from collections.abc import Iterator

import jax

from parity.bench.gpu.task import Found, Task
from train.bench.measure import measure_machine


def measure(task: Task) -> Iterator[Found]:
    """Finds `devices`, `device_kind`, `platform`, `memory_stats` of one device, and `ceilings`."""
    devices = jax.local_devices()
    yield {
        "devices": len(devices),
        "device_kind": devices[0].device_kind,
        "platform": devices[0].platform,
        "memory_stats": devices[0].memory_stats(),
    }
    plan = task.plan
    yield measure_machine(
        [plan.dtype], None, repetitions=plan.repetitions, seconds=plan.seconds / 4
    )
