"""Files from elsewhere, broken at random: what is no good is told in a sentence."""

import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz import broken, many, sentence_or
from tests.train.data.small_files import affnist_bytes, norb_bytes, npy_bytes, zip_bytes
from train.config.fit_config import FitConfig
from train.data.formats import mat, norb_matrix, numpy_files
from train.data.formats.images import read_image
from train.data.sources import npz
from train.run.folder import Run, load_run
from train.run.log import read_metrics
from train.system.errors import UserError

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)


def picture(kind: str) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(PIXELS)
    (image.convert("P") if kind == "GIF" else image).save(file, kind)
    return file.getvalue()


@many
@given(data=st.data(), kind=st.sampled_from(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM"]))
def test_images(tmp_path, data, kind):
    path = tmp_path / "image"
    path.write_bytes(data.draw(broken(picture(kind))))
    image = sentence_or(read_image, path, (8, 8, 1))
    if image is not None:
        assert (image.shape, image.dtype) == ((8, 8, 1), np.uint8)


@many
@given(data=st.data())
def test_norb_matrices(tmp_path, data):
    """The files that a user has unpacked: packed ones are verified."""
    path = tmp_path / "dat.mat"
    path.write_bytes(data.draw(broken(norb_bytes(PIXELS[None]))))
    array = sentence_or(norb_matrix.read, path, dtype=np.uint8, ndim=4)
    if array is not None:
        assert array.dtype == np.uint8


AFFNIST = affnist_bytes(PIXELS.reshape(-1, 3), np.arange(3))


@many
@given(data=st.data())
def test_matlab_files_of_affnist(tmp_path, data):
    """Of affNIST alone no checksums are published."""
    path = tmp_path / "x.mat"
    path.write_bytes(data.draw(broken(AFFNIST)))
    struct = sentence_or(mat.read, path, ["affNISTdata"])
    assert struct is None or len(struct) == 1


@many
@given(data=st.data())
def test_numpy_arrays(tmp_path, data):
    path = tmp_path / "x.npy"
    path.write_bytes(data.draw(broken(npy_bytes(PIXELS))))
    array = sentence_or(numpy_files.read, path)
    assert array is None or not array.dtype.hasobject


ARRAYS = zip_bytes(
    {
        f"{name}.npy": npy_bytes(array)
        for name, array in zip(
            npz.NAMES[0],
            3 * (PIXELS[None], np.zeros(1, int)),
            strict=True,
        )
    }
)


@many
@given(data=st.data())
def test_archives_of_numpy_arrays(tmp_path, data):
    path = tmp_path / "x.npz"
    path.write_bytes(data.draw(broken(ARRAYS)))
    dataset = sentence_or(npz.load, path, name="npz:x")
    if dataset is not None:
        assert dataset.train.images.dtype == np.uint8


CONFIG = json.dumps(
    {
        "config": asdict(FitConfig.of()),
        "image_shape": [8, 8, 1],
        "class_names": ["a", "b"],
    }
).encode()

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


def require_a_run_or_a_sentence(folder, content: bytes):
    (folder / "config.json").write_bytes(content)
    run = sentence_or(load_run, folder)
    if run is not None:
        assert all(type(size) is int and 0 < size < 2**16 for size in run.image_shape)
        assert all(type(name) is str for name in run.class_names)
        assert isinstance(run.config, FitConfig)


@many
@given(data=st.data())
def test_broken_configurations(tmp_path, data):
    require_a_run_or_a_sentence(tmp_path, data.draw(broken(CONFIG)))


@many
@given(data=st.data(), value=anything)
def test_configurations_with_any_value_in_any_place(tmp_path, data, value):
    values = json.loads(CONFIG)
    places = [(values, name) for name in values]
    places += [(values["config"], name) for name in values["config"]]
    groups = [group for group in values["config"].values() if isinstance(group, dict)]
    places += [(group, name) for group in groups for name in group]
    places += [(values["image_shape"], index) for index in range(3)]
    where, name = data.draw(st.sampled_from(places))
    where[name] = value
    require_a_run_or_a_sentence(tmp_path, json.dumps(values).encode())


@many
@given(data=st.data())
def test_broken_metrics_lose_lines_and_nothing_else(tmp_path, data):
    path = tmp_path / "metrics.jsonl"
    line = b'{"step": 1, "split": "train", "loss": 0.5}\n'
    path.write_bytes(data.draw(broken(line * 3)) + b"\n" + line)
    rows = read_metrics(path)
    assert rows[-1] == json.loads(line)
    assert all(type(row["step"]) is int for row in rows)


@many
@given(
    rows=st.lists(
        st.dictionaries(st.sampled_from(["step", "split", "loss", "accuracy"]), anything),
        max_size=3,
    )
)
def test_metrics_and_results_with_any_value_in_any_place(tmp_path, rows):
    run = Run(tmp_path, FitConfig.of(), (8, 8, 1), ("a", "b"))
    run.metrics.write_text("\n".join(map(json.dumps, rows)))
    for row in read_metrics(run.metrics):
        assert row["split"] in ("train", "validation", "test")
        assert all(value is None or np.isfinite(row[k]) for k, value in row.items() if k != "split")
    run.summary.write_text(json.dumps(rows[0] if rows else rows))
    assert run.result() is None  # no result has so few values


def test_an_image_that_would_fill_the_memory_is_refused_unread(tmp_path):
    """90 million pixels, in a file of kilobytes."""
    path = tmp_path / "bomb"
    Image.new("1", (9_500, 9_500)).save(path, "PNG")
    with pytest.raises(UserError, match="is too large an image"):
        read_image(path, (8, 8, 1))
