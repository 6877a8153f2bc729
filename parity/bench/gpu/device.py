"""What the device does: the speed of training, PyTorch beside it, routing alone; and its memory."""

import dataclasses
import os
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import capsjax
from capsjax.routing import IMPLEMENTATIONS, Implementation
from parity.bench.contenders import CONTENDERS
from parity.bench.gpu.plan import Found, Plan, Task, attempt, fastest
from parity.bench.side_by_side import measure, summarise
from parity.bench.work import make_work
from train.bench.benchmark import load_or_imitate
from train.bench.ceilings import measure_machine
from train.bench.costs import footprint, peak_bytes, room
from train.bench.step_parts import measure as measure_alone
from train.bench.timing import fit_line
from train.bench.training import (
    measure_speed,
    network_flops,
    smallest_program,
    steps_of,
)
from train.config.fit_config import FitConfig
from train.data import Dataset, Split
from train.learn.trainer import assemble
from train.system.machine import available_cores

SHARES = (1.0, 0.95, 0.9, 0.8, 0.7, 0.5)
"""Of the predicted batch size, tried one after the other: the compiler plans not all of memory."""


def measure_device(task: Task) -> Iterator[Found]:
    """Finds what `measure_machine` does, first without the ceilings, and a device's memory."""
    device = jax.local_devices()[0]
    yield {
        "devices": jax.local_device_count(),
        "device_kind": device.device_kind,
        "platform": device.platform,
        "memory_stats": device.memory_stats(),
    }
    yield measure_machine([task.plan.dtype], None, task.plan.rounds.short)


def measure_training(task: Task) -> Iterator[Found]:
    """Finds `flops_per_image` of a training step, and `rows`, one for each that was tried.

    That is at several batch sizes, then, at the best, with each implementation of routing. A row
    holds `batch_size`, `implementation` (None: the library's choice), `failure`, and, where that is
    None, what `train.bench.training.measure_speed` found.
    """
    plan = task.plan
    dataset, synthetic = load_or_imitate(plan.config.data.dataset, data_dir=task.data_dir)
    _, flops = network_flops(plan.config, dataset)
    yield {"flops_per_image": flops, "random_images": synthetic}
    rows: list[Found] = []

    def add(batch_size: int, implementation: str | None) -> Found:
        config = plan.training(batch_size, implementation)
        point = {"batch_size": batch_size, "implementation": implementation}
        rows.append({**point, **attempt(measure_speed, config, dataset, None, plan.rounds)})
        return {"rows": rows}

    for batch_size in plan.batch_sizes:
        yield add(batch_size, None)
    best = fastest(rows)
    if best is not None:
        for implementation in IMPLEMENTATIONS:
            yield add(best["batch_size"], implementation)


def measure_side_by_side(task: Task) -> Iterator[Found]:
    """Finds `rows` of `parity.bench.side_by_side.summarise`.

    They are of the batch size best for capsjax, and of parts of it.
    """
    plan = task.plan
    rows: list[Found] = []
    for part in plan.contender_parts:
        work = make_work(
            plan.config.model.name,
            max(1, task.best_batch // part),
            dtype=plan.dtype,
            iterations=plan.config.model.routing_iterations,
            options=plan.contender_sizes,
        )
        for group in plan.contenders:
            contenders = {name: CONTENDERS[name] for name in ("capsjax", *group)}
            results = measure(contenders, work, rounds=plan.rounds, cores=available_cores())
            rows += summarise(results)
            yield {"rows": rows}


def measure_routing(task: Task) -> Iterator[Found]:
    """Finds, under the name of each implementation, `forward` and `both` or a `failure`.

    Each of the two is what `train.bench.step_parts.measure` finds of votes and routing alone,
    forward, and forward and backward.
    """
    for implementation in IMPLEMENTATIONS:
        yield {implementation: attempt(_routing_cost, task.plan, implementation)}


def _routing_cost(plan: Plan, implementation: Implementation) -> Found:
    in_capsules, in_dim, out_capsules, out_dim = plan.routing
    layer = capsjax.DenseCaps(
        in_capsules,
        in_dim,
        out_capsules,
        out_dim,
        routing=capsjax.routing.Dynamic(plan.config.model.routing_iterations),
        implementation=implementation,
        dtype=jnp.dtype(plan.dtype),
        rngs=nnx.Rngs(0),
    )
    graphdef, params = nnx.split(layer)
    shape = (plan.routing_batch, in_capsules, in_dim)
    pose = 0.1 * jax.random.normal(jax.random.key(1), shape, jnp.dtype(plan.dtype))

    def forward(params: Any, pose: jax.Array) -> jax.Array:
        below = capsjax.Capsules(pose, capsjax.norm(pose))
        return nnx.merge(graphdef, params)(below)[0].pose

    def both(params: Any, pose: jax.Array) -> Any:
        v, backward = jax.vjp(forward, params, pose)
        return v, backward(jnp.ones_like(v))

    costs = {"forward": forward, "both": both}
    return {name: measure_alone(f, (params, pose), plan.rounds) for name, f in costs.items()}


def measure_memory(task: Task) -> Iterator[Found]:
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
    lowered = [program.lower(size) for size in plan.memory_batches]
    needs = [devices * footprint(step.compile())["total"] for step in lowered]
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
