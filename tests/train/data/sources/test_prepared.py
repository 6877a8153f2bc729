"""Sets that tensorflow-datasets has prepared."""

import io
import json
import pickle

import numpy as np
import pytest

from tests.train.data.small_files import small_mnist
from train.data import OnDisk, load_dataset, tfds_cache
from train.data.formats.images import read_image
from train.data.sources import mnist, prepared
from train.system.errors import UserError

VERSION = "3.0.1"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache in which KMNIST is prepared, and nothing else."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    files = tmp_path / "files"
    tfds_cache.load(small_mnist(files, mnist.KMNIST, train_size=40, test_size=20), files)
    return tmp_path / "cache"


def changed(cache, name, change):
    path = cache / "kmnist" / VERSION / name
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def seen(split):
    batch = split.some(len(split))
    return {
        (label, image.tobytes()) for label, image in zip(batch.labels, batch.images, strict=True)
    }


def test_images_are_those_of_the_official_files(cache, tmp_path):
    dataset = load_dataset("tfds:kmnist")
    official = load_dataset("kmnist")
    assert isinstance(dataset.train, OnDisk)
    assert dataset.class_names == official.class_names
    assert (dataset.image_shape, dataset.validation) == ((28, 28, 1), None)
    assert seen(dataset.train) == seen(official.train)
    assert seen(dataset.test) == seen(official.test)
    moved = pickle.loads(pickle.dumps(dataset.train))  # as to a process that reads ahead
    places = np.array([5, 3, 5])
    np.testing.assert_array_equal(moved.gather(places).images, dataset.train.gather(places).images)
    assert load_dataset("tfds:kmnist").fingerprints == dataset.fingerprints
    assert len(set(dataset.fingerprints.values())) == 2
    content = io.BytesIO(dataset.train.reader.content(7))
    image = dataset.train.gather(np.array([7])).images[0]
    np.testing.assert_array_equal(read_image(tmp_path, content=content), image)


def test_another_folder_than_the_cache_may_have_it(cache, tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "nothing"))
    assert len(load_dataset("tfds:kmnist", data_dir=cache).train) == 40
    with pytest.raises(UserError, match=f"not prepared in {tmp_path / 'files'}: .* --data-dir"):
        load_dataset("tfds:kmnist", data_dir=tmp_path / "files")


def test_images_may_be_made_alike(cache):
    assert load_dataset("tfds:kmnist@14x20").image_shape == (14, 20, 3)
    small = load_dataset("tfds:kmnist@14x20x1")
    assert small.train.some(3).images.shape == (3, 14, 20, 1)


def test_without_a_test_split_a_fifth_is_set_aside(cache, capsys):
    changed(cache, "dataset_info.json", lambda info: info | {"splits": info["splits"][:1]})
    dataset = load_dataset("tfds:kmnist")
    assert (len(dataset.train), len(dataset.test)) == (32, 8)
    assert not seen(dataset.train) & seen(dataset.test)
    assert "tfds:kmnist has no split test: a fifth" in capsys.readouterr().err


def test_a_split_whose_labels_are_kept_secret_is_left_out(cache, capsys, monkeypatch):
    labels = prepared._labels

    def secret(source, label, about):
        found = labels(source, label, about)
        return np.full_like(found, -1) if about.endswith("test") else found

    monkeypatch.setattr(prepared, "_labels", secret)
    dataset = load_dataset("tfds:kmnist")
    assert (len(dataset.train), len(dataset.test)) == (32, 8)
    assert "kmnist/3.0.1, test has no labels, and is left out" in capsys.readouterr().err


def test_a_split_to_choose_by(cache):
    def with_validation(info):
        test = next(split for split in info["splits"] if split["name"] == "test")
        return info | {"splits": [*info["splits"], test | {"name": "validation"}]}

    changed(cache, "dataset_info.json", with_validation)
    for file in (cache / "kmnist" / VERSION).glob("*-test.*"):
        file.with_name(file.name.replace("-test.", "-validation.")).write_bytes(file.read_bytes())
    dataset = load_dataset("tfds:kmnist")
    assert seen(dataset.validation) == seen(dataset.test)


def without(kind):
    def change(features):
        inner = features["featuresDict"]["features"]
        kept = {key: value for key, value in inner.items() if kind not in value["pythonClassName"]}
        return features | {"featuresDict": {"features": kept}}

    return change


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:imagenet2012", "imagenet2012 is not prepared in .*cache: prepare it there"),
        ("tfds:kmnist/big", "kmnist/big is not prepared"),
        ("tfds:kmnist@0x4", "without a pixel"),
        ("tfds:../etc", "names no set: write tfds:NAME"),
    ],
)
def test_what_is_not_there(cache, name, message):
    with pytest.raises(UserError, match=message):
        load_dataset(name)


def test_configurations_are_named(cache):
    (cache / "kmnist" / VERSION).rename(cache / "moved")
    (cache / "kmnist" / "plain").mkdir()
    (cache / "moved").rename(cache / "kmnist" / "plain" / VERSION)
    with pytest.raises(UserError, match="choose one of its configurations, plain"):
        load_dataset("tfds:kmnist")
    assert len(load_dataset("tfds:kmnist/plain").train) == 40


@pytest.mark.parametrize("kind", ["Image", "ClassLabel"])
def test_a_set_without_images_of_classes(cache, kind):
    changed(cache, "features.json", without(kind))
    what = {"Image": "images", "ClassLabel": "classes"}[kind]
    with pytest.raises(UserError, match=f"tfds:kmnist has 0 features of {what}"):
        load_dataset("tfds:kmnist")


def test_a_format_that_only_tensorflow_reads(cache):
    path = cache / "kmnist" / VERSION / "dataset_info.json"
    path.write_text(path.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match="as tfrecord, which needs TensorFlow"):
        load_dataset("tfds:kmnist")


def test_images_that_are_no_bytes_are_refused(cache):
    def floats(features):
        image = features["featuresDict"]["features"]["image"]
        image["image"]["dtype"] = "float32"
        return features

    changed(cache, "features.json", floats)
    with pytest.raises(
        UserError, match="tfds:kmnist@28x28x1 are float32, where a network takes uint8"
    ):
        load_dataset("tfds:kmnist@28x28x1")


def test_images_of_many_sizes_have_to_be_made_alike(cache):
    def any_size(features):
        image = features["featuresDict"]["features"]["image"]
        image["image"]["shape"] = {"dimensions": ["-1", "-1", "1"]}
        return features

    changed(cache, "features.json", any_size)
    with pytest.raises(UserError, match="are of many sizes: have them made alike, as in .*@64x64"):
        load_dataset("tfds:kmnist")
    assert load_dataset("tfds:kmnist@28x28x1").image_shape == (28, 28, 1)
