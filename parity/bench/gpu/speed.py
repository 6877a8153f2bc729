"""How fast the device is, training on it, PyTorch beside it, and routing alone."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from capsjax.routing.dense import IMPLEMENTATIONS, Implementation
from parity.bench.gpu.part import Found, Task, attempt, fastest
from parity.bench.gpu.plan import Plan
from parity.bench.side_by_side import make_work, measure, summarise
from train.bench.data import load_or_imitate
from train.bench.machine import measure_machine
from train.bench.parts import measure as measure_alone
from train.bench.training import measure_speed, network_flops
from train.system.machine import available_cores


def measure_device(task: Task) -> Iterator[Found]:
    """Finds what `measure_machine` does, first without the ceilings, and a device's memory."""
    device = jax.local_devices()[0]
    yield {
        "devices": jax.local_device_count(),
        "device_kind": device.device_kind,
        "platform": device.platform,
        "memory_stats": device.memory_stats(),
    }
    yield measure_machine([task.plan.dtype], None, task.plan.rounds.shorter(0.25))


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
    """Finds `rows` of `parity.bench.side_by_side.summarise`, whose ratios are to capsjax.

    They are of the batch size best for capsjax, and of parts of it.
    """
    plan = task.plan
    rows: list[Found] = []
    for part in plan.contender_parts:
        work = make_work(
            max(1, task.best_batch // part),
            dtype=plan.dtype,
            iterations=plan.config.model.routing_iterations,
            sizes=plan.contender_sizes,
        )
        for group in plan.contenders:
            contenders = ("capsjax", *group)
            results = measure(contenders, work, rounds=plan.rounds, cores=available_cores())
            rows += summarise(results, "capsjax")
            yield {"rows": rows}


def measure_routing(task: Task) -> Iterator[Found]:
    """Finds, under the name of each implementation, `forward` and `both` or a `failure`.

    Each of the two is what `train.bench.parts.measure` finds of votes and routing alone, forward,
    and forward and backward.
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
