"""The network of a run as one file, and what that computes."""

import importlib.util
import json
import os

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

import capsjax
import train
from capsjax.preprocessing import Preprocessing
from tests.tolerance import assert_close
from train.__main__ import main
from train.data import load_dataset
from train.data.catalog import SOURCES
from train.loop.loop import fit

TINY = {
    "conv_features": 8,
    "conv_kernel": 3,
    "primary_types": 2,
    "primary_dim": 4,
    "primary_kernel": 3,
    "class_dim": 4,
    "decoder_hidden": [8],
}


@pytest.fixture(scope="module")
def folder(config, tmp_path_factory):
    """A run with a crop and standardised images, whose network has batches of its own to learn."""
    out = tmp_path_factory.mktemp("runs") / "digits"
    fit(config.changed(dataset="digits", crop=7, standardise=True), out=out, devices=1)
    return out


@pytest.fixture(scope="module")
def file(folder):
    path = folder.parent / "digits.safetensors"
    assert main(["export", str(folder), str(path)]) == 0
    return path


def test_the_file_predicts_what_the_run_predicts(folder, file, tmp_path, capsys):
    images = load_dataset("digits").test.images[:70]
    paths = [tmp_path / f"{number:02}.png" for number in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image[..., 0]).save(path)
    assert main(["predict", str(folder), *map(str, paths), "--json"]) == 0
    of_run = json.loads(capsys.readouterr().out)
    predicted = capsjax.load(file).predict(images)
    assert predicted.classes == tuple(result["class"] for result in of_run)
    lengths = [list(result["lengths"].values()) for result in of_run]
    np.testing.assert_array_equal(predicted.lengths, np.asarray(lengths, np.float32))
    assert capsjax.load(file).preprocessing == Preprocessing(standardise=True, crop=7)


def test_a_run_is_loaded_like_a_file(folder, file):
    images = load_dataset("digits").test.images[:5]
    network = train.load_run(str(folder))
    assert repr(network) == "Network(CapsNet, image_shape=(8, 8, 1), 10 classes)"
    expected = capsjax.load(file).predict(images)
    np.testing.assert_array_equal(network.predict(images).lengths, expected.lengths)
    best = train.load_run(folder, checkpoint="best")
    assert best.class_names == network.class_names


def test_what_is_written_is_told(folder, tmp_path, capsys):
    path = tmp_path / "half.safetensors"
    words = ["export", str(folder), str(path), "--dtype", "float16", "--without-decoder"]
    assert main(words) == 0
    assert capsys.readouterr().out == (
        f"{path}: the network of {folder} at step 6, {path.stat().st_size:,} bytes\n"
    )
    assert capsjax.load(path).model.decoder is None
    assert main([*words, "--overwrite", "--checkpoint", "best", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["file"] == str(path)
    params = nnx.state(capsjax.load(path).model, nnx.Param)
    assert told["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_a_program_takes_any_number_of_images(folder, file, tmp_path):
    pytest.importorskip("flatbuffers")
    path = tmp_path / "digits.jax"
    assert main(["export", str(folder), str(path)]) == 0
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(program.platforms) == {"cpu", "cuda", "rocm", "tpu"}
    images, network = load_dataset("digits").test.images, capsjax.load(file)
    for count in (1, 7):
        lengths = program.call(images[:count])
        assert_close(lengths, network.predict(images[:count]).lengths, reduction_length=64)


def test_a_program_needs_what_writes_it(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert main(["export", str(folder), str(tmp_path / "a.jax")]) == 2
    assert "by the package flatbuffers, which is not installed" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a.bin"], "has the suffix '.bin', but must have one of: .safetensors, .jax; or say"),
        (["a.jax", "--dtype", "float16"], "--dtype is float16, but a program holds weights as it"),
        (["there.safetensors"], "is there already: replace it (--overwrite), or name another"),
        (["none/a.safetensors"], "cannot be written (No such file or directory): make room"),
    ],
)
def test_files_that_are_not_written(folder, tmp_path, words, message, capsys):
    (tmp_path / "there.safetensors").write_bytes(b"mine")
    assert main(["export", str(folder), str(tmp_path / words[0]), *words[1:]]) == 2
    assert message in capsys.readouterr().err
    assert os.listdir(tmp_path) == ["there.safetensors"]
    assert (tmp_path / "there.safetensors").read_bytes() == b"mine"


@pytest.mark.usefixtures("no_figures")
def test_a_routing_of_ones_own_is_in_no_file(config, tmp_path, capsys, monkeypatch):
    routing = tmp_path / "mine.py"
    routing.write_text(
        "import capsjax\n"
        "def mean(votes, activation):\n"
        "    pose = capsjax.squash(votes.mean(0))\n"
        "    return capsjax.Routed(pose, capsjax.norm(pose), votes[..., 0] * 0)\n"
    )
    own = f"{routing}:mean"
    options = [f"{name}={json.dumps(value)}" for name, value in TINY.items()]
    out = tmp_path / "run"
    words = ["fit", "digits", "--steps", "1", "--devices", "1", "--routing", own]
    assert main([*words, "--out", str(out), "--model-options", *options]) == 0
    path = tmp_path / "a.safetensors"
    assert main(["export", str(out), str(path), "--routing", own]) == 2
    assert "mean, which this capsnet has, is code of your own" in capsys.readouterr().err
    assert not path.exists()
    images = load_dataset("digits").test.images[:2]
    assert train.load_run(out, routing=own).predict(images).lengths.shape == (2, 10)


def require_card(name, test):
    predicted = capsjax.load(name).predict(np.asarray(test.images))
    accuracy = float(np.mean(predicted.labels == test.labels))
    assert f"{accuracy:.2%}".replace("%", " %") in capsjax.weights.pretrained_card(name)
    assert accuracy > 0.99


def test_the_shipped_digits_are_as_right_as_their_card_says():
    require_card("capsnet/digits", load_dataset("digits").test)


@pytest.mark.slow
def test_the_shipped_network_for_mnist_is_as_right_as_its_card_says(official_files):
    source = SOURCES["mnist"]
    test = source.load(source.find(official_files / "mnist")).test
    require_card("efficient_capsnet/mnist", test)
