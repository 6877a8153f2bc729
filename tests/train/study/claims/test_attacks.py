"""Attacks on a network whose gradients are known by hand."""

import jax.numpy as jnp
import numpy as np
import pytest

from capsjax import CapsNetOutput
from tests.tolerance import assert_close
from train.learn.objective import Objective
from train.study.claims.attacks import EPSILON, FGSM, PGD, Network, attacked, distances


class Brightness:
    """Class 1 is as likely as the image is bright; all that is reconstructed is grey."""

    draws = False

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
    assert_close(distances(network, images), expected, dtype=np.float32, reduction_length=24)


def test_a_network_that_reconstructs_nothing(images):
    class Blind(Brightness):
        def __call__(self, images, labels=None):
            return super().__call__(images)._replace(reconstruction=None)

    assert distances(Network(Blind(), Objective()), images) is None
