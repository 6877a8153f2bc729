"""QMNIST, whose labels are integers in columns, packed and not."""

import gzip

import numpy as np
import pytest

from tests.train.data.small_files import idx_bytes, small_qmnist
from train.data.sources import qmnist
from train.system.errors import UserError


@pytest.mark.parametrize(
    ("name", "first", "count"),
    [("qmnist", 0, 10_010), ("qmnist-10k", 0, 10_000), ("qmnist-50k", 10_000, 10)],
)
def test_a_name_says_which_test_images(name, first, count, tmp_path):
    source = small_qmnist(tmp_path, {source.name: source for source in qmnist.SOURCES}[name])
    dataset = source.load(source.find(tmp_path))
    assert (len(dataset.train), len(dataset.test)) == (40, count)
    numbers = np.arange(first, first + count)
    np.testing.assert_array_equal(dataset.test.labels, numbers % 10)
    np.testing.assert_array_equal(dataset.test.images[:, 3, 4, 0], numbers % 251)


def test_unpacked_files_serve_as_well_and_others_are_refused(tmp_path):
    source = small_qmnist(tmp_path)
    packed = source.load(source.find(tmp_path))
    for path in source.find(tmp_path):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    paths = source.find(tmp_path)
    np.testing.assert_array_equal(source.load(paths).test.labels, packed.test.labels)
    paths[1].write_bytes(idx_bytes(np.zeros((40, 8))))
    with pytest.raises(UserError, match="labels-idx2-int cannot be read .* begins with 00 00 08"):
        source.load(paths)
