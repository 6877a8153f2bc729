"""On the site, a link to a notebook leads to the page that `execute.py` has made of it."""

import re
from typing import Any


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called by mkdocs for each page."""
    return re.sub(r"(\]\([\w./]+)\.ipynb\b", r"\1.md", markdown)
