"""A network as one file: written, read, refused, and used."""

import dataclasses
import functools
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from PIL import Image
from safetensors.numpy import load_file, save_file

import capsjax
from capsjax import Network, create_model, create_routing, list_models, list_routings
from capsjax.models import describe_model, tensors_of
from capsjax.preprocessing import Preprocessing
from capsjax.weights import _file
from tests.capsjax.models.family import SMALL, make

OWN = {
    "aff_capsnet": SMALL["capsnet"],
    "cnn": {"image_shape": (9, 8, 2), "num_classes": 4, "features": (3,), "hidden": (5,)},
}
TINY = {
    "image_shape": (6, 6, 1),
    "num_classes": 3,
    "conv_features": 4,
    "conv_kernel": 3,
    "primary_types": 2,
    "primary_dim": 3,
    "primary_kernel": 3,
    "class_dim": 4,
    "decoder_hidden": (5,),
}


def tiny(**options):
    return create_model("capsnet", rngs=nnx.Rngs(0), **{**TINY, **options})


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "tiny.safetensors"
    with jax.default_prng_impl("rbg"):
        capsjax.save(Network(tiny(), ["a", "b", "c"]), path)
    return path.read_bytes()


@pytest.fixture
def file(tmp_path, written):
    path = tmp_path / "tiny.safetensors"
    path.write_bytes(written)
    return path


@pytest.mark.parametrize("name", list_models())
def test_every_network_comes_back_from_its_file(name, tmp_path):
    model = make(name, **OWN.get(name, {}))
    for path, statistic in nnx.to_flat_state(nnx.state(model, nnx.BatchStat)):
        statistic[...] = statistic[...] + 0.1 * len(path)
    model.eval()
    capsjax.save(model, tmp_path / "a.safetensors")
    back = capsjax.load(tmp_path / "a.safetensors")
    saved, found = tensors_of(model), tensors_of(back.model)
    assert saved.keys() == found.keys()
    assert all(found[n].dtype == v.dtype for n, v in saved.items())
    assert all(np.array_equal(found[n], v) for n, v in saved.items())
    images = pixels(3, *model.image_shape)
    expected = Network(model).predict(images)
    predicted = back.predict(images)
    assert predicted.classes == expected.classes
    np.testing.assert_array_equal(predicted.lengths, expected.lengths)
    assert describe_model(back.model) == describe_model(model)


@pytest.mark.parametrize("name", list_routings())
def test_every_routing_comes_back_with_its_settings(name, tmp_path):
    options = {"iterations": 2} if "iterations" in capsjax.routing_options(name) else {}
    made = create_routing(name, **options)
    capsjax.save(tiny(routing=made, class_dim=9, primary_dim=9), tmp_path / "a.safetensors")
    routing = capsjax.load(tmp_path / "a.safetensors").model.class_caps.routing
    assert getattr(routing, "settings", routing) == made


@pytest.mark.parametrize(
    ("name", "option"), [("deepcaps", "grid_routing"), ("matrix_capsnet", "class_routing")]
)
def test_another_routing_of_the_library_comes_back_too(name, option, tmp_path):
    routing = create_routing("dynamic", iterations=2)
    model = make(name, **{option: routing})
    capsjax.save(model, tmp_path / "a.safetensors")
    back = capsjax.load(tmp_path / "a.safetensors").model
    assert capsjax.models.options_of(back)[1][option][1]["iterations"] == 2
    assert describe_model(back) == describe_model(model)


def test_options_that_json_has_otherwise(tmp_path):
    model = tiny(
        primary_squash=capsjax.Squash("capsules", 1e-8),
        hidden_capsules=[4],
        routing=create_routing("dynamic", squash={"axis": "element"}, shared_axes=("data",)),
        dtype=jnp.bfloat16,
    )
    capsjax.save(model, tmp_path / "a.safetensors")
    back = capsjax.load(tmp_path / "a.safetensors").model
    assert back.primary_caps.squash == capsjax.Squash("capsules", 1e-8)
    assert back.class_caps.routing == create_routing("dynamic", squash={"axis": "element"})
    assert back.features.conv.dtype == jnp.bfloat16
    assert back.features.conv.kernel.dtype == jnp.float32


def test_what_is_done_to_images_and_the_names_are_in_the_file(tmp_path):
    see = Preprocessing(mean=0.5, std=0.25, crop=6)
    network = Network(tiny(), ["ä", "b", "c"], preprocessing=see, image_shape=(8, 9, 1))
    capsjax.save(network, tmp_path / "a.safetensors")
    back = capsjax.load(str(tmp_path / "a.safetensors"))
    assert (back.preprocessing, back.image_shape) == (see, (8, 9, 1))
    assert back.class_names == ("ä", "b", "c")
    images = pixels(4, 8, 9, 1)
    np.testing.assert_array_equal(back.predict(images).lengths, network.predict(images).lengths)


@pytest.mark.parametrize("several", [1, 2, None])
def test_a_prediction_has_the_classes_that_an_image_shows(several, tmp_path):
    capsjax.save(Network(tiny(), ["a", "b", "c"], labels_per_image=several), tmp_path / "a.st")
    network = capsjax.load(tmp_path / "a.st")
    assert network.labels_per_image == several
    found = network.classified(np.asarray([[0.2, 0.9, 0.6], [0.1, 0.0, 0.3]], np.float32))
    shown = {1: (("b",), ("c",)), 2: (("b", "c"), ("c", "a")), None: (("b", "c"), ())}
    assert found.present == shown[several]
    assert found.classes == ("b", "c")


def test_a_loaded_network_learns_like_any_other(file):
    network = capsjax.load(file)
    before = network.predict(pixels(4, 6, 6, 1)).lengths
    network.model.train()
    optimizer = nnx.Optimizer(network.model, optax.sgd(0.1), wrt=nnx.Param)
    images = jnp.asarray(pixels(4, 6, 6, 1), jnp.float32) / 255
    labels = jnp.asarray([0, 1, 2, 0], jnp.int32)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            lengths = model(images, labels).lengths
            return capsjax.margin_loss(lengths, jax.nn.one_hot(labels, 3)).mean()

        value, gradient = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradient)
        return value

    losses = [float(step(network.model, optimizer)) for _ in range(5)]
    assert losses[-1] < losses[0]
    assert (network.predict(pixels(4, 6, 6, 1)).lengths != before).any()


def test_predict_leaves_the_mode_of_the_model_alone(tmp_path):
    model = make("efficient_capsnet")
    model.train()
    network, images = Network(model), pixels(3, *model.image_shape)
    first = network.predict(images)
    np.testing.assert_array_equal(network.predict(images).lengths, first.lengths)
    assert not model.norms[0].use_running_average


def test_images_of_any_form_and_number(file):
    network = capsjax.load(file)
    images = pixels(70, 6, 6, 1)
    predicted = network.predict(images)
    assert predicted.lengths.shape == (70, 3)
    assert predicted.classes == tuple("abc"[label] for label in predicted.labels)
    assert (predicted.labels == predicted.lengths.argmax(1)).all()
    for of_image, lengths in zip(predicted.top(2), predicted.lengths, strict=True):
        names = ["abc"[label] for label in np.argsort(-lengths)[:2]]
        assert list(of_image) == names
        assert list(of_image.values()) == sorted(map(float, lengths))[:0:-1]
    assert [len(of_image) for of_image in network.predict(images[:2]).top(9)] == [3, 3]
    same = [images / 255, (images / 255).astype(np.float32), jnp.asarray(images)]
    for other in same:
        np.testing.assert_allclose(network.predict(other).lengths, predicted.lengths, rtol=1e-5)
    for one in (images[0], images[0, ..., 0]):
        assert network.predict(one).lengths.shape == (1, 3)
    assert network.predict(images[:0]).classes == ()
    assert network.predict(pixels(2, 40, 30, 3)).lengths.shape == (2, 3)
    assert network.predict(pixels(2, 6, 6, 3)).lengths.dtype == np.float32


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (pixels(6, 6, 1).astype(np.int64), "must be uint8 from 0 to 255 or floats .* not int64"),
        (pixels(6, 6, 1) * 1.0, r"from 0 to 1, not from \S+ to 2\d\d.0"),
        (np.full((6, 6, 1), np.nan), "from 0 to 1, not from nan"),
        (pixels(1, 1, 1, 1, 1), r"must be \[n, height, width, channels\].* not \[1, 1, 1, 1, 1\]"),
        (pixels(2, 1, 28, 28), "must have 1 channels, not 28"),
        (pixels(5, 6, 6), "must have 1 channels, not 6"),
        (Image.new("P", (6, 6)), r"not of Pillow's mode 'P', .* image.convert\(\"L\"\)"),
        ("a.png", "must be"),
    ],
)
def test_images_that_are_none(file, images, message):
    with pytest.raises(ValueError, match=message):
        capsjax.load(file).predict(images)


def test_other_dtypes_and_devices(file):
    device = jax.devices()[-1]
    network = capsjax.load(file, dtype="bfloat16", param_dtype=jnp.bfloat16, device=device)
    kernel = network.model.features.conv.kernel[...]
    assert kernel.dtype == jnp.bfloat16
    assert kernel.devices() == {device}
    predicted = network.predict(pixels(2, 6, 6, 1))
    np.testing.assert_allclose(
        predicted.lengths, capsjax.load(file).predict(pixels(2, 6, 6, 1)).lengths, atol=0.02
    )
    capsjax.save(network, file)
    again = capsjax.load(file).model.features.conv.kernel[...]
    assert again.dtype == jnp.bfloat16
    np.testing.assert_array_equal(again, kernel)
    with pytest.raises(ValueError, match="dtype must be a floating dtype such as 'float32'"):
        capsjax.load(file, dtype="int8")
    before = file.read_bytes()
    with pytest.raises(ValueError, match="unknown dtype 'float8_e5m2', choose from: float16, bf"):
        capsjax.save(network, file, dtype="float8_e5m2")
    assert file.read_bytes() == before


def test_numbers_may_be_stored_in_half_the_bytes(file, tmp_path):
    network = capsjax.load(file)
    capsjax.save(network, tmp_path / "half.safetensors", dtype="float16")
    assert {v.dtype.name for v in load_file(tmp_path / "half.safetensors").values()} == {"float16"}
    half = capsjax.load(tmp_path / "half.safetensors").model.features.conv.kernel[...]
    whole = network.model.features.conv.kernel[...]
    assert half.dtype == np.float32
    np.testing.assert_array_equal(half, whole.astype(np.float16).astype(np.float32))
    network.model.features.conv.bias[...] = jnp.full(4, 1e6)
    with pytest.raises(
        ValueError, match=r"features.conv.bias has numbers .* too large for float16"
    ):
        capsjax.save(network, file, dtype="float16")


def test_a_decoder_may_stay_behind(file, tmp_path):
    network = capsjax.load(file)
    capsjax.save(network, tmp_path / "a.safetensors", decoder=False)
    less = capsjax.load(tmp_path / "a.safetensors")
    assert less.model.decoder is None
    images = pixels(3, 6, 6, 1)
    np.testing.assert_array_equal(less.predict(images).lengths, network.predict(images).lengths)
    model = make("sr_capsnet")  # has none
    capsjax.save(model, tmp_path / "b.safetensors", decoder=False)
    capsjax.load(tmp_path / "b.safetensors")


class OwnRouting:
    def __call__(self, votes, activation):
        return capsjax.Routed(votes.mean(0), activation[: votes.shape[1]], votes[..., 0])


class OwnNetwork(nnx.Module):
    def __init__(self):
        self.kernel = nnx.Param(jnp.zeros(3))


class Plain(nnx.Module):
    """A network that says neither of what images nor of how many classes it is."""

    def __call__(self, images):
        lengths = jnp.mean(images, axis=(1, 2)) * jnp.arange(3.0)[None]
        return capsjax.CapsNetOutput(None, lengths, None, None, None)


class OwnSquash(capsjax.Squash):
    def __call__(self, s):
        return s / 2


class OwnDecoder(capsjax.Decoder):
    def __call__(self, pose, mask):
        return 1 - super().__call__(pose, mask)


def changed_model(name, value):
    """A network, of which something is another one than it was made with."""
    model = tiny()
    *path, attribute = name.split(".")
    setattr(functools.reduce(getattr, path, model), attribute, value)
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: tiny(primary_squash=OwnSquash()), "OwnSquash, which this capsnet has, is code"),
        (
            lambda: changed_model("class_caps.routing", create_routing("dynamic", iterations=1)),
            "class_caps.routing of this capsnet is not what it was",
        ),
        (
            lambda: changed_model("primary_caps.squash", capsjax.Squash(epsilon=0.1)),
            "primary_caps.squash of this capsnet is not what it was",
        ),
        (
            lambda: changed_model("primary_caps.squash", OwnSquash()),
            "primary_caps.squash of this capsnet is not what it was",
        ),
        (
            lambda: changed_model("features.conv.dtype", jnp.dtype(jnp.bfloat16)),
            "features.conv.dtype of this capsnet is not what it was",
        ),
        (lambda: changed_model("decoder", None), "decoder of this capsnet is not"),
        (
            lambda: changed_model(
                "decoder", OwnDecoder(3, 16, (6, 6, 1), hidden=(8,), rngs=nnx.Rngs(0))
            ),
            "decoder of this capsnet is not what it was",
        ),
        (lambda: tiny(routing=OwnRouting()), "OwnRouting, which this capsnet has, is code"),
        (lambda: tiny(primary_squash=jnp.tanh), "tanh, which this capsnet has, is code"),
        (OwnNetwork, "OwnNetwork is none of the networks of capsjax.list_models()"),
    ],
)
def test_neither_code_nor_what_was_changed_is_in_a_file(model, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        capsjax.save(model(), tmp_path / "a.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_class_names_and_images_have_to_fit_the_model():
    with pytest.raises(ValueError, match=r"2 classes do not fit a CapsNet for \(6, 6, 1\) in 3"):
        Network(tiny(), ["a", "b"])
    with pytest.raises(ValueError, match="class_names must be different ones"):
        Network(tiny(), ["a", "b", "a"])
    with pytest.raises(ValueError, match="class_names must be a sequence of names, not 'abc'"):
        Network(tiny(), "abc")
    with pytest.raises(ValueError, match=r"do not fit a CapsNet for \(6, 6, 1\)"):
        Network(tiny(), image_shape=(7, 7, 1))
    with pytest.raises(ValueError, match="labels_per_image must be from 1 to 3, .*, not 4"):
        Network(tiny(), labels_per_image=4)
    for wrong in (1.5, True, "2"):
        with pytest.raises(ValueError, match="labels_per_image must be an integer"):
            Network(tiny(), labels_per_image=wrong)
    assert type(Network(tiny(), labels_per_image=np.int64(2)).labels_per_image) is int


def test_what_a_network_does_not_say_of_itself_has_to_be_given():
    with pytest.raises(ValueError, match="image_shape must be given: this Plain has no such"):
        Network(Plain(), ["a", "b", "c"])
    with pytest.raises(ValueError, match="class_names must be given: this Plain has no such"):
        Network(Plain(), image_shape=(4, 4, 1))
    network = Network(Plain(), ["a", "b", "c"], image_shape=(4, 4, 1))
    assert network.predict(np.full((1, 4, 4, 1), 255, np.uint8)).classes == ("c",)


def changed(file, change=lambda about: None, tensors=lambda tensors: None):
    """Writes a file anew with another description or other tensors."""
    found = load_file(file)
    with _file.safe_open(file, framework="np") as opened:
        about = json.loads(opened.metadata()["capsjax"])
    change(about)
    tensors(found)
    save_file(found, file, {"capsjax": json.dumps(about)})


def test_what_is_drawn_in_training_comes_from_the_stream_that_is_given(tmp_path):
    make = {"image_shape": (9, 8, 2), "num_classes": 4, "features": (3,), "hidden": (5,)}
    capsjax.save(create_model("cnn", **make, rngs=nnx.Rngs(0, dropout=1)), tmp_path / "a.st")
    images = jnp.ones((2, 9, 8, 2))
    for rngs, is_drawn in ((None, False), (nnx.Rngs(0, dropout=1), True)):
        model = capsjax.load(tmp_path / "a.st", rngs=rngs).model
        model.train()
        first, second = model(images).logits, model(images).logits
        assert (first != second).any() == is_drawn
    model = create_model("efficient_capsnet", pretrained="mnist", rngs=nnx.Rngs(routing=1))
    assert model.rngs is not None


def test_float64_needs_the_mode_of_it(file):
    with pytest.raises(ValueError, match="param_dtype is float64, which needs JAX's x64 mode"):
        capsjax.load(file, param_dtype="float64")


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (lambda t: t.pop("features.conv.bias"), "it lacks the tensors features.conv.bias"),
        (
            lambda t: t.update(extra=np.zeros(1, np.float32), more=np.zeros(1, np.float32)),
            "its network has no tensors extra and 1 more",
        ),
        (
            lambda t: t.update({"features.conv.bias": np.zeros((2, 2), np.float32)}),
            r"its tensor features.conv.bias is of shape \[2, 2\], but must be of \[4\]",
        ),
        (
            lambda t: t.update({"features.conv.bias": np.zeros(4, np.int32)}),
            "its tensor features.conv.bias is of dtype I32",
        ),
        (
            lambda t: t.update({"features.conv.bias": np.zeros(4, np.float64)}),
            "float64 numbers, which need JAX's x64 mode",
        ),
    ],
)
def test_tensors_that_are_not_the_networks(file, tensors, message):
    changed(file, tensors=tensors)
    with pytest.raises(ValueError, match=message) as refused:
        capsjax.load(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(format=9, written_by="7.0"), "newer version, capsjax 7.0.*upgrade"),
        (lambda a: a.update(format=9, model=3), "newer version"),
        (lambda a: a.update(model="resnet"), "unknown model 'resnet'"),
        (lambda a: a["options"].update(depth=3), "has no option 'depth'.*written by capsjax"),
        (lambda a: a["options"].update(pretrained="digits"), "has no option 'pretrained'"),
        (lambda a: a["options"].update(conv_features="many"), "conv_features must be an integer"),
        (lambda a: a["options"].update(conv_features=10**12), "is of shape"),
        (lambda a: a["options"].update(primary_squash="os.system"), "squash must be"),
        (lambda a: a.update(routing=["os.system", {}]), "unknown routing 'os.system'"),
        (lambda a: a.update(routing=None), "its routing None does not go with capsnet"),
        (lambda a: a.update(image_shape=[6, 6, 10**9]), "does not say which network"),
        (lambda a: a.update(labels_per_image=4), "it tells 4 classes of an image"),
        (lambda a: a.update(labels_per_image="all"), "it tells 'all' classes of an image"),
        (lambda a: a.update(image_shape=[6, 6]), "does not say which network"),
        (lambda a: a.update(class_names=[]), "does not say which network"),
        (lambda a: a.update(class_names=["a", 3, "c"]), "does not say which network"),
        (lambda a: a.update(preprocessing={"eval": 1}), "unexpected keyword argument 'eval'"),
        (lambda a: a.pop("options"), "does not say which network"),
    ],
)
def test_descriptions_that_are_wrong_or_hostile(file, change, message):
    changed(file, change)
    with pytest.raises(ValueError, match=message) as refused:
        capsjax.load(file)
    assert str(file) in str(refused.value)
    assert "\n" not in str(refused.value)


def test_files_that_are_none(file, tmp_path):
    whole = file.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:20], whole[:-1], whole + b"x", b"\xff" * 64):
        file.write_bytes(content)
        with pytest.raises(ValueError, match="is damaged or no safetensors file"):
            capsjax.load(file)
    save_file({"a": np.zeros(2)}, file)
    with pytest.raises(ValueError, match="holds tensors, but not which network they are of"):
        capsjax.load(file)
    save_file({"a": np.zeros(2)}, file, {"capsjax": "[" * 10**5})
    with pytest.raises(ValueError, match="does not say which network"):
        capsjax.load(file)
    for path in (tmp_path, tmp_path / "none", "capsnet/letters"):
        with pytest.raises(ValueError, match="there is no file"):
            capsjax.load(path)


def test_a_file_is_written_whole_or_not_at_all(file, monkeypatch):
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        capsjax.save(tiny(), file)
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_form_of_a_file(file):
    """What the next version has to read; if this changes, so does the number of the format."""
    with _file.safe_open(file, framework="np") as opened:
        about = json.loads(opened.metadata()["capsjax"])
        assert "class_caps.kernel" in opened.keys()  # noqa: SIM118
    assert about["format"] == 1
    assert about["model"] == "capsnet"
    assert about["image_shape"] == [6, 6, 1]
    assert about["class_names"] == ["a", "b", "c"]
    assert about["routing"][0] == "dynamic"
    assert about["preprocessing"] == dataclasses.asdict(Preprocessing())
    assert about["options"]["decoder_hidden"] == [5]
    assert about["written_by"] == capsjax.__version__
