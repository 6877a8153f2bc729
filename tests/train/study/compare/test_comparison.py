"""The command: files, going on after an interruption, refusals."""

import csv
import json
import re

import jax
import numpy as np
import pytest
from PIL import Image

from tests.train.study.compare.test_findings import result
from train import data
from train.__main__ import main
from train.learn import user_routing
from train.presets import get_preset
from train.study.compare import cells, comparison
from train.study.statistics import unpack

TINY = ["--steps", "2", "--batch-size", "16", "--robustness-examples", "20"]


def compare(out, *arguments):
    return main(["compare", *TINY, "--out", str(out), *arguments])


@pytest.fixture
def _small(monkeypatch):
    """A network that compiles in no time, by whatever name."""
    digits = get_preset("digits")
    options = {"conv_features": 4, "primary_types": 2, "decoder_hidden": None}
    small = digits.changed(model_options={**digits.model.options, **options})
    monkeypatch.setattr(cells, "own_recipe", lambda model, dataset: small)


@pytest.mark.usefixtures("_small")
def test_a_cell_is_trained_and_measured_and_its_files_written(tmp_path, capsys):
    out = tmp_path / "out"
    assert compare(out, "--routings", "uniform", "--seeds", "2") == 0
    printed = capsys.readouterr()
    assert "[1/1] digits-capsnet-uniform" in printed.err
    assert re.search(r"capsnet +uniform +digits +\d+\.\d\d", printed.out)
    assert re.search(r"All 2 seeds at once: .* times as fast", printed.out)
    files = "table.md, results.json, errors.png, robustness.png, table.csv"
    assert f"{out}: {files}" in printed.out

    command = f"python -m train compare {' '.join(TINY)} --out {out} --routings uniform --seeds 2"
    assert (out / "table.md").read_text(encoding="utf-8").startswith(f"`{command}`\n")
    found = json.loads((out / "results.json").read_text(encoding="utf-8"))
    assert found["command"] == command
    (cell,) = found["cells"]
    assert cell == json.loads((out / "cells" / "digits-capsnet-uniform.json").read_text())
    assert all(1 <= round(359 * accuracy) <= 358 for accuracy in cell["accuracy"])
    assert [len(of_kind) for of_kind in cell["robustness"].values()] == [5] * 5
    rows = csv.DictReader((out / "table.csv").read_text(encoding="utf-8").splitlines())
    assert [float(row["accuracy"]) for row in rows] == cell["accuracy"]
    for name in ("errors.png", "robustness.png"):
        with Image.open(out / name) as image:
            assert len(image.convert("L").getcolors()) > 10


def test_a_cell_learns_from_as_many_images_as_its_identity_says(tmp_path, monkeypatch):
    sizes = []

    def train(cell, datasets, seeds, examples, *others):
        (dataset,) = datasets
        sizes.append((len(dataset.train), len(dataset.validation)))
        return result(cell.routing, 0.9)

    monkeypatch.setattr(comparison, "_train", train)
    options = ["--seeds", "1", "--train-examples", "100", "--validation", "50"]
    assert compare(tmp_path / "out", *options) == 0
    (cell,) = (tmp_path / "out" / "cells").iterdir()
    config = json.loads(cell.read_text())["identity"]["config"]
    assert sizes == [(100, 50)] == [(config["train_examples"], config["validation"])]


@pytest.mark.usefixtures("_small")
def test_folds_measure_every_training_image_once(tmp_path, capsys):
    out, folds = tmp_path / "out", ["--folds", "3", "--seeds", "2"]
    options = ["--routings", "uniform", "--train-examples", "90"]
    assert compare(out, *options, *folds) == 0
    printed = capsys.readouterr().out
    assert "On digits these are training images, of 3 folds" in printed
    (cell,) = json.loads((out / "results.json").read_text())["cells"]
    assert cell["test_examples"] == 90
    assert cell["robustness_examples"] == 60
    assert cell["identity"]["folds"] == 3
    for accuracy, right in zip(cell["accuracy"], cell["right"], strict=True):
        assert round(90 * accuracy) == unpack(right, 90).sum()
    assert compare(out, *options, *folds) == 0
    assert compare(out, *options, "--folds", "2", "--seeds", "2") == 2
    assert "was measured with folds 3, now 2: choose another" in capsys.readouterr().err
    assert compare(out, *options, "--folds", "1") == 2
    assert "--folds: '1' is not a whole number of at least 2" in capsys.readouterr().err
    assert compare(tmp_path / "many", *options, "--folds", "80") == 2
    assert "--folds is 80, but digits has a class of" in capsys.readouterr().err
    assert not (tmp_path / "many").exists()


def test_what_is_done_is_kept(tmp_path, monkeypatch, capsys):
    trained = []

    def train(cell, dataset, seeds, examples, *others):
        trained.append((cell.routing, seeds))
        return result(cell.routing, *[0.9, 0.8][:seeds])

    monkeypatch.setattr(comparison, "_train", train)
    out = tmp_path / "out"
    uniform, dynamic = (out / "cells" / f"digits-capsnet-{x}.json" for x in ("uniform", "dynamic"))
    assert compare(out, "--routings", "uniform", "--seeds", "2") == 0
    older = json.loads(uniform.read_text())  # than a setting
    assert older["identity"]["config"].pop("class_weights") == "none"
    uniform.write_text(json.dumps(older))
    kept = uniform.read_bytes()

    # One more is added, and a cell that is not whole counts as missing.
    dynamic.write_text("{", encoding="utf-8")
    both = ("--routings", "uniform", "dynamic")
    assert compare(out, *both, "--seeds", "2") == 0
    assert "[1/1] digits-capsnet-dynamic" in capsys.readouterr().err
    assert trained == [("uniform", 2), ("dynamic", 2)]
    assert uniform.read_bytes() == kept

    assert compare(out, *both, "--seeds", "1") == 2
    assert "was measured with seeds [0, 1], now [0]" in capsys.readouterr().err
    assert compare(out, *both, "--seeds", "2", "--batch-size", "8") == 2
    assert "was measured with --batch-size 16, now 8:" in capsys.readouterr().err
    assert compare(out, *both, "--seeds", "1", "--overwrite") == 0
    assert trained[2:] == [("uniform", 1), ("dynamic", 1)]
    assert "One seed shows no spread" in capsys.readouterr().out


def test_what_was_measured_of_other_images_or_code_is_not_kept(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(comparison, "_train", lambda cell, *_: result(cell.routing, 0.9))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(user_routing, "_trusted", {})  # a process of its own, so to speak
    (tmp_path / "mine.py").write_text("from capsjax.routing import Uniform\n\nMine = Uniform\n")
    line = ["--datasets", "npz:own.npz", "--routings", "mine.py:Mine", "--seeds", "1"]

    def write(name, first):
        images = (np.arange(40 * 400) + first).astype(np.uint8).reshape(40, 20, 20)
        labels = np.arange(40) % 2
        parts = {"train_images": images, "train_labels": labels}
        np.savez(name, **parts, test_images=images[:10], test_labels=labels[:10])

    write("own.npz", 0)
    assert compare("out", *line) == 0
    assert compare("out", *line) == 0
    write("own.npz", 1)
    capsys.readouterr()
    assert compare("out", *line) == 2
    expected = "was measured with other train images and other test images:"
    assert expected in capsys.readouterr().err
    assert compare("out", *line, "--overwrite") == 0
    (tmp_path / "mine.py").write_text("from capsjax.routing import Dynamic\n\nMine = Dynamic\n")
    user_routing._trusted.clear()  # as in a new process
    assert compare("out", *line) == 2
    assert "was measured with another code of the routing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("most", "message"),
    [
        ("0", "cnn with seed 0: loss or gradient were not finite in 1 steps in a row"),
        ("100", "cnn has diverged: what it says of images is not finite"),
    ],
)
def test_a_network_that_diverges_is_named(most, message, tmp_path, capsys):
    line = ["--models", "cnn", "--learning-rate", "1e20", "--seeds", "2", "--max-skipped", most]
    with jax.debug_nans(False):
        assert compare(tmp_path / "out", *line, "--steps", "30") == 3
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--models", "capsnets"],
            "unknown model 'capsnets' (did you mean capsnet?), choose from: aff_capsnet",
        ),
        (
            ["--routings", "dynamics"],
            "unknown routing 'dynamics' (did you mean dynamic?), choose from: published",
        ),
        (["--datasets", "digit"], "unknown data set 'digit' (did you mean digits?), choose from:"),
        (["--seeds", "0"], "--seeds: '0' is not a whole number of at least 1"),
        (["--robustness-examples", "0"], "--robustness-examples: '0' is not a whole number"),
        (["--epochs", "3"], "--steps and --epochs both say how long"),
        (["--routings", "none.py:Mine"], "there is no file none.py"),
        (["--recipe", "mnists"], "unknown preset 'mnists'"),
        (["--batch-size", "0"], "--batch-size is 0, but must be more than 0"),
        (["--batch-size", "5000"], "a batch of 5000 is larger than the training set"),
        (["--max-shift", "8"], "--max-shift is 8, but the images of digits are 8x8"),
        (["--micro-batches", "3"], "16 images of a batch cannot be cut into 3 equal"),
        (
            ["--models", "sr_capsnet", "--micro-batches", "2", "--warmup-steps", "0"],
            "--micro-batches is 2, but sr_capsnet normalises a batch as a whole",
        ),
        (
            ["--models", "capsnet", "cnn", "--model-options", "conv_features=4"],
            "model 'cnn' has no option 'conv_features'",
        ),
    ],
)
def test_bad_input_leaves_nothing(arguments, message, tmp_path, capsys):
    assert compare(tmp_path / "out", *arguments) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_run_of_fit_is_refused(tmp_path, capsys):
    (tmp_path / "config.json").write_text("{}")
    assert compare(tmp_path) == 2
    assert "holds a run of fit" in capsys.readouterr().err


def test_images_of_several_classes_are_refused(pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(data, "load_dataset", lambda *_, **__: pairs)
    assert compare(tmp_path / "out", "--datasets", "multi_mnist") == 2
    assert "images of multi_mnist are of 2 classes each" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
