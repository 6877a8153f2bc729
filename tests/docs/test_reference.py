"""The reference has every public name."""

import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import capsjax

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"
INDEX = (REFERENCE / "index.md").read_text(encoding="utf-8")


def test_what_the_library_gives_is_in_the_index():
    told = dict(re.findall(r"\[`(\w+)`\]\[([\w.]+)\]", INDEX))
    assert sorted(told) == sorted(capsjax.__all__)
    for name, target in told.items():
        room, _, same = target.rpartition(".")
        assert same == name
        assert getattr(importlib.import_module(room), name) is getattr(capsjax, name)


@pytest.mark.parametrize(
    "page", [p for p in REFERENCE.glob("*.md") if p.stem != "index"], ids=lambda page: page.stem
)
def test_a_page_is_made_of_a_room(page):
    room, *others = re.findall(r"^::: ([\w.]+)$", page.read_text(encoding="utf-8"), re.M)
    assert room == f"capsjax.{page.stem}"
    assert importlib.import_module(room).__doc__
    for other in others:
        assert pkgutil.resolve_name(other).__doc__
    assert f"({page.name})" in INDEX
