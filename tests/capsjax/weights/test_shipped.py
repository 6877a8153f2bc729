"""The trained networks that ship: each a file and its card, listed from the package's resources."""

import importlib.resources

import jax
import numpy as np
import pytest
from flax import nnx

import capsjax
from capsjax import create_model, list_pretrained
from capsjax.weights import _shipped, pretrained_card, pretrained_names

FOLDER = importlib.resources.files("capsjax.weights")
FILES = [
    f"{folder.name}/{file.name}"
    for folder in FOLDER.iterdir()
    if folder.is_dir() and folder.name != "__pycache__"
    for file in folder.iterdir()
]
MOST_BYTES = 2**20


def test_each_file_has_its_card_and_is_listed():
    weights = {name.removesuffix(".safetensors") for name in FILES if name.endswith(".safetensors")}
    cards = {name.removesuffix(".md") for name in FILES if name.endswith(".md")}
    assert list_pretrained() == sorted(weights)
    assert weights == cards
    assert len(FILES) == 2 * len(weights)
    assert "capsnet/digits" in weights
    assert pretrained_names("capsnet") == ["digits"]
    assert pretrained_names("cnn") == []


def test_together_they_are_no_larger_than_a_megabyte():
    assert sum(len((FOLDER / name).read_bytes()) for name in FILES) < MOST_BYTES


@pytest.mark.parametrize("name", list_pretrained())
def test_a_card_says_what_a_user_has_to_know(name):
    card = pretrained_card(name)
    for row in ("data", "recipe", "result", "accuracy", "images", "licence"):
        assert f"| {row} | " in card, row
    assert f'capsjax.load("{name}")' in card
    assert "docs/results/" in card


@pytest.mark.parametrize("name", list_pretrained())
def test_each_is_made_by_its_name_and_predicts(name):
    network = capsjax.load(name)
    model = create_model(*name.split("/")[:1], pretrained=name.split("/")[1], dtype="float32")
    assert type(model) is type(network.model)
    images = np.zeros((2, *network.image_shape), np.uint8)
    assert network.predict(images).lengths.shape == (2, len(network.class_names))
    assert all(
        np.isfinite(leaf).all() for leaf in jax.tree.leaves(capsjax.models.tensors_of(model))
    )


def test_a_file_that_is_put_there_is_found(monkeypatch, tmp_path):
    """All that it takes to ship another network; with its card, see above."""
    (tmp_path / "cnn").mkdir()
    sizes = {"image_shape": (8, 8, 1), "num_classes": 3, "features": (2,), "hidden": ()}
    model = create_model("cnn", rngs=nnx.Rngs(0), **sizes)
    capsjax.save(model, tmp_path / "cnn" / "mine.safetensors", dtype="float16")
    monkeypatch.setattr(_shipped, "_folder", lambda: tmp_path)
    assert list_pretrained() == ["cnn/mine"]
    images = np.zeros((2, 8, 8, 1), np.float32)
    lengths = create_model("cnn", pretrained="mine")(images).lengths
    np.testing.assert_allclose(lengths, model(images).lengths, rtol=1e-2)
    assert capsjax.load("cnn/mine").class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pretrained": "letters"}, "unknown pretrained capsnet 'letters', choose from: digits"),
        ({"pretrained": "digits", "num_classes": 5}, "cannot have num_classes=5: leave it out"),
        ({"pretrained": "digits", "decoder_hidden": None}, "cannot have decoder_hidden=None"),
        ({"pretrained": "digits", "routing": "em"}, "cannot have routing='em': leave it out"),
        ({"pretrained": "digits", "image_shape": (28, 28, 1)}, "cannot have image_shape"),
    ],
)
def test_a_trained_model_is_as_it_was_trained(options, message):
    with pytest.raises(ValueError, match=message):
        create_model("capsnet", **options)


def test_its_own_sizes_may_be_said():
    create_model("capsnet", pretrained="digits", image_shape=[8, 8, 1], num_classes=10)
    create_model("capsnet", pretrained="digits", image_shape=np.array([8, 8, 1]))


def test_a_model_without_weights_needs_its_sizes():
    with pytest.raises(TypeError, match="needs image_shape and num_classes and rngs"):
        create_model("capsnet")
    with pytest.raises(ValueError, match="unknown pretrained network 'capsnet/x', choose from: "):
        pretrained_card("capsnet/x")
