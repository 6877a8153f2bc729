"""What README and docs link to is there, and what they name of this repository, too."""

import re
from pathlib import Path

import pytest

from tests.docs.pages import PAGES, ROOT, name, text


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", text(page), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What `#...` may name in a page: its headings, as Markdown and GitHub make them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.M)
    return {re.sub(r"[^\w\- ]", "", title).strip().lower().replace(" ", "-") for title in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_linked_is_there(page):
    for target in re.findall(r"\]\((?!https?:)([^)\s]+)\)", without_code(page)):
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_what_is_named_is_there(page):
    for path in re.findall(r"`((?:capsjax|train|parity|docs|tests)/[\w/.]*)`", text(page)):
        assert "NAME" in path or (ROOT / path).exists(), path


def test_the_site_names_every_page():
    listed = re.findall(r"^ +- (?:\w+: )?([\w/-]+)\.md$", (ROOT / "mkdocs.yml").read_text(), re.M)
    docs = ROOT / "docs"
    pages = {p.relative_to(docs).with_suffix("").as_posix() for p in PAGES if docs in p.parents}
    assert sorted(listed) == sorted(pages)
