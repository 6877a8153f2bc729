"""What is inside of a trained network, over all of its routed layers."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from train.learn.objective import Objective
from train.report.inspect import look_inside
from train.report.loading import load_model, load_split
from train.report.recording import member
from train.run.folder import load_run
from train.study.trial.definition import Quantity

EXAMPLES = 256
"""Test images that are looked at, the first of each class in its share."""
STARVED = 0.1
"""Share of an equal share of its layer's gradient, below which a capsule is called starved."""


class Inside(NamedTuple):
    """Figures of a network, in percent."""

    # Of all routed capsules, those there for no image, see `capsjax.inspection.dead_share`.
    dead: float
    # Of all routed capsules, those whose matrices get less than a tenth of an equal share of the
    # gradient of their layer's, by its length.
    starved: float
    # Of the coupling after the last iteration, of what it would be if all capsules above got alike;
    # the mean of the layers.
    entropy: float


@functools.lru_cache(maxsize=1)
def look(folder: Path, data_dir: Path | None) -> Inside:
    """Looks into the network of a run whose routed layers are `DenseCaps`."""
    run = load_run(folder)
    objective, model = Objective.of(run.config), load_model(run, "last")
    test = load_split(run, run.config.data.dataset, data_dir)
    examples = test.some(EXAMPLES)
    batch = objective.normalise_batch(examples, jnp.dtype(run.config.model.param_dtype))
    graphdef, params, *rest = nnx.split(model, nnx.Param, ...)

    @jax.jit
    def loss(params: nnx.State) -> jax.Array:
        merged = nnx.merge(graphdef, params, *rest, copy=True)
        output = objective.apply(merged, batch.images, batch.labels, training=False)
        return jnp.mean(objective.losses(output, batch.targets, batch.labels)["loss"])

    gradients = nnx.merge(graphdef, jax.grad(loss)(params), *rest)
    inspected = look_inside(model, objective, jnp.asarray(examples.images))[0]
    starved = [_starved(np.asarray(member(gradients, name).kernel[...])) for name in inspected]
    counts = np.array(list(map(len, starved)))
    dead = [float(of_layer.dead) for of_layer in inspected.values()]
    entropies = [float(of_layer.entropy[-1]) for of_layer in inspected.values()]
    return Inside(
        dead=100 * float(np.average(dead, weights=counts)),
        starved=100 * float(np.mean(np.concatenate(starved))),
        entropy=100 * float(np.mean(entropies / np.log(counts))),
    )


def _starved(gradient: np.ndarray) -> np.ndarray:
    """Whether each capsule is, `[J]`, of the gradient of matrices `[I, J, D, K]`."""
    lengths = np.sqrt(np.square(gradient, dtype=np.float64).sum(axis=(0, 2, 3)))
    return lengths <= STARVED * lengths.mean()


def inside(field: str, name: str) -> Quantity:
    """A field of `Inside` as a quantity."""
    return Quantity(name, lambda run, data_dir: getattr(look(run, data_dir), field))
