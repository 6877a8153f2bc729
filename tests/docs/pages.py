"""README, docs and notebooks, as the tests read them."""

import json
from pathlib import Path

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))

# Beside the notebooks are the pages that `make docs` makes of them.
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if page.parent.name != "notebooks"),
    *NOTEBOOKS,
]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def cells(notebook: Path, kind: str) -> list[str]:
    found = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def text(page: Path) -> str:
    """A page's Markdown; of a notebook that between its code."""
    if page.suffix == ".ipynb":
        return "\n\n".join(cells(page, "markdown"))
    return page.read_text(encoding="utf-8")
