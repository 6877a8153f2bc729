"""What the networks of capsules have in common."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, Decoder, reconstruct
from capsjax.models.output import CapsuleNetwork
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


class Fixed(CapsuleNetwork):
    """A network that sees the same capsules in all images."""

    def __init__(self, capsules, decoder=None):
        self.capsules = nnx.data(capsules)
        self.decoder = nnx.data(decoder)

    def encode(self, images):
        return self.capsules, jnp.ones((len(images), 7, 5))


IMAGES = jnp.zeros((3, *SHAPE))


@pytest.mark.parametrize("labels", [[1, 0, 4], [[1, 2], [0, 3], [4, 0]]])
def test_the_decoder_sees_the_labels_or_the_longest(decoder, capsules, labels):
    labels, network = jnp.asarray(labels), Fixed(capsules, decoder)
    shown = network(IMAGES, labels)
    assert_close(shown.reconstruction, reconstruct(decoder, capsules.pose, labels))
    np.testing.assert_array_equal(shown.lengths, capsules.activation)
    assert shown.coupling.shape == (3, 7, 5)
    longest = network(IMAGES).reconstruction
    assert_close(longest, reconstruct(decoder, capsules.pose, capsules.activation.argmax(axis=1)))


def test_without_a_decoder_nothing_is_reconstructed_and_without_scores_there_are_no_logits(
    capsules,
):
    output = Fixed(capsules)(IMAGES, jnp.zeros(3, int))
    assert output.reconstruction is None
    assert output.logits is None


def test_a_network_has_to_say_what_it_is():
    with pytest.raises(NotImplementedError):
        CapsuleNetwork()(IMAGES)
