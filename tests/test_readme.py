"""The README is short, and what it shows works as shown."""

import re
from pathlib import Path

import jax
import numpy as np

README = Path(__file__).parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def test_it_is_read_in_minutes():
    assert len(TEXT.splitlines()) <= 150


def test_its_picture_is_small():
    (picture,) = re.findall(r"!\[.*?\]\((.*?)\)", TEXT)
    assert (README.parent / picture).stat().st_size < 200_000


PREDICTS, LAYER = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_three_lines_predict():
    assert len([line for line in PREDICTS.splitlines() if line]) == 3
    names: dict = {"images": np.zeros((5, 8, 8, 1), np.uint8)}
    exec(PREDICTS, names)
    assert set(names["prediction"].classes) < set("0123456789")


def test_the_layer_in_a_model_runs():
    names: dict = {}
    with jax.numpy_dtype_promotion("standard"):  # a reader's
        exec(LAYER, names)
    assert names["lengths"].shape == (8, 5)
    assert names["coupling"].shape == (8, 400, 5)
    assert 0 < names["loss"] < 5
