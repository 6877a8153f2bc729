"""Votes and routing alone, forward and backward, by each implementation."""

import statistics
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import capsjax
from capsjax.routing.dense import IMPLEMENTATIONS, Implementation
from parity.bench.gpu.plan import Plan
from parity.bench.gpu.task import Found, Task, attempt
from train.bench.memory import footprint
from train.bench.timing import time_rounds


def measure(task: Task) -> Iterator[Found]:
    """Finds, under the name of each implementation, `forward` and `both` or a `failure`.

    Each of the two holds the median `seconds`, and the `bytes` that its program takes.
    """
    for implementation in IMPLEMENTATIONS:
        yield {implementation: attempt(partial(_cost, task.plan, implementation))}


def _cost(plan: Plan, implementation: Implementation) -> Found:
    in_capsules, in_dim, out_capsules, out_dim = plan.routing
    layer = capsjax.DenseCaps(
        in_capsules,
        in_dim,
        out_capsules,
        out_dim,
        routing=capsjax.DynamicRouting(plan.config.model.routing_iterations),
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

    return {
        name: _measured(function, (params, pose), plan)
        for name, function in (("forward", forward), ("both", both))
    }


def _measured(function: Any, arguments: tuple[Any, ...], plan: Plan) -> Found:
    compiled = jax.jit(function).lower(*arguments).compile()

    def run(times: int) -> None:
        for _ in range(times):
            result = compiled(*arguments)
        jax.block_until_ready(result)

    rounds = time_rounds(run, repetitions=plan.repetitions, seconds=plan.seconds)
    return {"seconds": statistics.median(rounds), "bytes": footprint(compiled).total}
