"""smallNORB from files in its real layout: order, classes, stereo pairs and the splits."""

import gzip

import numpy as np
import pytest
import tensorflow_datasets as tfds

from tests.train.data.small_files import VIEWPOINTS, norb_bytes, random, small_smallnorb
from train.data import catalog, load_dataset
from train.data.sources import smallnorb
from train.system.errors import UserError

FAMILIAR = {
    "azimuth": np.isin(10 * VIEWPOINTS[:, 2], [0, 20, 40, 300, 320, 340]),
    "elevation": VIEWPOINTS[:, 1] < 3,
}


def load(monkeypatch, tmp_path, name):
    source = small_smallnorb(tmp_path, smallnorb.SOURCES[name])
    monkeypatch.setitem(catalog.SOURCES, name, source)
    return load_dataset(name, data_dir=tmp_path)


def test_the_table_equals_the_one_in_tensorflow_datasets():
    stock = tfds.builder_cls("smallnorb").url_infos
    assert {url: (int(i.size), i.checksum, i.filename) for url, i in stock.items()} == {
        file.url: (file.fingerprint.size, file.fingerprint.sha256, file.name)
        for file in smallnorb.FILES
    }


def test_the_class_names_equal_those_in_tensorflow_datasets(tmp_path):
    features = tfds.builder_cls("smallnorb")(data_dir=tmp_path).info.features
    assert tuple(features["label_category"].names) == smallnorb.SmallNorb("x").class_names


def test_the_standard_split(monkeypatch, tmp_path):
    dataset = load(monkeypatch, tmp_path, "smallnorb")
    assert dataset.image_shape == (4, 4, 2)
    for split, more in ((dataset.train, 0), (dataset.test, 1)):
        numbers = np.arange(len(VIEWPOINTS))
        np.testing.assert_array_equal(split.images[:, 0, 0, 0], numbers % 200 + more)
        np.testing.assert_array_equal(split.labels, (numbers + more) % 5)


@pytest.mark.parametrize("kind", FAMILIAR)
@pytest.mark.parametrize("ending", ["", "-familiar"])
def test_novel_and_familiar_viewpoints(monkeypatch, tmp_path, kind, ending):
    dataset = load(monkeypatch, tmp_path, f"smallnorb-{kind}{ending}")
    familiar, numbers = FAMILIAR[kind], np.arange(len(VIEWPOINTS))
    assert familiar.mean() == pytest.approx(1 / 3)
    tested = numbers[familiar if ending else ~familiar]
    np.testing.assert_array_equal(dataset.train.labels, numbers[familiar] % 5)
    np.testing.assert_array_equal(dataset.test.labels, (tested + 1) % 5)
    np.testing.assert_array_equal(dataset.test.images[:, 0, 0, 1], tested % 200 + 1)


def test_the_images_of_a_pair_are_the_channels(tmp_path):
    source = small_smallnorb(tmp_path)
    dat = tmp_path / smallnorb.file_name("training", "dat")
    pairs = random(len(VIEWPOINTS), 2, 8, 8)
    dat.write_bytes(gzip.compress(norb_bytes(pairs)))
    images = source.read({file.name: tmp_path / file.name for file in source.files})
    assert images.train.images.shape == (len(VIEWPOINTS), 4, 4, 2)
    mean = pairs.astype(float).reshape(-1, 2, 4, 2, 4, 2).mean((3, 5))
    np.testing.assert_array_equal(
        np.moveaxis(images.train.images, -1, 1), np.floor(mean + 0.5).astype(np.uint8)
    )


def test_unpacked_files_are_as_good(monkeypatch, tmp_path):
    packed = load(monkeypatch, tmp_path, "smallnorb")
    for path in tmp_path.glob("*.gz"):
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    unpacked = load_dataset("smallnorb", data_dir=tmp_path)
    np.testing.assert_array_equal(packed.train.images, unpacked.train.images)
    np.testing.assert_array_equal(packed.test.labels, unpacked.test.labels)


def test_a_missing_file_is_named_with_where_to_get_it(tmp_path):
    with pytest.raises(UserError, match="training-dat.mat.gz does not exist: .*cs.nyu.edu.*or sm"):
        load_dataset("smallnorb", data_dir=tmp_path)


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
    source = small_smallnorb(tmp_path)
    (tmp_path / smallnorb.file_name("testing", kind)).write_bytes(norb_bytes(array))
    with pytest.raises(UserError, match=message):
        source.read({file.name: tmp_path / file.name for file in source.files})


def test_halves_are_rounded_up():
    image = np.array([[0, 1, 255, 255], [0, 1, 255, 254]], np.uint8)
    assert smallnorb.halved(image).tolist() == [[1, 255]]
