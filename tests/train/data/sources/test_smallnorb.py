"""smallNORB from files in its real layout: order, classes, stereo pairs and the splits."""

import gzip

import numpy as np
import pytest

from tests.train.data.small_files import VIEWPOINTS, norb_bytes, random, small_smallnorb
from train.data.catalog import SOURCES
from train.system.errors import UserError

FAMILIAR = {
    "azimuth": np.isin(10 * VIEWPOINTS[:, 2], [0, 20, 40, 300, 320, 340]),
    "elevation": VIEWPOINTS[:, 1] < 3,
}


def load(folder, name="smallnorb"):
    source = small_smallnorb(folder, SOURCES[name])
    return source.load(source.find(folder))


def replaced(folder, kind: str, part: str, array: np.ndarray):
    """The set with another file in the place of one of its own."""
    source = small_smallnorb(folder)
    paths = source.find(folder)
    (path,) = folder.glob(f"*-{part}-{kind}.mat.gz")
    path.write_bytes(gzip.compress(norb_bytes(array)))
    return source.load(paths)


def test_the_standard_split(tmp_path):
    dataset = load(tmp_path)
    assert dataset.image_shape == (4, 4, 2)
    for split, more in ((dataset.train, 0), (dataset.test, 1)):
        numbers = np.arange(len(VIEWPOINTS))
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], numbers % 200 + more)
        np.testing.assert_array_equal(split.labels, (numbers + more) % 5)


@pytest.mark.parametrize("kind", FAMILIAR)
@pytest.mark.parametrize("ending", ["", "-familiar"])
def test_novel_and_familiar_viewpoints(tmp_path, kind, ending):
    dataset = load(tmp_path, f"smallnorb-{kind}{ending}")
    familiar, numbers = FAMILIAR[kind], np.arange(len(VIEWPOINTS))
    assert 3 * familiar.sum() == len(familiar)
    tested = numbers[familiar if ending else ~familiar]
    np.testing.assert_array_equal(dataset.train.labels, numbers[familiar] % 5)
    np.testing.assert_array_equal(dataset.test.labels, (tested + 1) % 5)
    np.testing.assert_array_equal(dataset.test.images[:, 0, 0, 1], tested % 200 + 1)


def test_the_images_of_a_pair_are_the_channels_at_half_size(tmp_path):
    pairs = random(len(VIEWPOINTS), 2, 8, 8)
    train = replaced(tmp_path, "dat", "training", pairs).train
    assert train.images.shape == (len(VIEWPOINTS), 4, 4, 2)
    mean = pairs.astype(float).reshape(-1, 2, 4, 2, 4, 2).mean((3, 5))
    np.testing.assert_array_equal(
        np.moveaxis(train.images, -1, 1), np.floor(mean + 0.5).astype(np.uint8)
    )


def test_unpacked_files_are_as_good(tmp_path):
    packed = load(tmp_path / "packed")
    for path in (tmp_path / "packed").glob("*.gz"):
        (tmp_path / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    unpacked = SOURCES["smallnorb"].load(SOURCES["smallnorb"].find(tmp_path))
    np.testing.assert_array_equal(packed.train.images, unpacked.train.images)
    np.testing.assert_array_equal(packed.test.labels, unpacked.test.labels)


@pytest.mark.parametrize(
    ("kind", "array", "message"),
    [
        ("cat", np.zeros(3, np.int32), "324 pairs of images, but .* has 3 labels"),
        ("info", VIEWPOINTS[:, :3].copy(), "viewpoints of the shape \\[324, 3\\]"),
        ("dat", random(324, 1, 4, 4), "but stereo pairs with even sides"),
        ("dat", random(324, 2, 5, 4), "but stereo pairs with even sides"),
    ],
)
def test_files_that_do_not_fit_each_other(tmp_path, kind, array, message):
    with pytest.raises(UserError, match=message):
        replaced(tmp_path, kind, "testing", array)
