"""Images made to be mistaken, and whether a reconstruction gives them away."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from train.data import load_dataset
from train.learn.objective import Objective, log_probabilities
from train.presets import get_preset
from train.report.loading import load_model
from train.run.folder import load_run
from train.study.trial.baselines import BASELINE, CAPSNET, PUBLISHED, SMALL, baseline
from train.study.trial.definition import Arm, Budget, Claim, Contrast, Quantity

EXAMPLES = 1000
"""Images that are attacked, the first of the test split."""
EPSILON = 0.1
"""The most by which a pixel, from 0 to 1, is moved."""
PGD_STEPS = 20
SUSPICIOUS = 0.95
"""Share of unchanged images whose reconstruction is closer than one that is called an attack."""


class Attack(NamedTuple):
    """A way to change images, within `EPSILON`, so that they are mistaken.

    Attributes:
        name: of the attack.
        steps: how often the gradient is followed.
        step_size: how far each time.
    """

    name: str
    steps: int
    step_size: float


FGSM = Attack("FGSM", 1, EPSILON)
"""Goodfellow, Shlens and Szegedy 2015, arXiv:1412.6572, section 4."""
PGD = Attack("PGD", PGD_STEPS, 2.5 * EPSILON / PGD_STEPS)
"""Madry et al. 2018, arXiv:1706.06083, section 2.1, from the image itself."""


class Network(NamedTuple):
    """A trained network and the objective that normalises its images."""

    model: nnx.Module
    objective: Objective

    def __call__(self, images: jax.Array) -> Any:
        """The output for images `[n, height, width, channels]` from 0 to 1."""
        nothing = jnp.zeros(len(images), jnp.int32)
        normalised = self.objective.normalise(255 * images, images.dtype)
        return self.objective.apply(self.model, normalised, nothing, training=False)


def attacked(network: Network, images: jax.Array, labels: jax.Array, attack: Attack) -> jax.Array:
    """Changes images so that the network finds their class as unlikely as possible.

    Args:
        network: attacked by its gradients.
        images: `[n, height, width, channels]`, from 0 to 1.
        labels: int32 `[n]`.
        attack: how.

    Returns:
        Images from 0 to 1, no pixel further than `EPSILON` from what it was.
    """

    def loss(changed: jax.Array) -> jax.Array:
        output = network(changed)
        scores = log_probabilities(output.lengths) if output.logits is None else output.logits
        return jnp.sum(optax.losses.softmax_cross_entropy_with_integer_labels(scores, labels))

    def step(_index: jax.Array, changed: jax.Array) -> jax.Array:
        moved = changed + attack.step_size * jnp.sign(jax.grad(loss)(changed))
        near = jnp.clip(moved, images - EPSILON, images + EPSILON)
        return jnp.clip(near, 0, 1)

    return lax.fori_loop(0, attack.steps, step, images)


def distances(network: Network, images: jax.Array) -> jax.Array | None:
    """Distances `[n]` of images from the reconstructions of their longest capsules."""
    reconstruction = network(images).reconstruction
    if reconstruction is None:
        return None
    apart = reconstruction - network.objective.normalise(255 * images, images.dtype)
    return jnp.sqrt(jnp.sum(jnp.square(apart), axis=(1, 2, 3)))


class Outcome(NamedTuple):
    """Success of an attack, in percent of the images that the network had recognised.

    Attributes:
        mistaken: are no longer recognised.
        undetected: nor given away by their reconstruction; the same, where there is none.
    """

    mistaken: float
    undetected: float


@functools.lru_cache(maxsize=32)
def outcome(folder: Path, data_dir: Path | None, attack: Attack) -> Outcome:
    """Attacks the network of a run.

    An image is given away if it is further from its reconstruction than `SUSPICIOUS` of as many
    training images are from theirs.
    """
    run = load_run(folder)
    dataset = load_dataset(run.config.data.dataset, data_dir=data_dir)
    network = Network(load_model(run, "last"), Objective.of(run.config))
    dtype = jnp.dtype(run.config.model.param_dtype)
    images, labels, _ = dataset.test.gather(np.arange(min(EXAMPLES, len(dataset.test))))
    unchanged, labels = jnp.asarray(images, dtype) / 255, jnp.asarray(labels)
    changed = attacked(network, unchanged, labels, attack)

    right = np.asarray(jnp.argmax(network(unchanged).lengths, axis=-1) == labels)
    mistaken = right & np.asarray(jnp.argmax(network(changed).lengths, axis=-1) != labels)
    undetected, apart = mistaken, distances(network, changed)
    if apart is not None:
        usual, _, _ = dataset.train.gather(np.arange(min(EXAMPLES, len(dataset.train))))
        usual_apart = distances(network, jnp.asarray(usual, dtype) / 255)
        assert usual_apart is not None  # as of the changed ones
        threshold = np.quantile(usual_apart, SUSPICIOUS)
        undetected = mistaken & (np.asarray(apart) <= threshold)
    recognised = max(int(right.sum()), 1)
    return Outcome(*(float(100 * some.sum() / recognised) for some in (mistaken, undetected)))


def _quantities(attack: Attack) -> list[Quantity]:
    def share(field: str) -> Quantity:
        name = f"{attack.name}: {field}, %"
        return Quantity(name, lambda run, data_dir: getattr(outcome(run, data_dir, attack), field))

    return [share(field) for field in Outcome._fields]


def arms(budget: Budget) -> Sequence[Arm]:
    """The baseline of CapsNet's paper, and CapsNet."""
    base = get_preset("mnist" if budget == "paper" else "mnist-small")
    network = PUBLISHED
    if budget == "small":
        base, network = base.changed(train_examples=20_000, epochs=3), SMALL
    return [Arm(BASELINE, baseline(base, network)), Arm(CAPSNET, base)]


CLAIM = Claim(
    says="Images that are made to be mistaken look unlike what a capsule network reconstructs of "
    "them, and are given away by it.",
    source="Frosst, Sabour and Hinton 2018, arXiv:1811.06969; the paper's attacks are stronger and "
    "of several kinds, and its figures are not repeated here",
    arms=arms,
    quantities=[*_quantities(FGSM), *_quantities(PGD)],
    contrasts=[
        Contrast(CAPSNET, BASELINE, f"{attack.name}: undetected, %") for attack in (FGSM, PGD)
    ],
)
