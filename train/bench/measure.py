"""What is measured of one configuration, in the process that calls."""

import dataclasses
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import jax

from train.bench.ceilings import measure_ceilings
from train.bench.memory import (
    DoesNotFitError,
    Footprint,
    Prediction,
    footprint,
    largest_batch,
    peak_bytes,
    room,
)
from train.bench.split import Part, has_parts, measure_parts
from train.bench.stepping import endless_batches, lower_step, train
from train.bench.timing import time_rounds
from train.bench.work import compiled_flops, compiled_forward_work, network_work
from train.config.fit_config import FitConfig
from train.data import Dataset
from train.learn.network import count_parameters, out_of_memory_is_bad_input
from train.learn.program import Program, assemble
from train.learn.step import data_mesh
from train.system.errors import UserError
from train.system.machine import process_bytes

PART_SHARE = 0.25
"""A round of a part is so much shorter than one of the whole step."""


def measure_machine(
    dtypes: Sequence[str], devices: int | None, *, repetitions: int, seconds: float
) -> dict[str, Any]:
    """The devices that train, and what they can do at best.

    Raises:
        UserError: if there are not so many devices.
    """
    mesh = data_mesh(devices or jax.local_device_count(), devices)
    chosen = list(mesh.devices.flat)
    ceilings = measure_ceilings(chosen, dtypes, repetitions=repetitions, seconds=seconds)
    return {
        "devices": len(chosen),
        "device_kind": chosen[0].device_kind,
        "platform": chosen[0].platform,
        "ceilings": dataclasses.asdict(ceilings),
    }


def measure_training(
    config: FitConfig,
    dataset: Dataset,
    devices: int | None,
    *,
    repetitions: int,
    seconds: float,
) -> dict[str, Any]:
    """Everything that is measured of one configuration, as plain values.

    Args:
        config: what to measure.
        dataset: what it trains on.
        devices: how many to use, all if None.
        repetitions: number of rounds.
        seconds: about how long a round is.

    Raises:
        DoesNotFitError: if it needs more memory than there is.
        UserError: if it cannot be put together.
    """
    shape, classes = dataset.image_shape, dataset.num_classes
    several = dataset.labels_per_image
    with _out_of_memory(config.schedule.batch_size):
        program = assemble(config, dataset, devices=devices)
        used = list(program.mesh.devices.flat)
        begun = time.perf_counter()
        compiled = lower_step(program, config.schedule.batch_size).compile()
        compile_seconds = time.perf_counter() - begun
        plan = footprint(compiled)
        if plan.total > room(used):
            raise DoesNotFitError(
                f"a batch of {config.schedule.batch_size} takes {plan.total:,} bytes on each "
                f"device, more than the {room(used):,} there are: choose smaller batches."
            )
        batches = endless_batches(program)
        rounds = time_rounds(
            lambda times: train(program, batches, times),
            repetitions=repetitions,
            seconds=seconds,
        )
        peak = peak_bytes(used)
        model: Any = program.model()
        parts = (
            measure_parts(program, repetitions=repetitions, seconds=PART_SHARE * seconds)
            if has_parts(model)
            else []
        )
        share = config.schedule.batch_size // len(used)
        forward_compiled = compiled_forward_work(config, shape, classes, share, several)
    forward, gradient = network_work(plain_routing(config), shape, classes, several)
    step_flops = compiled_flops(compiled)
    capsules = getattr(getattr(model, "primary_caps", None), "num_capsules", None)
    return {
        "parameters": count_parameters(program.state.params),
        "primary_capsules": capsules,
        "step_seconds": statistics.median(rounds),
        "images_per_second": config.schedule.batch_size / statistics.median(rounds),
        "slowest": config.schedule.batch_size / max(rounds),
        "fastest": config.schedule.batch_size / min(rounds),
        "rounds": len(rounds),
        "compile_seconds": compile_seconds,
        "peak_bytes": peak,
        "memory": _memory(plan),
        "flops_per_image": {
            "forward": forward,
            "training": gradient,
            "forward_compiled": forward_compiled,
            "training_compiled": None if step_flops is None else step_flops / share,
        },
        "parts": [_part(part) for part in parts],
    }


def plain_routing(config: FitConfig) -> FitConfig:
    """The configuration without a choice of implementation, which changes no nominal work."""
    options = {k: v for k, v in config.model.options.items() if k != "routing_implementation"}
    return config.changed(model_options=options)


def predict_memory(
    config: FitConfig,
    dataset: Dataset,
    devices: int | None,
    budget: int,
    *,
    with_program: bool = False,
) -> Prediction:
    """The largest batch whose training step fits into so many bytes of each device.

    Args:
        config: what to train.
        dataset: on what.
        devices: how many to use, all if None.
        budget: bytes.
        with_program: count what this process takes apart from the step too, as on a CPU, whose
            memory they share.

    Raises:
        DoesNotFitError: if not even the smallest does.
        UserError: if the program cannot be put together.
    """
    program = smallest_program(config, dataset, devices)
    count = program.mesh.devices.size
    start = max(count, config.schedule.batch_size // 2 // count * count)
    besides: int | None = None

    def needed(size: int) -> int:
        nonlocal besides
        plan = footprint(lower_step(program, size).compile())
        if not with_program:
            return plan.total
        if besides is None:  # now that the compiler has had its share, too
            besides = process_bytes()
        # The arguments are there already.
        return besides + count * (plan.total - plan.arguments)

    return largest_batch(needed, budget, multiple=count, start=start)


def smallest_program(config: FitConfig, dataset: Dataset, devices: int | None) -> Program:
    """The program for one image a device: `lower_step` takes it to any batch size."""
    count = jax.local_device_count() if devices is None else devices
    if count < 1:  # which `assemble` would take for a bad batch size
        data_mesh(config.schedule.batch_size, devices)
    return assemble(config.changed(batch_size=count), dataset, devices=devices)


@contextmanager
def _out_of_memory(batch_size: int) -> Iterator[None]:
    try:
        with out_of_memory_is_bad_input(batch_size):
            yield
    except UserError as error:
        if isinstance(error.__cause__, jax.errors.JaxRuntimeError):
            raise DoesNotFitError(str(error)) from error
        raise


def _part(part: Part) -> dict[str, Any]:
    return {
        "name": part.name,
        "seconds": statistics.median(part.seconds),
        "slowest_seconds": max(part.seconds),
        "fastest_seconds": min(part.seconds),
        "memory": _memory(part.memory),
        "flops": part.flops,
        "bytes_accessed": part.bytes_accessed,
    }


def _memory(plan: Footprint) -> dict[str, int]:
    return {**dataclasses.asdict(plan), "total": plan.total}
