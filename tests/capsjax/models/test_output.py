"""What the networks with a decoder have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, Decoder, reconstruct
from capsjax.models.output import decoded
from tests.tolerance import assert_close

SHAPE = (3, 2, 2)


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(5, 4, SHAPE, hidden=(6,), rngs=nnx.Rngs(0))


@pytest.fixture
def capsules() -> Capsules:
    pose = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5, 4)), jnp.float32)
    return Capsules(pose, jnp.linalg.norm(pose, axis=-1))


def test_several_classes_are_decoded_one_at_a_time(decoder, capsules):
    classes = jnp.asarray([[0, 3], [4, 1], [2, 0]])
    both = reconstruct(decoder, capsules.pose, classes)
    assert both.shape == (3, 2, *SHAPE)
    for which in range(2):
        alone = reconstruct(decoder, capsules.pose, classes[:, which])
        mask = jax.nn.one_hot(classes[:, which], 5)
        assert_close(alone, decoder(capsules.pose, mask))
        assert_close(both[:, which], alone, reduction_length=20)


@pytest.mark.parametrize("labels", [[1, 0, 4], [[1, 2], [0, 3], [4, 0]]])
def test_the_decoder_sees_the_labels_or_the_longest(decoder, capsules, labels):
    labels = jnp.asarray(labels)
    coupling = jnp.ones((3, 7, 5))
    shown = decoded(capsules, coupling, labels, decoder).reconstruction
    assert_close(shown, reconstruct(decoder, capsules.pose, labels))
    longest = decoded(capsules, coupling, None, decoder).reconstruction
    assert_close(longest, reconstruct(decoder, capsules.pose, capsules.activation.argmax(axis=1)))


def test_without_a_decoder_nothing_is_reconstructed(capsules):
    assert decoded(capsules, jnp.ones((3, 7, 5)), jnp.zeros(3, int), None).reconstruction is None
