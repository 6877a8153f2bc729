"""DeepCaps: its sizes, its cells, its two routings."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, create_routing, layers, norm
from tests.capsjax.models import family
from tests.tolerance import assert_close

NAME = "deepcaps"
VOTERS = (2 * 3 + 4 * 5) * 3  # of the last cell on 2x3 positions, and of the one before on 4x5


class TestDeepCaps(family.Contract):
    name, below, dim, terms = NAME, VOTERS, 4, VOTERS * 3
    decodes = True


def published(image_shape=(28, 28, 1), **options):
    return family.count(family.published(NAME, image_shape, 10, **options))


def test_the_published_networks_have_the_parameters_of_the_authors_code_but_for_its_biases():
    # The layers of the code, added up: convolution and normalisation, 15 layers of capsules, the
    # routed one, the class capsules of 640 or 2,560 below; and the decoder.
    capsules = 4 * 9 * 128 * 128 + 9 * 128 * 256 + 10 * 9 * 256 * 256 + 9 * 8 * 256
    encoder = 9 * 128 + 3 * 128 + capsules + 640 * 10 * 32 * 8
    decoder = 33 * 784 + 32 + 16 * 64 * 9 + 64 * 32 * 9 + 32 * 16 * 9 + 16 * 9 + 64 + 32 + 16 + 1
    assert published(decoder_features=None) == encoder == 8_441_344
    assert published() == encoder + decoder == 8_499_761
    large = {"decoder_features": (64, 32, 16, 8), "decoder_strides": (1, 2, 2, 2)}
    assert published((64, 64, 3), **large) == 13_426_419


def test_without_a_decoder_nothing_is_reconstructed():
    assert family.output_shapes(NAME, decoder_features=None).reconstruction is None


def test_a_class_capsule_is_as_long_as_its_pose():
    output = family.step(NAME).output
    assert_close(output.lengths, norm(output.capsules.pose), reduction_length=4)


@nnx.jit
def parts(model, images):
    """Of a network in training: its output, its cells by hand, and its class capsules of these."""
    x = model.norm(nnx.relu(model.convolution(images)))
    first_cell, last_cell = model.cells
    first = first_cell.enter(x).pose
    inside = first.reshape(*first.shape[:3], -1)
    middle = first_cell.middle(inside).pose.reshape(inside.shape)
    by_hand = first_cell.leave(middle).pose + first_cell.shortcut(inside).pose
    earlier = first_cell(x)
    later = last_cell(earlier.reshape(inside.shape))
    pose = jnp.concatenate([p.reshape(len(p), -1, 2) for p in (later, earlier)], axis=1)
    return model(images), first, earlier, by_hand, model.class_caps(Capsules(pose, norm(pose)))[0]


def test_a_cell_adds_a_shortcut_and_the_last_two_vote_the_last_first():
    model = family.small(NAME)
    model = nnx.merge(model.training, model.params, model.stats, copy=True)
    output, first, cell, by_hand, capsules = parts(model, family.images(NAME))
    assert first.shape == (family.BATCH, 4, 5, 3, 2)
    assert_close(cell, by_hand, reduction_length=54)
    assert_close(output.capsules.pose, capsules.pose, reduction_length=VOTERS * 3)
    assert [cell.is_routed for cell in model.cells] == [False, True]
    assert isinstance(model.cells[1].shortcut, layers.Conv3dCaps)


def test_poses_begin_neither_short_nor_all_of_length_one():
    options = {"image_shape": (32, 32, 1), "types": 8, "dims": (4, 8, 8, 8)}
    model = family.make(NAME, **options, decoder_features=None)

    @nnx.jit
    def lengths(model, x):
        x = model.norm(nnx.relu(model.convolution(x)))
        lengths = []
        for cell in model.cells:
            pose = cell(x)
            lengths.append(norm(pose))
            x = pose.reshape(*pose.shape[:3], -1)
        return lengths

    x = jnp.asarray(np.random.default_rng(0).uniform(size=(2, 32, 32, 1)), jnp.float32)
    for of_cell in lengths(model, x):
        # The sum of two poses, of a length below 1 each; one, where the routed one is short yet.
        assert 0.5 < np.median(of_cell) < 1.5


@pytest.mark.parametrize(
    ("options", "grid", "classes"),
    [
        ({"routing": "em"}, "dynamic", "em"),
        ({"routing": create_routing("uniform")}, "dynamic", "uniform"),
        ({"grid_routing": "dynamic-prior"}, "dynamic-prior", "dynamic"),
    ],
    ids=["classes", "object", "grid"],
)
def test_other_routings(options, grid, classes):
    def kind(layer):
        return type(getattr(layer.routing, "settings", layer.routing))

    model = family.shapes(NAME, **options)
    assert kind(model.cells[-1].shortcut) is type(create_routing(grid))
    assert kind(model.class_caps) is type(create_routing(classes))
    output = family.output_shapes(NAME, **options)
    assert output.coupling.shape == (family.BATCH, VOTERS, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dims": (2,)}, r"dims are of two cells at least, .* not \(2,\)"),
        ({"dims": (2, 3)}, r"the last two have the same, .* not \(2, 3\)"),
        ({"dims": (2, 0)}, "each value of dims must be an integer of at least 1, not 0"),
        ({"types": 0}, "types must be an integer of at least 1, not 0"),
        ({"decoder_strides": (1, 2)}, "each convolution needs .* features has 1, strides has 2"),
        ({"grid_routing": "nonsense"}, "unknown routing 'nonsense', choose from"),
        ({"dtype": "float33"}, "dtype must be a floating dtype"),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(options, message):
    family.assert_refused(NAME, options, message)
