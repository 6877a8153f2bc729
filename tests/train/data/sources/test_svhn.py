"""SVHN from files that SciPy writes in the layout of the official ones."""

import numpy as np
import pytest

from tests.train.data.small_files import mat_bytes, random, small_svhn
from train.data.sources import svhn
from train.system.errors import UserError


def test_images_and_labels(tmp_path):
    source = small_svhn(tmp_path)
    dataset = source.load(source.find(tmp_path))
    assert dataset.image_shape == source.image_shape
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
    path = tmp_path / "train_32x32.mat"
    path.write_bytes(mat_bytes({"X": x, "y": np.reshape(y, (-1, 1))}))
    with pytest.raises(UserError, match=message):
        svhn.SVHN.load([path, path])
