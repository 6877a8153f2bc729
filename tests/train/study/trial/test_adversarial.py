"""Attacks on a network whose gradients are known by hand."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import CapsNetOutput
from tests.tolerance import assert_close
from train.config.fit_config import FitConfig
from train.learn.objective import Objective
from train.run.folder import Run
from train.study.trial import adversarial
from train.study.trial.adversarial import EPSILON, FGSM, KNOWING, PGD, Network, Victim, attacked


class Brightness:
    """Class 1 is as likely as the image is bright; all that is reconstructed is grey."""

    def train(self):
        raise AssertionError("an attack is on a network in test")

    def eval(self):
        pass

    def __call__(self, images, labels=None):
        light = jnp.mean(images, axis=(1, 2, 3)) - 0.5
        logits = jnp.stack([-light, light], axis=1)
        return CapsNetOutput(None, jnp.exp(logits), None, jnp.full_like(images, 0.5), logits)


@pytest.fixture
def network():
    return Network(Brightness(), Objective())


@pytest.fixture
def images():
    return jnp.asarray(np.random.default_rng(0).uniform(size=(6, 4, 3, 2)), jnp.float32)


@pytest.mark.parametrize("attack", [FGSM, PGD])
def test_every_pixel_goes_where_the_class_is_less_likely(network, images, attack):
    labels = jnp.asarray([0, 1] * 3)
    changed = attacked(network, images, labels, attack)
    sign = np.where(np.asarray(labels) == 0, 1, -1)[:, None, None, None]
    expected = np.clip(np.asarray(images) + EPSILON * sign, 0, 1)
    assert_close(changed, expected.astype(np.float32), reduction_length=PGD.steps)


def test_the_distance_to_a_reconstruction(network, images):
    expected = np.linalg.norm((np.asarray(images, np.float64) - 0.5).reshape(6, -1), axis=1)
    found = network.distances(images, network(images))
    assert_close(found, expected, dtype=np.float32, reduction_length=24)


def test_an_attack_that_knows_keeps_images_near_what_is_reconstructed(network, images):
    labels = jnp.asarray([0, 1] * 3)
    plain, careful = (attacked(network, images, labels, KNOWING, w) for w in (0.0, 1000.0))
    assert_close(plain, attacked(network, images, labels, PGD))
    # All that is reconstructed is grey: with much weight, every pixel goes there.
    nearer = np.abs(np.asarray(careful) - 0.5) - np.abs(np.asarray(images) - 0.5)
    assert (nearer <= PGD.step_size).all()
    assert nearer.mean() < -0.05
    assert (np.abs(careful - images) <= EPSILON * (1 + 1e-6)).all()


@pytest.fixture
def victim(dataset, monkeypatch):
    """A run whose network takes what is lighter than grey for class 1."""

    def splits(run, name, data_dir, split="test", count=None):
        return {"test": bright, "validation": dataset.validation}[split]

    images = np.full((4, 8, 8, 1), 120, np.uint8)
    images[1] = 250  # whose class cannot be changed within so little
    images[3] = 135  # taken for class 1, and so not recognised to begin with
    bright = dataset.test.__class__(images, np.array([0, 1, 0, 0], np.int32))
    monkeypatch.setattr(adversarial, "load_split", splits)
    monkeypatch.setattr(
        adversarial, "load_run", lambda folder: Run(folder, FitConfig(), (8, 8, 1), ())
    )
    made = []

    def make(reconstruction):
        monkeypatch.setattr(adversarial, "load_model", lambda run, which: Grey(reconstruction))
        made.append(Victim(Path(f"run{len(made)}"), None))
        return made[-1]

    return make


class Grey(nnx.Module):
    """Takes what is lighter than grey for class 1, and reconstructs grey, or nothing."""

    def __init__(self, reconstructs):
        self.reconstructs = reconstructs

    def __call__(self, images, labels=None):
        output = Brightness()(images)
        return output if self.reconstructs else output._replace(reconstruction=None)


def test_what_is_mistaken_and_what_is_given_away(victim, dataset):
    found = victim(True)
    apart = np.linalg.norm((dataset.validation.images / 255 - 0.5).reshape(10, -1), axis=1)
    assert_close(found.threshold, np.quantile(apart, 0.95), dtype=np.float32, reduction_length=64)
    # Of the three that it recognises two change their class; both stay near grey.
    mistaken, detected, undetected = found.outcome(FGSM)
    assert_close([mistaken, detected, undetected], [200 / 3, 0, 200 / 3])
    found.threshold = 0.01  # everything is suspicious
    mistaken, detected, undetected = found.outcome(PGD)
    assert_close([mistaken, detected, undetected], [200 / 3, 100, 0])


def test_a_network_that_reconstructs_nothing_detects_nothing(victim):
    mistaken, detected, undetected = victim(False).outcome(KNOWING)
    assert math.isnan(detected)
    assert mistaken == undetected > 0


@pytest.mark.parametrize("reconstructs", [True, False])
@pytest.mark.parametrize("attack", [FGSM, PGD, KNOWING])
def test_of_what_reconstructs_nothing_there_is_nothing_to_know(
    victim, monkeypatch, attack, reconstructs
):
    found, asked = victim(reconstructs), []
    monkeypatch.setattr(adversarial, "_victim", lambda folder, data_dir: found)
    monkeypatch.setattr(found, "outcome", lambda attack: asked.append(attack) or "as it is")
    folder = Path(f"{attack.name}-{reconstructs}")  # results are kept by the folder
    assert adversarial._outcome(folder, None, attack) == "as it is"
    assert asked == [PGD if attack == KNOWING and not reconstructs else attack]


def test_the_attack_that_knows_takes_the_weight_that_validation_images_decide(victim, monkeypatch):
    found, tried = victim(True), []
    by_weight = dict(zip(adversarial.WEIGHTS, (1.0, 3.0, 2.0), strict=True))

    def outcome(examples, attack, weight):
        tried.append((examples is found._validation, weight))
        return adversarial.Outcome(0.0, 0.0, by_weight[weight])

    monkeypatch.setattr(found, "_outcome", outcome)
    assert found.outcome(KNOWING).undetected == 3.0
    assert tried == [*((True, w) for w in adversarial.WEIGHTS), (False, adversarial.WEIGHTS[1])]
