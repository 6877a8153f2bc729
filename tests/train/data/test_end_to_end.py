"""Data of every kind, from its files to a trained network and back: shapes, channels, classes."""

import dataclasses
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

from tests.train.data.small_files import (
    random,
    small_affnist,
    small_cifar,
    small_mnist_c,
    small_smallnorb,
    small_svhn,
)
from train.data import catalog, list_datasets, load_dataset
from train.data.sources import affnist, cifar, mnist, mnist_corrupted, smallnorb
from train.loop import loop
from train.loop.loop import fit
from train.report.evaluate import evaluate
from train.report.predict import predict


@pytest.fixture
def short(config):
    """Two steps with one evaluation."""
    return config.changed(steps=2, evaluate_every=2)


def fit_and_evaluate(config, tmp_path, *, also, data_dir=None, inspect=False):
    """Trains, and measures the run again on its own set and on another one."""
    out = tmp_path / "run"
    summary = fit(config, out=out, data_dir=data_dir, devices=2)
    again = evaluate(out, data_dir=data_dir, devices=2)
    assert again["accuracy"] == pytest.approx(summary["test.accuracy"])
    assert again["examples"] == summary["test.examples"]
    saved = json.loads((out / "config.json").read_text())["config"]
    assert saved["data"]["dataset"] == config.data.dataset
    return evaluate(out, dataset=also, data_dir=data_dir, devices=2, inspect=inspect)


SMALL = {
    **{name: partial(small_cifar, source=source, each=9) for name, source in cifar.SOURCES.items()},
    **{
        name: partial(small_smallnorb, source=source, side=48)
        for name, source in smallnorb.SOURCES.items()
    },
    "svhn_cropped": small_svhn,
    "mnist_corrupted/fog": partial(small_mnist_c, corruption="fog"),
}
"""What writes a few images as their publishers do, and returns them as official."""


@pytest.mark.parametrize("name", [*mnist.SOURCES, *catalog.MADE_OF_MNIST, affnist.NAME, *SMALL])
@pytest.mark.usefixtures("_no_figures")
def test_every_set_is_trained_on_and_evaluated(name, short, mnist_files, tmp_path, monkeypatch):
    """From files of the official format, with no network, by a network with few capsules."""
    if name in mnist.SOURCES:
        monkeypatch.setitem(mnist.SOURCES, name, dataclasses.replace(mnist.MNIST, name=name))
    elif name in SMALL:
        monkeypatch.setitem(catalog.SOURCES, name, SMALL[name](mnist_files))
    elif name == affnist.NAME:
        small_affnist(mnist_files / "test.mat")
    strides = {"conv_stride": 4, "primary_stride": 4}
    config = short.changed(dataset=name, model_options={**short.model.options, **strides})
    measured = fit_and_evaluate(config, tmp_path, data_dir=mnist_files, also=name)
    test = load_dataset(name, data_dir=mnist_files).limited().test
    assert (measured["dataset"], measured["examples"]) == (name, len(test))


def test_no_set_is_left_out():
    tested = {*mnist.SOURCES, *catalog.MADE_OF_MNIST, affnist.NAME, *SMALL}
    of_ones_own = {name for name in list_datasets() if ":" in name}
    others = set(list_datasets()) - tested - of_ones_own
    assert others == {"digits", "mnist_corrupted/CORRUPTION"}
    assert {name for name in catalog.SOURCES if name not in SMALL} == {
        name for name in mnist_corrupted.SOURCES if name != "mnist_corrupted/fog"
    }


@pytest.fixture
def _no_figures(monkeypatch):
    monkeypatch.setattr(loop, "draw_run", lambda *_: None)


def test_stereo_pairs_from_novel_and_familiar_viewpoints(short, tmp_path, monkeypatch):
    """Two channels, five classes, everything random that there is."""
    for name, source in smallnorb.SOURCES.items():
        small = small_smallnorb(tmp_path / "files", source, side=20)
        monkeypatch.setitem(catalog.SOURCES, name, small)
    config = short.changed(
        dataset="smallnorb-azimuth",
        standardise=True,
        crop=9,
        max_brightness=1.0,
        max_contrast=0.5,
    )
    familiar = fit_and_evaluate(
        config,
        tmp_path,
        data_dir=tmp_path / "files",
        also="smallnorb-azimuth-familiar",
        inspect=True,
    )
    assert familiar["examples"] == 108
    assert (tmp_path / "run" / "evaluations" / "smallnorb-azimuth-familiar-last.json").exists()
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == {
        "confusion",
        "curves",
        "dimensions",
        "parts",
        "reconstructions",
        "routing",
    }


@pytest.mark.usefixtures("_no_figures")
def test_colours_of_one_set_are_measured_on_another(short, tmp_path, monkeypatch):
    """Three channels, ten classes, the middle of 32x32."""
    files = tmp_path / "files"
    monkeypatch.setitem(catalog.SOURCES, "cifar10", small_cifar(files, cifar.CIFAR10))
    monkeypatch.setitem(catalog.SOURCES, "svhn_cropped", small_svhn(files))
    config = short.changed(dataset="cifar10", crop=9, routing="dynamic-leaky")
    assert fit_and_evaluate(config, tmp_path, data_dir=files, also="svhn_cropped")["examples"] == 10


@pytest.mark.usefixtures("_no_figures")
def test_images_and_arrays_of_ones_own(short, tmp_path):
    """Neither square nor of ten classes, measured on arrays, and a file is classified."""
    photos = tmp_path / "photos"
    for name in ("cat", "dog", "fox"):
        (photos / name).mkdir(parents=True)
        for i in range(5):
            Image.fromarray(random(9, 11, 3, seed=i)).save(photos / name / f"{i}.png")
    arrays = {
        "train_images": random(6, 9, 11, 3),
        "train_labels": np.arange(6) % 3,
        "test_images": random(4, 9, 11, 3),
        "test_labels": np.arange(4) % 3,
    }
    np.savez(tmp_path / "arrays.npz", **arrays)
    config = short.changed(dataset=f"folder:{photos}", batch_size=4)
    measured = fit_and_evaluate(config, tmp_path, also=f"npz:{tmp_path / 'arrays.npz'}")
    assert measured["examples"] == 4
    (seen,) = predict(tmp_path / "run", [photos / "fox" / "0.png"])
    assert set(seen["lengths"]) == {"cat", "dog", "fox"}
