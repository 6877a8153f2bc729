"""affNIST's official files, as MATLAB writes them."""

from pathlib import Path

import numpy as np
import pytest

from tests.train.data.small_files import affnist_bytes, mat_bytes
from train.data import Dataset, Split
from train.data.sources.affnist import load
from train.system.errors import UserError


@pytest.fixture
def digits() -> Dataset:
    images = np.zeros((3, 28, 28, 1), np.uint8)
    split = Split(images, np.arange(3, dtype=np.int32))
    return Dataset("mnist", split, split, tuple("0123456789"))


def write(path: Path, images: np.ndarray, labels: np.ndarray) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(affnist_bytes(images, labels))


def images(count: int, first: int = 0) -> np.ndarray:
    """Columns of which each pixel tells the image, the row and the column."""
    pixels = np.arange(1600)[:, None] * 7 + np.arange(first, first + count)
    return (pixels % 256).astype(np.uint8)


def test_one_file_with_all(digits, tmp_path):
    write(tmp_path / "test.mat", images(4), np.asarray([3, 1, 4, 9], np.uint8))
    made = load(digits, tmp_path)
    assert (made.name, made.image_shape, len(made.test)) == ("affnist", (40, 40, 1), 4)
    assert made.test.labels.tolist() == [3, 1, 4, 9]
    for number, row, column in ((0, 0, 0), (2, 0, 1), (3, 5, 39)):
        expected = ((40 * row + column) * 7 + number) % 256
        assert made.test.images[number, row, column, 0] == expected
    assert made.train.image_shape == (40, 40, 1)


def test_a_file_for_each_part_in_their_order(digits, tmp_path):
    for number in range(1, 33):
        labels = np.asarray([number % 10, 0], float)
        write(tmp_path / "test_batches" / f"{number}.mat", images(2, number), labels)
    test = load(digits, tmp_path).test
    assert test.labels[::2].tolist() == [number % 10 for number in range(1, 33)]
    np.testing.assert_array_equal(test.images[::2, 0, 0, 0], np.arange(1, 33))
    (tmp_path / "test_batches" / "7.mat").unlink()
    with pytest.raises(UserError, match=r"7\.mat does not exist: .* with 1\.mat to 32\.mat"):
        load(digits, tmp_path)


def test_without_files_it_says_what_it_needs(digits):
    with pytest.raises(UserError, match=r"test_batches\.zip .* affnist-generated is made from"):
        load(digits, None)


@pytest.mark.parametrize(
    ("pixels", "labels", "message"),
    [
        (images(2).astype(float), np.asarray([1, 2]), "images float64"),
        (images(2)[:-1], np.asarray([1, 2]), r"images uint8 \[1599, 2\]"),
        (images(2), np.asarray([1, 2, 3]), r"labels int64 \[3\]"),
        (images(2), np.asarray([1, 0.5]), "expected .* whole numbers"),
        (images(2), np.asarray([1, 10]), "label 10 of test example 1 of affnist is out of range"),
    ],
)
def test_what_is_not_affnist(digits, tmp_path, pixels, labels, message):
    write(tmp_path / "test.mat", pixels, labels)
    with pytest.raises(UserError, match=message):
        load(digits, tmp_path)


@pytest.mark.parametrize("variables", [{"affNISTdata": np.zeros(3)}, {"affNISTdata": {"image": 1}}])
def test_another_variable_of_that_name(digits, tmp_path, variables):
    (tmp_path / "test.mat").write_bytes(mat_bytes(variables))
    with pytest.raises(UserError, match="is not a file of affNIST, its affNISTdata has no image"):
        load(digits, tmp_path)
