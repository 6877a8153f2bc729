"""The folder of a study's results: one process at a time in it, and the files of every study."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from train.run.folder import locked
from train.system.errors import UserError
from train.system.files import write_figure, write_json, write_whole, writing
from train.system.machine import describe_machine


@contextlib.contextmanager
def results_folder(out: Path) -> Iterator[None]:
    """Makes a folder and keeps other processes out; an error takes it away again if it is empty.

    Raises:
        UserError: if it cannot be made, or another process is at work there.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    try:
        with locked(out):
            yield
    except UserError:
        with contextlib.suppress(OSError):
            out.rmdir()
        raise


def write_results(
    out: Path, command: str, page: str, figures: Mapping[str, Figure], values: Mapping[str, Any]
) -> list[str]:
    """Writes `table.md`, figures by the names of their files, and `results.json`.

    The latter has the plain `values` beside the command and the machine. Returns the names.

    Raises:
        UserError: if a file cannot be written.
    """
    machine = describe_machine(("jax", "flax", "optax"))
    with writing(out):
        write_whole(out / "table.md", page.encode())
        write_json(out / "results.json", {"command": command, **machine, **values})
        for name, figure in figures.items():
            write_figure(out / name, figure)
    return ["table.md", "results.json", *figures]
