"""Runs notebooks, and makes of each the page that the site shows: its text, code and results.

`python docs/notebooks/execute.py FILE.ipynb ... [--out FOLDER]` writes `NAME.md` and its pictures
`NAME-N.png`, beside the notebook if no folder is given. A cell that raises ends it.

A notebook is a list of cells, and these are plain Python: running them takes no more than the
environment that they are about. Jupyter and its thirty packages are for those who edit them.
"""

import argparse
import ast
import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # before anything shows a window
import matplotlib.pyplot as plt


def execute(notebook: Path, out: Path) -> Path:
    """Runs a notebook in a namespace of its own; the page that it writes into `out`."""
    out.mkdir(parents=True, exist_ok=True)
    page = out / f"{notebook.stem}.md"
    names: dict[str, Any] = {"__name__": "__main__"}
    parts, pictures = [], 0
    for number, (kind, source) in enumerate(cells(notebook), 1):
        if kind == "markdown":
            parts.append(source)
            continue
        parts.append(f"```python\n{source}\n```")
        if text := run(source, names, f"{notebook.name}, cell {number}"):
            parts.append(f"```text\n{text}\n```")
        for figure in map(plt.figure, plt.get_fignums()):
            pictures += 1
            file = out / f"{notebook.stem}-{pictures}.png"
            figure.savefig(file, dpi=80, bbox_inches="tight")
            parts.append(f"![{', '.join(titles(figure))}]({file.name})")
        plt.close("all")
    page.write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    return page


def cells(notebook: Path) -> Iterator[tuple[str, str]]:
    """The kind and the source of each cell."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        yield cell["cell_type"], "".join(cell["source"]).strip()


def run(source: str, names: dict[str, Any], where: str) -> str:
    """What a cell prints, and the value of its last line if no semicolon ends it."""
    tree, last = ast.parse(source, where), None
    if tree.body and isinstance(tree.body[-1], ast.Expr) and not source.endswith(";"):
        last = tree.body.pop()
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(tree, where, "exec"), names)
        if last is not None:
            value = eval(compile(ast.Expression(last.value), where, "eval"), names)
            if value is not None:
                print(repr(value))
    return printed.getvalue().rstrip()


def titles(figure: plt.Figure) -> list[str]:
    """What a figure's panels are called, for those who do not see it."""
    named = [figure.get_suptitle(), *(axes.get_title() for axes in figure.axes)]
    return [title.replace("\n", " ") for title in named if title] or ["figure"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="FILE.ipynb")
    parser.add_argument("--out", type=lambda folder: Path(folder).resolve(), metavar="FOLDER")
    options = parser.parse_args()
    for notebook in [file.resolve() for file in options.notebooks]:  # a cell may change the folder
        print(execute(notebook, options.out or notebook.parent))
