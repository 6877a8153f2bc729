import numpy as np
import pytest

from train.bench import data
from train.bench.data import load_or_imitate
from train.system.errors import UserError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))


def test_what_is_embedded_is_real():
    dataset, synthetic = load_or_imitate("digits")
    assert not synthetic
    assert dataset.image_shape == (8, 8, 1)


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
def test_what_is_not_at_hand_is_imitated_and_not_downloaded(name):
    dataset, synthetic = load_or_imitate(name)
    assert synthetic
    assert dataset.name == name
    assert (len(dataset.train), dataset.image_shape) == (60_000, (28, 28, 1))
    assert dataset.num_classes == 10
    assert len(np.unique(dataset.train.images)) == 256


def test_an_imitation_has_the_shape_and_the_classes_of_its_set(monkeypatch):
    monkeypatch.setattr(data, "_TRAINING", 100)
    dataset, synthetic = load_or_imitate("smallnorb")
    assert synthetic
    assert (dataset.image_shape, dataset.num_classes) == ((48, 48, 2), 5)


@pytest.mark.parametrize(("name", "side"), [("multi_mnist", 36), ("affnist-generated", 40)])
def test_what_is_made_of_mnist_is_made_of_an_imitation(name, side):
    dataset, synthetic = load_or_imitate(name)
    assert synthetic
    assert (dataset.name, dataset.image_shape) == (name, (side, side, 1))
    batch = dataset.train.gather(np.arange(3))
    assert batch.images.any()


def test_files_that_are_named_are_taken_or_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_or_imitate("mnist", data_dir=tmp_path)
