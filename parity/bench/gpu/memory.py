"""The memory of a training step for an image, and the largest batch that trains."""

import dataclasses
import os
from collections.abc import Iterator

import jax
import numpy as np

from capsjax.routing.dense import IMPLEMENTATIONS
from parity.bench.gpu.part import Found, Task, attempt
from parity.bench.gpu.plan import Plan
from train.bench.costs import peak_bytes, room
from train.bench.data import load_or_imitate
from train.bench.timing import fit_line
from train.bench.training import planned_memory, smallest_program, steps_of
from train.config.fit_config import FitConfig
from train.data import Dataset, Split
from train.learn.program import assemble

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Of the predicted batch size, tried one after the other: the compiler plans not all of memory."""


def measure(task: Task) -> Iterator[Found]:
    """Finds the `room` on a device in bytes, `implementations` and `largest`.

    Under the name of an implementation there are `bytes_per_image` and `fixed_bytes` of all
    devices and the `batch_size` that is predicted to fit, or a `failure`. `largest` is of the
    one that takes the least for an image: the `batch_size` that trained, the sizes that `failed`
    before, and `peak_bytes`.
    """
    # JAX keeps a quarter of a GPU's memory to itself, unless told otherwise before it is asked.
    os.environ.setdefault("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.95")
    plan = task.plan
    devices = jax.local_devices()
    yield {"room": room(devices)}
    dataset, _ = load_or_imitate(plan.config.data.dataset, data_dir=task.data_dir)
    found: Found = {}
    for name in IMPLEMENTATIONS:
        found[name] = attempt(_line, plan, name, dataset, room(devices))
        yield {"implementations": found}
    ran = [name for name in found if found[name]["failure"] is None]
    if not ran:
        return
    smallest = min(ran, key=lambda name: found[name]["bytes_per_image"])
    sizes = [int(share * found[smallest]["batch_size"]) for share in SHARES]
    failed: list[int] = []
    for size in [size // len(devices) * len(devices) for size in sizes]:
        config = plan.training(size, smallest)
        result = attempt(_train, config, _enlarged(dataset, size))
        if result["failure"] is not None:
            failed.append(size)
        yield {"largest": {"implementation": smallest, "failed": failed, **result}}
        if result["failure"] is None:
            return


def _line(plan: Plan, implementation: str, dataset: Dataset, budget: int) -> Found:
    """The straight line through what the compiler plans for two batch sizes."""
    program = smallest_program(plan.training(1, implementation), dataset, None)
    devices = program.mesh.devices.size
    needs = [devices * planned_memory(program, size)["total"] for size in plan.memory_batches]
    line = fit_line(plan.memory_batches, needs)
    fitting = int((devices * budget - line.fixed) / max(line.each, 1.0))
    return {
        "bytes_per_image": line.each,
        "fixed_bytes": line.fixed,
        "batch_size": max(devices, min(fitting, plan.most_images)),
    }


def _enlarged(dataset: Dataset, size: int) -> Dataset:
    """A data set whose training split, repeated, holds a batch."""
    if len(dataset.train) >= size:
        return dataset
    batch = dataset.train.gather(np.arange(size) % len(dataset.train))
    return dataclasses.replace(dataset, train=Split(batch.images, batch.labels))


def _train(config: FitConfig, dataset: Dataset) -> Found:
    program = assemble(config, dataset)
    steps_of(program)(2)
    return {
        "batch_size": config.schedule.batch_size,
        "peak_bytes": peak_bytes(list(program.mesh.devices.flat)),
    }
