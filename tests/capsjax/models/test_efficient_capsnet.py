"""Efficient-CapsNet: its published size, its capsules of whole maps, its batches."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import create_routing
from tests.capsjax.models import family
from tests.tolerance import assert_close

NAME = "efficient_capsnet"
BELOW = 4  # maps of 3x4, on which a 3x3 kernel fits twice, for 2 types


class TestEfficientCapsNet(family.Contract):
    name, below, dim, terms = NAME, BELOW, 5, 100
    decodes = True


def published(image_shape=(28, 28, 1), **options):
    return family.published(NAME, image_shape, 10, **options)


def test_the_published_network_has_the_published_number_of_parameters():
    assert family.count(published(decoder_hidden=None)) == 161_824
    assert family.count(published()) == 161_824 + 1_411_344


def test_a_primary_capsule_sees_a_whole_map_of_any_size():
    assert published().primary_caps.conv.kernel.shape == (9, 9, 1, 128)
    multi_mnist = published((36, 36, 1))
    assert multi_mnist.primary_caps.conv.kernel.shape == (13, 13, 1, 128)
    assert multi_mnist.primary_caps.num_capsules == 16
    assert family.shapes(NAME).primary_caps.num_capsules == BELOW
    narrow = family.shapes(NAME, primary_kernel=2, primary_stride=2)
    assert narrow.primary_caps.num_capsules == 2 * 2


def test_without_a_decoder_nothing_is_reconstructed():
    assert family.output_shapes(NAME, decoder_hidden=None).reconstruction is None


def test_labels_choose_the_capsule_that_is_decoded_and_nothing_else():
    network, labelled = family.small(NAME), family.step(NAME).output
    model = nnx.merge(network.training, network.params, network.stats, copy=True)
    poses = labelled.capsules.pose
    mask = jnp.asarray(np.eye(7, dtype=np.float32)[: family.BATCH])
    assert_close(labelled.reconstruction, model.decoder(poses, mask), reduction_length=35)
    longest = family.run(network.training, network.params, network.stats, family.images(NAME))
    assert_close(longest.lengths, labelled.lengths, reduction_length=100)
    mask = jnp.asarray(np.eye(7, dtype=np.float32)[np.argmax(longest.lengths, axis=1)])
    assert_close(longest.reconstruction, model.decoder(poses, mask), reduction_length=100)
    assert (longest.reconstruction != labelled.reconstruction).any()


def first_maps(network):
    model = nnx.merge(network.training, network.params, network.stats, copy=True)
    return model.convolutions[0](family.images(NAME))


def test_a_rectifier_comes_before_the_normalisation():
    mean = jnp.mean(nnx.relu(first_maps(family.small(NAME))), axis=(0, 1, 2))
    assert (mean > 0).all()
    learned = family.step(NAME).stats["norms"][0]["mean"][...]
    assert_close(learned, 0.01 * mean, reduction_length=315)


def test_a_normalisation_can_come_first():
    options = {"norm_first": True, "norm_momentum": 0.5}
    mean = jnp.mean(first_maps(family.small(NAME, **options)), axis=(0, 1, 2))
    assert (mean < 0).any()
    first = family.step(NAME, **options)
    assert_close(first.stats["norms"][0]["mean"][...], 0.5 * mean, reduction_length=315)
    assert family.shapes(NAME, **options).norms[0].epsilon == 1e-3
    assert np.abs(first.output.lengths - family.step(NAME).output.lengths).max() > 1e-3


def test_an_epsilon_under_the_root_of_lengths():
    network, exact = family.small(NAME, length_epsilon=0.25), family.step(NAME).output
    output = family.run(network.training, network.params, network.stats, family.images(NAME))
    assert_close(output.lengths, jnp.sqrt(exact.lengths**2 + 0.25), reduction_length=100)
    assert_close(output.capsules.pose, exact.capsules.pose, reduction_length=100)
    assert_close(exact.lengths, jnp.linalg.norm(exact.capsules.pose, axis=-1), reduction_length=5)


@pytest.mark.parametrize("routing", ["em", create_routing("dynamic", iterations=1)], ids=str)
def test_other_routings_by_name_and_by_object(routing):
    network = family.small(NAME, routing=routing)
    output = family.run(network.test, network.params, network.stats, family.images(NAME))
    assert output.coupling.shape == (family.BATCH, BELOW, 7)
    total = jnp.sum(output.coupling, axis=-1)
    assert_close(total, jnp.ones_like(total), reduction_length=7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_shape": (2, 11, 2)}, "a 3x3 kernel does not fit on an input of 2x11"),
        ({"primary_kernel": 4}, "a 4x4 kernel does not fit on an input of 3x4"),
        ({"primary_dim": 4}, "primary_dim is 4, but must divide the last of features, 6"),
        ({"norm_first": "yes"}, "norm_first must be True or False, not 'yes'"),
        ({"length_epsilon": -1}, "length_epsilon must be a number from 0 to 1, not -1"),
        (
            {"strides": (1,)},
            "each convolution needs a value of each of its sizes, .* strides has 1",
        ),
        ({"features": (), "kernel_sizes": (), "strides": ()}, "for each convolution, one at least"),
        ({"features": (4, 0)}, "each value of features must be an integer of at least 1, not 0"),
        ({"routing": "nonsense"}, "unknown routing 'nonsense', choose from"),
        ({"dtype": "float33"}, "dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options, message):
    family.assert_refused(NAME, options, message)
