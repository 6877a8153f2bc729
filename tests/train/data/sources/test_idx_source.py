"""Finding, verifying and reading the four official files."""

import gzip

import pytest

from train.data.sources.idx_source import FILE_NAMES, TEST_LABELS, TRAIN_IMAGES
from train.system.errors import UserError


def test_reads_both_splits(make_source):
    source, folder = make_source(train_size=30, test_size=12)
    dataset = source.read(source.find(folder))
    assert (len(dataset.train), len(dataset.test)) == (30, 12)
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.test.labels.tolist() == [*range(10), 0, 1]


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_missing_file_is_named_with_what_it_should_hold(make_source, name):
    source, folder = make_source()
    (folder / name).unlink()
    with pytest.raises(UserError, match=f"{folder / name} does not exist: .*must hold the t") as e:
        source.find(folder)
    assert source.url + name in str(e.value)


@pytest.mark.parametrize("name", FILE_NAMES)
def test_a_wrong_checksum_is_named(make_source, name):
    source, folder = make_source()
    content = (folder / name).read_bytes()
    (folder / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{folder / name} is not the official file"):
        source.find(folder)


def test_a_folder_in_place_of_a_file(make_source):
    source, folder = make_source()
    (folder / TRAIN_IMAGES).unlink()
    (folder / TRAIN_IMAGES).mkdir()
    with pytest.raises(UserError, match="cannot be read"):
        source.find(folder)


def test_labels_of_another_set(make_source):
    source, folder = make_source(largest_label=10)
    with pytest.raises(UserError, match="label 10 of training example 10 of mnist is out of range"):
        source.read(source.find(folder))


def test_files_that_do_not_fit_each_other(make_source, to_idx):
    source, folder = make_source()
    paths = source.find(folder)
    short = source.read(paths).test.labels[:5]
    (folder / TEST_LABELS).write_bytes(gzip.compress(to_idx(short)))
    with pytest.raises(UserError, match="12 images but 5 labels"):
        source.read(paths)
