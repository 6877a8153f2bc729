"""MATLAB's files: what SciPy reads, and its exceptions in a sentence."""

import sys

import numpy as np
import pytest

from tests.train.data.small_files import mat_bytes, random
from train.data.formats import mat
from train.system.errors import UserError

X = np.moveaxis(random(3, 4, 5, 3), 0, -1)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "train_32x32.mat"


def refused(path, match):
    with pytest.raises(UserError, match=match) as caught:
        mat.read(path, ["X"])
    assert str(path) in str(caught.value)


def test_variables_in_the_order_of_their_names(path):
    path.write_bytes(mat_bytes({"y": np.arange(3), "other": X, "X": X}))
    x, y = mat.read(path, ["X", "y"])
    np.testing.assert_array_equal(x, X, strict=True)
    assert y.ravel().tolist() == [0, 1, 2]


def test_a_variable_that_is_missing(path):
    path.write_bytes(mat_bytes({"Y": X}))
    refused(path, "lacks the variable 'X'")


def test_a_missing_file(path):
    refused(path, "there is no file")


@pytest.mark.parametrize("content", [b"", b"no MATLAB file", b"PK\x03\x04" + bytes(200)])
def test_what_is_no_such_file(path, content):
    path.write_bytes(content)
    refused(path, "cannot be read as a MATLAB file of version 5")


def test_a_file_that_is_cut_short(path):
    path.write_bytes(mat_bytes({"X": X})[:-50])
    refused(path, "cannot be read as a MATLAB file of version 5")


def test_without_scipy_one_sentence_says_so(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy.io", None)
    refused(path, "read with SciPy, which is not installed")
