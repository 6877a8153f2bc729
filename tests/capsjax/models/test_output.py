"""What the networks of capsules have in common."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from capsjax import Capsules, Decoder, create_model, list_models, reconstruct
from capsjax.models import published_routing
from capsjax.models.output import CapsuleNetwork
from capsjax.routing import IterativeRouting
from tests.capsjax import meshes
from tests.capsjax.models import family
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


def test_classes_that_are_present_are_decoded_together(decoder, capsules):
    present = jnp.eye(5, dtype=bool)[jnp.array([0, 3, 4])].at[1, 2].set(True)
    shown = reconstruct(decoder, capsules.pose, present)
    assert_close(shown, decoder(capsules.pose, present.astype(jnp.float32)))
    assert_close(shown[0], reconstruct(decoder, capsules.pose, jnp.zeros(3, int))[0])
    assert_close(Fixed(capsules, decoder)(IMAGES, present).reconstruction, shown)


class Fixed(CapsuleNetwork):
    """A network that sees the same capsules in all images."""

    def __init__(self, capsules, decoder=None):
        self.made_for(SHAPE, 5, jnp.float32, jnp.float32, nnx.Rngs(0))
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
        CapsuleNetwork().encode(IMAGES)


@pytest.mark.parametrize("name", list_models())
def test_other_images_than_a_network_is_made_for_are_refused(name):
    sizes = family.SMALL[name]
    height, width, channels = sizes["image_shape"]

    network = family.small(name)

    def run(shape, dtype, labels=None):
        def call(images):
            return family.run(network.test, network.params, network.stats, images, labels)

        return jax.eval_shape(call, jax.ShapeDtypeStruct(shape, dtype))

    assert run((2, height, width, channels), jnp.bfloat16).lengths.shape[0] == 2
    right = rf"images must be of shape \[batch, {height}, {width}, {channels}\], not"
    for shape in (
        (2, height + 1, width, channels),
        (2, height, width - 1, channels),
        (2, 2 * height, 2 * width, channels),
        (2, height, width, channels + 1),
        (height, width, channels),
    ):
        with pytest.raises(ValueError, match=rf"{right} \[{', '.join(map(str, shape))}\]: "):
            run(shape, jnp.float32)
    for dtype in ("uint8", "int32", "bool"):
        with pytest.raises(ValueError, match=rf"images must be floats, not {dtype}: .* / 255"):
            run((2, height, width, channels), dtype)
    one_hot = jnp.eye(sizes["num_classes"])[:2]
    wrong = (one_hot, one_hot.astype(int), jnp.ones(2), jnp.ones((2, 1, 1), int))
    for labels in (*wrong, jnp.ones(1, int), jnp.ones(3, int)):  # the last are of another batch
        with pytest.raises(ValueError, match=rf"labels must be integers .*, not {labels.dtype} "):
            run((2, height, width, channels), jnp.float32, labels)


def test_the_only_class_is_no_one_hot_label(capsules):
    network = Fixed(Capsules(capsules.pose[:, :1], capsules.activation[:, :1]))
    network.num_classes = 1
    assert network(IMAGES, jnp.zeros((3, 1), int)).lengths.shape == (3, 1)
    with pytest.raises(ValueError, match="labels must be from 0 to 0, not 1 to 1"):
        network(IMAGES, jnp.ones((3, 1), int))


@pytest.mark.parametrize("labels", [[0, 5, 1], [[0, 4], [1, -1], [2, 3]]])
def test_labels_of_no_class_are_refused_also_in_a_program_that_holds_them(
    decoder, capsules, labels
):
    network, labels = Fixed(capsules, decoder), jnp.asarray(labels)
    for run in (network, jax.jit(lambda images, labels=labels: network(images, labels).lengths)):
        with pytest.raises(ValueError, match="labels must be from 0 to 4, not (0 to 5|-1 to 4)"):
            run(IMAGES, labels) if run is network else run(IMAGES)


def test_a_network_is_mapped(decoder, capsules):
    network = Fixed(capsules, decoder)
    lengths = jax.vmap(lambda images: network(images).lengths)(jnp.stack([IMAGES, IMAGES]))
    assert lengths.shape == (2, 3, 5)


@pytest.mark.parametrize("name", list_models())
def test_a_program_for_any_batch_size_computes_the_same(name):
    """What `jax.export` makes of a batch whose size is a symbol, run for one."""
    network = family.small(name)
    (batch,) = jax.export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *family.SMALL[name]["image_shape"]), jnp.float32)
    program = jax.export.export(family.run)
    exported = program(network.test, network.params, network.stats, images)
    batch_of_3 = family.images(name, batch=3)
    expected = family.run(network.test, network.params, network.stats, batch_of_3)
    found = exported.call(network.params, network.stats, batch_of_3)
    for ours, theirs in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
        assert_close(ours, theirs, reduction_length=200)
    labels = jax.ShapeDtypeStruct((batch, 2), jnp.int32)
    program(network.test, network.params, network.stats, images, labels)


@pytest.mark.parametrize("name", list_models())
def test_of_an_empty_batch_there_is_an_empty_output(name):
    network, nothing = family.small(name), family.images(name, batch=0)
    for labels in (None, jnp.zeros(0, int), jnp.zeros((0, 2), int)):
        output = jax.eval_shape(
            lambda params, labels: family.run(network.test, params, network.stats, nothing, labels),
            network.params,
            labels,
        )
        assert all(leaf.shape[0] == 0 for leaf in jax.tree.leaves(output))


@pytest.mark.parametrize("mode", meshes.MODES)
@pytest.mark.parametrize("name", list_models())
def test_a_batch_is_spread_over_a_mesh_as_jax_does_by_default(name, mode):
    network, batch = family.small(name), family.images(name, batch=4)
    labels = jnp.zeros(4, jnp.int32)

    def loss(params, batch):
        output = family.run(network.test, params, network.stats, *batch)
        shown = 0 if output.reconstruction is None else jnp.sum(output.reconstruction**2)
        return jnp.sum(output.lengths**2) + shown

    gradient, arguments = meshes.gradient(loss, mode, network.params, (batch, labels))
    if name != "capsnet":  # traced, which is what is refused
        jax.eval_shape(gradient, *arguments)
        return
    expected = jax.jit(jax.grad(loss))(network.params, (batch, labels))
    for ours, theirs in zip(*map(jax.tree.leaves, (gradient(*arguments), expected)), strict=True):
        assert_close(ours, theirs, reduction_length=1000)


@pytest.mark.parametrize("name", list_models())
def test_flax_tabulates_every_network(name):
    # Where layers route at once, `iterate` takes a named tuple beside another argument, which Flax
    # (seen in 0.12.8) cannot list.
    options = {"sequential": True} if name == "attention_capsnet" else {}
    model = family.make(name, **options)
    table = nnx.tabulate(model, family.images(name, batch=2), console_kwargs={"width": 400})
    assert f"[2,{family.SMALL[name]['num_classes']}]" in table
    assert f"{family.count(model):,}" in table


class Chosen(NamedTuple):
    c: jax.Array
    v: jax.Array


@dataclasses.dataclass(frozen=True)
class Choosing(IterativeRouting):
    """Shares out at random; without a key, evenly."""

    iterations: int = 1
    needs = ("softmax", "key")
    keys: list = dataclasses.field(default_factory=list, compare=False)

    def first(self, inputs):
        self.keys.append(inputs.key)
        b = jnp.zeros(inputs.votes.shape[:2])
        if inputs.key is not None:
            b = jax.random.normal(inputs.key, b.shape)
        c = inputs.softmax(b)
        return Chosen(c, jnp.einsum("ij,ijd->jd", c, inputs.votes))


@pytest.mark.parametrize("name", [*filter(published_routing, list_models())])
def test_every_routing_of_a_network_has_a_key_where_something_is_drawn(name):
    def keys_of(is_training):
        routing = Choosing()
        options = {"grid_routing": routing} if name == "deepcaps" else {}

        def run(images):
            model = family.make(name, routing=routing, **options)
            (model.train if is_training else model.eval)()
            return model(images, keys=jax.random.split(jax.random.key(0), len(images)))

        nnx.eval_shape(run, family.images(name))
        return routing.keys

    in_training, in_test = keys_of(True), keys_of(False)
    assert len(in_training) == len(in_test) > 0
    assert None not in in_training
    assert set(in_test) == {None}


def test_what_is_drawn_is_of_the_image_and_the_layer_or_of_the_networks_own_stream():
    options = {"hidden_capsules": (4, 4), "routing": Choosing(), "decoder_hidden": None}
    images, key = family.images("capsnet"), jax.random.key(7, impl="threefry2x32")
    keys = jax.random.split(key, family.BATCH)
    model = family.make("capsnet", **options)
    whole = model(images, keys=keys).coupling
    assert_close(model(images[1:3], keys=keys[1:3]).coupling, whole[1:3], reduction_length=9)
    recomputed = family.make("capsnet", **options, remat=True)
    assert_close(recomputed(images, keys=keys).coupling, whole, reduction_length=9)
    assert len(np.unique(whole)) == whole.size
    np.testing.assert_array_equal(model(images, keys=key).coupling, whole)
    with pytest.raises(ValueError, match=r"keys must be one, or of the first axes of \[5\], not"):
        model(images, keys=keys[:3])
    even = model(images).coupling
    np.testing.assert_array_equal(even, np.full_like(even, 1 / even.shape[-1]))
    streams = nnx.Rngs(0, routing=1)
    own = create_model("capsnet", **{**family.SMALL["capsnet"], **options}, rngs=streams)
    first, second = own(images).coupling, own(images).coupling
    assert np.any(first != second)
    own.eval()
    np.testing.assert_array_equal(own(images).coupling, even)
