"""Files from elsewhere, broken at random: what is no good is told in a sentence."""

import gzip
import io
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.fuzz import broken, many, sentence_or
from train.config import FitConfig, to_values
from train.data import idx
from train.errors import UserError
from train.images import read_image
from train.run import load_run
from train.writers import read_metrics

PIXELS = np.random.default_rng(0).integers(0, 256, (12, 10, 3), np.uint8)
IDX = bytes([0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5]) + bytes(range(60))


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
@given(data=st.data(), zipped=st.booleans())
def test_idx_files(tmp_path, data, zipped):
    path = tmp_path / "images"
    path.write_bytes(data.draw(broken(gzip.compress(IDX, mtime=0) if zipped else IDX)))
    array = sentence_or(idx.read, path, ndim=3)
    if array is not None:
        assert array.dtype == np.uint8


CONFIG = json.dumps(
    {
        "config": to_values(FitConfig()),
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
    places += [(values["image_shape"], index) for index in range(3)]
    where, name = data.draw(st.sampled_from(places))
    where[name] = value
    require_a_run_or_a_sentence(tmp_path, json.dumps(values).encode())


@many
@given(data=st.data())
def test_broken_metrics_lose_lines_and_nothing_else(tmp_path, data):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(data.draw(broken(b'{"step": 1, "split": "train", "loss": 0.5}\n' * 3)))
    for row in read_metrics(path):
        assert type(row["step"]) is int


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF"])
def test_an_image_that_would_fill_the_memory_is_refused_unread(kind, tmp_path):
    """200 million pixels, in a file of kilobytes."""
    path = tmp_path / "bomb"
    Image.new("1" if kind != "GIF" else "L", (20_000, 10_000)).save(path, kind, optimize=True)
    with pytest.raises(UserError, match="is too large an image"):
        read_image(path, (8, 8, 1))


def test_a_gzip_stream_that_would_fill_the_memory_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(idx, "MOST_BYTES", 10**6)
    path = tmp_path / "bomb.gz"
    promised = (10**6).to_bytes(4, "big") + (1).to_bytes(4, "big") * 2
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + promised + bytes(10**6)))
    assert idx.read(path, ndim=3).nbytes == 10**6
    promised = (10**6 + 1).to_bytes(4, "big") + (1).to_bytes(4, "big") * 2
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3]) + promised + bytes(10**6 + 1)))
    with pytest.raises(UserError, match=r"promises 1,000,001 bytes .* more than"):
        idx.read(path, ndim=3)
