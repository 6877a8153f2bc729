"""The forward pass alone, on one device: images to classes, as they are measured and predicted."""

import statistics
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import capsjax
from train.bench.costs import footprint, peak_bytes, room
from train.bench.timing import Rounds, rates, seconds_of, time_rounds
from train.config.fit_config import FitConfig
from train.data import Dataset
from train.learn.network import build_model, out_of_memory_is_bad_input
from train.system.errors import DoesNotFitError

BATCH_SIZES = (1, 4, 16, 64, 256, 1024, 4096)
"""That are measured if nothing else is said."""


def measure_forward(config: FitConfig, dataset: Dataset, rounds: Rounds) -> dict[str, Any]:
    """The forward pass of a network with fresh weights, its batch a program of its own.

    `rates` and `batch_seconds` in the median, each batch waited for, uint8 images on the device to
    lengths; `predict_seconds` of `capsjax.Network.predict`, images and answer in NumPy;
    `compile_seconds`, `memory` planned for it, and `peak_bytes` in use.

    Raises:
        DoesNotFitError: if it needs more memory than there is.
        UserError: if the network cannot be made.
    """
    batch = config.schedule.batch_size
    model = build_model(config, dataset.image_shape, dataset.num_classes)
    model.eval()
    preprocessing = config.data.preprocessing
    network = capsjax.Network(model, preprocessing=preprocessing, image_shape=dataset.image_shape)
    examples = dataset.train.gather(np.arange(batch) % len(dataset.train))
    graphdef, state = nnx.split(model)

    @jax.jit
    def lengths(state: Any, images: jax.Array) -> jax.Array:
        seen = preprocessing(images, jnp.dtype(config.model.param_dtype))
        return nnx.merge(graphdef, state)(seen).lengths

    with out_of_memory_is_bad_input(batch, "choose smaller --batch-sizes"):
        images, compiled = jnp.asarray(examples.images), []
        (device,) = images.devices()
        lowered = lengths.lower(state, images)
        compile_seconds = seconds_of(lambda _: compiled.append(lowered.compile()), 1)
        plan = footprint(compiled[0])
        if plan["total"] > room([device]):
            raise DoesNotFitError(
                f"a batch of {batch} takes {plan['total']:,} bytes, more than the "
                f"{room([device]):,} there are: choose smaller --batch-sizes."
            )

        def run(times: int) -> None:
            for _ in range(times):
                compiled[0](state, images).block_until_ready()

        seconds = time_rounds(run, rounds)
        peak = peak_bytes([device])

        def predict(times: int) -> None:
            for _ in range(times):
                network.predict(examples.images)

        predicting = time_rounds(predict, rounds)
    return {
        "device_kind": device.device_kind,
        **rates(batch, seconds),
        "batch_seconds": statistics.median(seconds),
        "predict_seconds": statistics.median(predicting),
        "compile_seconds": compile_seconds,
        "memory": plan,
        "peak_bytes": peak,
    }
