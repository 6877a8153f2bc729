import numpy as np
import pytest

from train.bench import data
from train.bench.data import load_or_imitate
from train.system.errors import UserError


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "_TRAINING", 100)


def test_what_is_embedded_is_real():
    dataset, synthetic = load_or_imitate("digits")
    assert not synthetic
    assert dataset.image_shape == (8, 8, 1)


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("mnist", (28, 28, 1), 10),
        ("fashion_mnist", (28, 28, 1), 10),
        ("smallnorb", (48, 48, 2), 5),
        ("multi_mnist", (36, 36, 1), 10),
        ("affnist-generated", (40, 40, 1), 10),
    ],
)
def test_what_is_not_at_hand_is_imitated_and_not_downloaded(name, shape, classes):
    dataset, synthetic = load_or_imitate(name)
    assert synthetic
    assert (dataset.name, dataset.image_shape, dataset.num_classes) == (name, shape, classes)
    assert len(np.unique(dataset.train.gather(np.arange(9)).images)) > 200


def test_files_that_are_named_are_taken_or_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_or_imitate("mnist", data_dir=tmp_path)
