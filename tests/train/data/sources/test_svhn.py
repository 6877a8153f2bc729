"""SVHN from files that SciPy writes in the layout of the official ones."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.data.small_files import mat5_bytes, random, small_svhn
from train.data import catalog, load_dataset
from train.data.sources import svhn
from train.system.errors import UserError


def test_the_table_equals_the_one_in_tensorflow_datasets():
    stock = tfds.builder_cls("svhn_cropped").url_infos
    for file in svhn.FILES:
        info = stock[file.url]
        assert (int(info.size), info.checksum) == (file.fingerprint.size, file.fingerprint.sha256)


def test_images_and_labels(monkeypatch, tmp_path):
    monkeypatch.setitem(catalog.SOURCES, "svhn_cropped", small_svhn(tmp_path))
    dataset = load_dataset("svhn_cropped", data_dir=tmp_path)
    assert dataset.image_shape == (32, 32, 3)
    np.testing.assert_array_equal(dataset.train.images, random(12, 32, 32, 3, seed=12))
    assert dataset.train.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2]
    assert len(dataset.test) == 10


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (random(32, 32, 3), [1], "holds X as uint8 \\[32, 32, 3\\]"),
        (random(4, 4, 3, 2).astype(float), [1, 2], "holds X as float64"),
        (random(4, 4, 3, 2), [0, 1], "has the label 0 in y, but labels go from 1 to 10"),
        (random(4, 4, 3, 2), [1, 11], "has the label 11 in y"),
        (random(4, 4, 3, 2), [np.nan, 1], "has the label nan in y"),
        (random(4, 4, 3, 2), [1, 2, 3], "2 images but 3 labels"),
    ],
)
def test_what_is_no_svhn(tmp_path, x, y, message):
    source = small_svhn(tmp_path)
    (tmp_path / svhn.TRAIN).write_bytes(mat5_bytes({"X": x, "y": np.reshape(y, (-1, 1))}))
    with pytest.raises(UserError, match=message):
        source.read({file.name: tmp_path / file.name for file in source.files})
