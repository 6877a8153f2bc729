"""Images made to be mistaken, and whether a reconstruction gives them away."""

import functools
import math
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from train.data import Examples
from train.learn.objective import Objective, log_probabilities
from train.report.loading import load_model, load_split
from train.run.folder import load_run
from train.study.trial.definition import Quantity

EXAMPLES = 1000
"""Images that are attacked, the first test images of each class in its share."""
EPSILON = 0.1
"""The most by which a pixel, from 0 to 1, is moved."""
PGD_STEPS = 20
FALSE_ALARMS = 0.05
"""Share of validation images that are further from their reconstruction than the threshold."""
WEIGHTS = (0.3, 3.0, 30.0)
"""What the attack that knows the detector tries for the distance, beside a cross entropy of 1."""


class Attack(NamedTuple):
    """A way to change images, within `EPSILON`, so that they are mistaken."""

    name: str
    steps: int  # how often the gradient is followed
    step_size: float  # how far each time
    knows: bool = False  # of the detector, and so keeps the image near its reconstruction


FGSM = Attack("FGSM", 1, EPSILON)
"""Goodfellow, Shlens and Szegedy 2015, arXiv:1412.6572, section 4."""
PGD = Attack("PGD", PGD_STEPS, 2.5 * EPSILON / PGD_STEPS)
"""Madry et al. 2018, arXiv:1706.06083, section 2.1, from the image itself."""
KNOWING = Attack("PGD that knows", PGD_STEPS, PGD.step_size, knows=True)
"""After the attack of Frosst, Sabour and Hinton 2018 that takes the reconstruction into account."""
ATTACKS = (FGSM, PGD, KNOWING)


class Network(NamedTuple):
    """A trained network and the objective that normalises its images."""

    model: nnx.Module
    objective: Objective

    def __call__(self, images: jax.Array) -> Any:
        """The output for images `[n, height, width, channels]` from 0 to 1."""
        nothing = jnp.zeros(len(images), jnp.int32)
        # A copy, made where it is traced: the mode of a network from outside cannot be set there.
        model = nnx.merge(*nnx.split(self.model))
        return self.objective.apply(model, self.seen(images), nothing, training=False)

    def seen(self, images: jax.Array) -> jax.Array:
        """Images as the network sees them."""
        return self.objective.normalise(images, images.dtype)

    def distances(self, images: jax.Array, output: Any) -> jax.Array:
        """Distances `[n]` of images from the reconstructions of their longest capsules."""
        apart = jnp.square(output.reconstruction - self.seen(images))
        return jnp.sqrt(jnp.sum(apart, axis=(1, 2, 3)))


def attacked(
    network: Network, images: jax.Array, labels: jax.Array, attack: Attack, weight: float = 0.0
) -> jax.Array:
    """Changes images so that the network finds their labels, int32 `[n]`, as unlikely as possible.

    The images `[n, height, width, channels]` are from 0 to 1, and so are those returned, of which
    no pixel is further than `EPSILON` from what it was. The weight is that of the mean squared
    difference of an image and its reconstruction, which is kept small at the same time.
    """

    def loss(changed: jax.Array) -> jax.Array:
        output = network(changed)
        scores = log_probabilities(output.lengths) if output.logits is None else output.logits
        mistaken = optax.losses.softmax_cross_entropy_with_integer_labels(scores, labels)
        if not weight:
            return jnp.sum(mistaken)
        apart = jnp.square(output.reconstruction - network.seen(changed))
        return jnp.sum(mistaken) - weight * jnp.sum(jnp.mean(apart, axis=(1, 2, 3)))

    def step(_index: jax.Array, changed: jax.Array) -> jax.Array:
        moved = changed + attack.step_size * jnp.sign(jax.grad(loss)(changed))
        near = jnp.clip(moved, images - EPSILON, images + EPSILON)
        return jnp.clip(near, 0, 1)

    return lax.fori_loop(0, attack.steps, step, images)


class Outcome(NamedTuple):
    """Success of an attack, in percent."""

    mistaken: float  # of the images that the network had recognised, those that it no longer does
    # Of the mistaken ones, those that are further from their reconstruction than the threshold; NaN
    # of a network that reconstructs nothing, or where none is mistaken.
    detected: float
    undetected: float  # of the images that it had recognised, those mistaken and not detected


class Victim:
    """The network of a run, and the threshold of its detector, which validation images decide."""

    def __init__(self, folder: Path, data_dir: Path | None) -> None:
        run = load_run(folder)
        self._network = Network(load_model(run, "last"), Objective.of(run.config))
        self._dtype = jnp.dtype(run.config.model.param_dtype)
        name = run.config.data.dataset
        self._test = load_split(run, name, data_dir)
        self._validation = load_split(run, name, data_dir, "validation")
        graphdef, state = nnx.split(self._network.model)

        def network(state: Any) -> Network:
            return self._network._replace(model=nnx.merge(graphdef, state))

        @jax.jit
        def look(state: Any, images: jax.Array) -> tuple[jax.Array, jax.Array | None]:
            output = network(state)(images)
            classes = jnp.argmax(output.lengths, axis=-1)
            if output.reconstruction is None:
                return classes, None
            return classes, network(state).distances(images, output)

        @functools.partial(jax.jit, static_argnames=("attack", "weight"))
        def change(state: Any, images: Any, labels: Any, attack: Attack, weight: float) -> Any:
            return attacked(network(state), images, labels, attack, weight)

        self._look = functools.partial(look, state)
        self._change = functools.partial(change, state)
        _, apart = self._look(self._first(self._validation)[0])
        self.reconstructs = apart is not None
        self.threshold = math.inf if apart is None else np.quantile(apart, 1 - FALSE_ALARMS)

    def outcome(self, attack: Attack) -> Outcome:
        """The success of an attack on test images.

        One that knows of the detector takes the weight, of `WEIGHTS`, with which most validation
        images are mistaken and not detected.
        """
        weight = 0.0
        if attack.knows and self.reconstructs:
            weight = max(
                WEIGHTS, key=lambda w: self._outcome(self._validation, attack, w).undetected
            )
        return self._outcome(self._test, attack, weight)

    def _outcome(self, examples: Examples, attack: Attack, weight: float) -> Outcome:
        images, labels = self._first(examples)
        recognised = np.asarray(self._look(images)[0] == labels)
        classes, apart = self._look(self._change(images, labels, attack, weight))
        mistaken = recognised & np.asarray(classes != labels)
        detected = np.zeros_like(mistaken) if apart is None else np.asarray(apart) > self.threshold
        of_mistaken = _percent(mistaken & detected, mistaken) if self.reconstructs else math.nan
        return Outcome(
            _percent(mistaken, recognised),
            of_mistaken,
            _percent(mistaken & ~detected, recognised),
        )

    def _first(self, examples: Examples) -> tuple[jax.Array, jax.Array]:
        images, labels, _ = examples.some(EXAMPLES)
        return jnp.asarray(images, self._dtype) / 255, jnp.asarray(labels)


def _percent(some: np.ndarray, of: np.ndarray) -> float:
    return 100 * float(some.sum() / of.sum()) if of.any() else math.nan


_victim = functools.lru_cache(maxsize=1)(Victim)


@functools.lru_cache(maxsize=8)
def _outcome(folder: Path, data_dir: Path | None, attack: Attack) -> Outcome:
    victim = _victim(folder, data_dir)
    if attack.knows and not victim.reconstructs:  # there is nothing to know
        return _outcome(folder, data_dir, PGD)
    return victim.outcome(attack)


def success(attack: Attack, field: str) -> Quantity:
    """A field of the `Outcome` of an attack as a quantity."""
    return Quantity(
        f"{attack.name}: {field}, %",
        lambda run, data_dir: getattr(_outcome(run, data_dir, attack), field),
    )
