"""EMNIST, upright, from its archive and from its folder."""

import zipfile

import numpy as np
import pytest

from tests.train.data.small_files import random, small_emnist
from train.data.sources import emnist
from train.system.errors import UserError

PARTS = {source.name.rpartition("/")[2]: source for source in emnist.SOURCES}


@pytest.mark.parametrize("part", PARTS)
def test_images_are_upright_and_classes_are_the_letters(tmp_path, part):
    source = small_emnist(tmp_path, PARTS[part])
    dataset = source.load(source.find(tmp_path))
    np.testing.assert_array_equal(dataset.train.images[..., 0], random(30, 28, 28, seed=30))
    count = {"byclass": 62, "bymerge": 47, "balanced": 47, "letters": 26}.get(part, 10)
    assert dataset.num_classes == count
    assert dataset.test.labels.tolist() == [i % count for i in range(12)]
    assert dataset.class_names[0] == ("A" if part == "letters" else "0")


def test_the_folder_of_the_archive_serves_as_well(tmp_path):
    source = small_emnist(tmp_path, PARTS["letters"])
    packed = source.load(source.find(tmp_path))
    with zipfile.ZipFile(tmp_path / "gzip.zip") as archive:
        archive.extractall(tmp_path)
    (tmp_path / "gzip.zip").unlink()
    unpacked = source.load(source.find(tmp_path))
    np.testing.assert_array_equal(unpacked.train.images, packed.train.images)
    other = PARTS["digits"]
    with pytest.raises(UserError, match="gzip cannot be read as EMNIST .*No such file"):
        other.load(source.find(tmp_path))
