"""Data of every kind, from its files to a trained network and back: shapes, channels, classes."""

import csv
import json
from functools import partial

import numpy as np
import pytest
from PIL import Image

import capsjax
from tests.train.data.small_files import (
    random,
    small_affnist,
    small_cifar,
    small_emnist,
    small_kuzushiji_49,
    small_mnist,
    small_mnist_c,
    small_qmnist,
    small_smallnorb,
    small_svhn,
)
from train.__main__ import main
from train.data import catalog, list_datasets, load_dataset
from train.data.sources import affnist, cifar, emnist, mnist, mnist_corrupted, qmnist, smallnorb
from train.loop.loop import fit
from train.report.evaluate import evaluate
from train.report.predict import predict
from train.system.errors import UserError

FOG = "mnist_corrupted/fog"
SMALL = {
    **{
        source.name: partial(make, source=source)
        for sources, make in (
            (mnist.SOURCES[:3], partial(small_mnist, train_size=40, test_size=40)),
            (qmnist.SOURCES, small_qmnist),
            (cifar.SOURCES, partial(small_cifar, each=9)),
            (emnist.SOURCES[:1], partial(small_emnist, train_size=70, test_size=63)),
            (smallnorb.SOURCES, partial(small_smallnorb, side=48)),
        )
        for source in sources
    },
    "kuzushiji49": small_kuzushiji_49,
    "svhn_cropped": small_svhn,
    FOG: partial(small_mnist_c, source=catalog.SOURCES[FOG]),
}
"""What writes a few images as their publishers do, and returns them as official."""

PAIRS = "multi_mnist"
"""Has a test of its own."""

MADE = [name for name in (*catalog.MADE_OF_MNIST, affnist.NAME) if name != PAIRS]

ALSO = {"mnist-40x40": "affnist-generated", "cifar10": "svhn_cropped"}
"""Sets of the same shape, on which a network is measured that has learned from another."""


@pytest.fixture
def short(config):
    """Two steps of a network with few capsules, and one evaluation."""
    options = {**config.model.options, "conv_stride": 4, "primary_stride": 4}
    return config.changed(steps=2, evaluate_every=2, model_options=options)


@pytest.fixture
def shortest(short):
    """The same of a network that compiles in no time, where the test is about reading."""
    options = {"features": [4], "kernel_size": 3, "pool": 8, "hidden": [8]}
    return short.changed(model="cnn", model_options=options)


@pytest.fixture
def small(mnist_files, monkeypatch):
    """Puts small files of a set into the folder of those of MNIST."""

    def small(name: str) -> None:
        if name in SMALL:
            monkeypatch.setitem(catalog.SOURCES, name, SMALL[name](mnist_files))
        elif name == affnist.NAME:
            small_affnist(mnist_files / "test.mat")

    return small


READ_ALIKE = {
    *("fashion_mnist", "kmnist", "qmnist", "qmnist-10k", "qmnist-50k", "kuzushiji49", "cifar100"),
    *(FOG, "svhn_cropped", *(source.name for source in smallnorb.SOURCES)),
}
"""Sets whose images, once they are read, are of the form of another's that is trained on."""


@pytest.mark.parametrize("name", sorted(READ_ALIKE))
def test_a_set_of_a_known_form_is_read(name, small, mnist_files):
    small(name)
    dataset = load_dataset(name, data_dir=mnist_files)
    classes = {"cifar100": 100, "kuzushiji49": 49}
    classes |= dict.fromkeys((source.name for source in smallnorb.SOURCES), 5)
    assert dataset.num_classes == classes.get(name, 10)
    for part in (dataset.train, dataset.test):
        assert part.images.shape == (len(part.labels), *dataset.image_shape)
        assert set(np.unique(part.labels)) <= set(range(dataset.num_classes))


@pytest.mark.parametrize("name", [name for name in (*SMALL, *MADE) if name not in READ_ALIKE])
@pytest.mark.usefixtures("no_figures")
def test_a_set_is_trained_on_and_evaluated(name, shortest, small, mnist_files, tmp_path):
    """From files of the official format, with no network."""
    also = ALSO.get(name, name)
    small(name)
    small(also)
    config = shortest.changed(dataset=name, max_shift=6 if "mnist-40x40" in (name, also) else 0)
    summary = fit(config, out=tmp_path / "run", data_dir=mnist_files, devices=1)
    test = load_dataset(name, data_dir=mnist_files).limited().test
    assert summary["test.examples"] == len(test)
    measured = evaluate(
        tmp_path / "run",
        dataset=also,
        data_dir=mnist_files,
        by_index=name == "cifar10",
        devices=1,
    )
    test = load_dataset(also, data_dir=mnist_files).limited().test
    assert (measured["dataset"], measured["examples"]) == (also, len(test))


def test_no_set_is_left_out():
    tested = {*SMALL, *MADE, PAIRS}
    of_ones_own = {name for name in list_datasets() if ":" in name}
    others = {*list_datasets(), *catalog.SOURCES} - tested - of_ones_own
    parts = {source.name for source in emnist.SOURCES[1:]}
    corruptions = {source.name for source in mnist_corrupted.SOURCES} - {FOG}
    assert others == {"digits", "mnist_corrupted/CORRUPTION", "emnist/PART"} | corruptions | parts


def test_stereo_pairs_from_novel_and_familiar_viewpoints(short, tmp_path, monkeypatch):
    """Two channels, five classes, everything random that there is."""
    files, out = tmp_path / "files", tmp_path / "run"
    for source in smallnorb.SOURCES:
        small = small_smallnorb(files, source, side=20)
        monkeypatch.setitem(catalog.SOURCES, source.name, small)
    config = short.changed(
        dataset="smallnorb-azimuth",
        standardise=True,
        crop=9,
        max_brightness=1.0,
        max_contrast=0.5,
        model_options={**short.model.options, "conv_stride": 1, "primary_stride": 2},
    )
    summary = fit(config, out=out, data_dir=files, devices=1)
    again = evaluate(out, data_dir=files, devices=1)
    assert again["accuracy"] == summary["test.accuracy"]
    assert again["examples"] == summary["test.examples"]
    saved = json.loads((out / "config.json").read_text())["config"]
    assert saved["data"]["dataset"] == config.data.dataset
    name = "smallnorb-azimuth-familiar"
    familiar = evaluate(out, dataset=name, data_dir=files, devices=1, inspect=True)
    assert familiar["examples"] == 108
    assert (out / "evaluations" / f"{name}-last.json").exists()
    assert {path.stem for path in (out / "figures").iterdir()} == {
        "classes",
        "confusion",
        "curves",
        "dimensions",
        "reconstructions",
        "routing",
    }


@pytest.mark.usefixtures("no_figures")
def test_images_and_arrays_of_ones_own(shortest, tmp_path):
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
    config = shortest.changed(dataset=f"folder:{photos}", batch_size=4)
    fit(config, out=tmp_path / "run", devices=1)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    streamed = fit(config, out=tmp_path / "streamed", devices=1, feed_kind="streaming")
    assert streamed["test.loss"] == summary["test.loss"]
    npz = f"npz:{tmp_path / 'arrays.npz'}"
    with pytest.raises(UserError, match="cat, dog, fox"):
        evaluate(tmp_path / "run", dataset=npz, devices=1)
    measured = evaluate(tmp_path / "run", dataset=npz, by_index=True, devices=1)
    assert measured["examples"] == 4
    (seen,) = predict(tmp_path / "run", [photos / "fox" / "0.png"])
    assert set(seen.lengths) == {"cat", "dog", "fox"}


def test_pairs_from_files_to_figures(short, mnist_files, tmp_path):
    folder = tmp_path / "run"
    config = short.changed(dataset=PAIRS)
    summary = fit(config, out=folder, data_dir=mnist_files, devices=1)
    assert summary["test.examples"] == 40
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "curves.png",
        "classes.png",
        "reconstructions.png",
        "dimensions.png",
    }
    more = evaluate(folder, data_dir=mnist_files, test_examples=300, inspect=True, devices=1)
    assert more["examples"] == 300
    names = {path.name for path in (folder / "evaluations").iterdir()}
    assert names == {"multi_mnist-last-300-examples.json"}
    (result,) = predict(folder, [folder / "figures" / "curves.png"])
    assert result.classes == [name for name, _ in result.top(2)]
    with pytest.raises(UserError, match="choose 1 to 40000"):
        evaluate(folder, data_dir=mnist_files, test_examples=40_001)


def test_images_of_any_number_of_classes_from_arrays_to_figures(short, tmp_path):
    """Bars that are there or not, each at its place: right if all are told and no other."""
    rng = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 320), ("test", 40)):
        present = rng.integers(0, 2, (count, 3))
        images = np.zeros((count, 12, 12), np.uint8)
        for bar in range(3):
            images[:, :, 1 + 4 * bar : 3 + 4 * bar] = 255 * present[:, bar, None, None]
        arrays |= {f"{split}_images": images, f"{split}_labels": present}
    np.savez(tmp_path / "bars.npz", **arrays, class_names=np.array(["left", "middle", "right"]))
    options = {**short.model.options, "conv_stride": 1, "primary_stride": 2}
    config = short.changed(
        dataset=f"npz:{tmp_path / 'bars.npz'}",
        steps=150,
        evaluate_every=150,
        batch_size=32,
        learning_rate=0.003,
        model_options=options,
    )
    folder = tmp_path / "run"
    summary = fit(config, out=folder, devices=1)
    assert summary["test.accuracy"] > 0.9
    assert summary["test.macro_f1"] > 0.9
    assert {path.name for path in (folder / "figures").iterdir()} == {
        "classes.png",
        "curves.png",
        "reconstructions.png",
        "dimensions.png",
    }
    again = evaluate(folder, devices=1, inspect=True)
    assert again["accuracy"] == summary["test.accuracy"]
    Image.fromarray(arrays["test_images"][0]).save(tmp_path / "one.png")
    (seen,) = predict(folder, [tmp_path / "one.png"])
    bars = ("left", "middle", "right")
    labels = arrays["test_labels"][:8].astype(bool).tolist()
    names = [{bar for bar, there in zip(bars, of, strict=True) if there} for of in labels]
    assert set(seen.classes) == names[0]
    assert main(["export", str(folder), str(tmp_path / "bars.safetensors")]) == 0
    network = capsjax.load(tmp_path / "bars.safetensors")
    assert network.labels_per_image is None
    assert [
        set(of) for of in network.predict(arrays["test_images"][:8, ..., None]).present
    ] == names
    table = tmp_path / "bars.csv"
    assert main(["predict", str(folder), str(tmp_path / "one.png"), "--csv", str(table)]) == 0
    (row,) = csv.DictReader(table.read_text().splitlines())
    assert row["present"] == "; ".join(seen.classes)
    for changes in ({"loss": "cross_entropy"}, {"loss": "spread"}, {"class_weights": "balanced"}):
        with pytest.raises(UserError, match="images are of any number of classes each, but"):
            fit(config.changed(**changes), out=tmp_path / "other", devices=1)
    cnn = {"features": [4], "kernel_size": 3, "pool": 8, "hidden": [8]}
    with pytest.raises(UserError, match="the network shares out one among them"):
        fit(config.changed(model="cnn", model_options=cnn), out=tmp_path / "other", devices=1)
