"""The training step as `fit` takes it: timed, compiled for any batch, and all that it costs."""

import itertools
import statistics
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train.bench.costs import compiled_count, flops, footprint, peak_bytes, room
from train.bench.step_parts import measure_parts
from train.bench.timing import NO_END, Rounds, rates, seconds_of, time_rounds
from train.config.fit_config import FitConfig
from train.data import Batch, Dataset
from train.learn.metrics import Mean
from train.learn.network import count_parameters, out_of_memory_is_bad_input
from train.learn.objective import Objective
from train.learn.pmap import data_mesh
from train.learn.trainer import Trainer, assemble
from train.system.errors import DoesNotFitError


def steps_of(
    program: Trainer, batches: Iterator[Any] | None = None
) -> Callable[[int], dict[str, Mean]]:
    """What takes a number of steps as `fit` does; it waits, and returns the last metrics.

    They are those of its last dispatch. The batches are the feed's if none are given.
    """
    coming = program.feed.batches(0, NO_END) if batches is None else batches

    def take(steps: int) -> dict[str, Mean]:
        while steps > 0:
            dispatch = list(itertools.islice(coming, min(steps, program.capacity)))
            metrics = program.train(dispatch)
            steps -= len(dispatch)
        return jax.block_until_ready(metrics)

    return take


def measure_speed(
    config: FitConfig, dataset: Dataset, devices: int | None, rounds: Rounds
) -> dict[str, Any]:
    """How fast a configuration trains: see `_timed`; arguments and errors as `measure_training`."""
    with out_of_memory_is_bad_input(config.schedule.batch_size):
        return _timed(assemble(config, dataset, devices=devices), rounds)


def _timed(program: Trainer, rounds: Rounds) -> dict[str, Any]:
    """Median `step_seconds`, `rates`, `gradient_bytes`."""
    seconds = time_rounds(steps_of(program), rounds)
    return {
        "step_seconds": statistics.median(seconds),
        **rates(program.config.schedule.batch_size, seconds),
        "gradient_bytes": sum(leaf.nbytes for leaf in jax.tree.leaves(program.state.params)),
    }


def measure_training(
    config: FitConfig, dataset: Dataset, devices: int | None, rounds: Rounds
) -> dict[str, Any]:
    """Everything that is measured of one configuration, as plain values; on all devices if None.

    Raises:
        DoesNotFitError: if it needs more memory than there is.
        UserError: if it cannot be put together.
    """
    batch = config.schedule.batch_size
    with out_of_memory_is_bad_input(batch):
        program = assemble(config, dataset, devices=devices)
        used = list(program.mesh.devices.flat)
        lowered, compiled = program.lower(batch), []
        compile_seconds = seconds_of(lambda _: compiled.append(lowered.compile()), 1)
        plan = footprint(compiled[0])
        if plan["total"] > room(used):
            raise DoesNotFitError(
                f"a batch of {batch} takes {plan['total']:,} bytes on each device, more than the "
                f"{room(used):,} there are: choose smaller batches."
            )
        timed, peak = _timed(program, rounds), peak_bytes(used)
        parts = measure_parts(program, rounds.short)
        forward, _, arguments = _passes(program, batch // len(used))
        whole = [jax.jit(forward).lower(*arguments).compile(), *compiled]
    model: Any = program.model()
    counts = [count and count * len(used) / batch for count in map(compiled_count, whole)]
    names = ("forward", "training", "forward_compiled", "training_compiled")
    return {
        **timed,
        "parameters": count_parameters(program.state.params),
        "primary_capsules": getattr(getattr(model, "primary_caps", None), "num_capsules", None),
        "rounds": rounds.repetitions,
        "compile_seconds": compile_seconds,
        "peak_bytes": peak,
        "memory": plan,
        "flops_per_image": dict(
            zip(names, [*network_flops(config, dataset), *counts], strict=True)
        ),
        "parts": parts,
    }


def network_flops(config: FitConfig, dataset: Dataset) -> tuple[float | None, float | None]:
    """Operations for one image: of the forward pass, and of the gradient of the loss.

    Of routing that can be computed in several ways it is the library's own choice that counts.
    """
    options = {k: v for k, v in config.model.options.items() if k != "routing_implementation"}
    program = smallest_program(config.changed(model_options=options), dataset, 1)
    forward, gradient, arguments = _passes(program, 1)
    return flops(forward, *arguments), flops(gradient, *arguments)


def _passes(
    program: Trainer, images: int
) -> tuple[Callable[..., Any], Callable[..., Any], tuple[Any, ...]]:
    """The forward pass, the gradient of the loss, and the shapes of the arguments of both."""
    objective = Objective.of(program.config)
    graphdef, params, rest = nnx.split(program.model(), nnx.Param, ...)  # type: ignore[misc]

    def forward(params: Any, rest: Any, batch: Batch) -> Any:
        # A copy: statistics of the batch change inside of the gradient.
        model = nnx.merge(graphdef, params, rest, copy=True)
        return objective.apply(model, batch.images, batch.labels, training=True)

    def loss(params: Any, rest: Any, batch: Batch) -> jax.Array:
        output = forward(params, rest, batch)
        return jnp.mean(objective.losses(output, batch.targets, batch.labels)["loss"])

    def seen() -> Batch:
        examples = program.dataset.train.gather(np.zeros(images, np.int32))
        return objective.normalise_batch(examples, jnp.dtype(program.config.model.param_dtype))

    return forward, jax.grad(loss), jax.eval_shape(lambda: (params, rest, seen()))


def smallest_program(config: FitConfig, dataset: Dataset, devices: int | None) -> Trainer:
    """The program for the smallest batch: `Trainer.lower` takes it to any other.

    Raises:
        UserError: if it cannot be put together.
    """
    smallest = data_mesh(0, devices).devices.size * config.schedule.micro_batches
    return assemble(config.changed(batch_size=smallest), dataset, devices=devices)
