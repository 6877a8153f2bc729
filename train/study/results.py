"""The folder of a study's results: one process at a time in it, and the files of every study."""

import contextlib
import datetime
import json
import subprocess
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from matplotlib.figure import Figure

from train.run.folder import locked
from train.system.errors import CommandError, UserError
from train.system.files import write_figure, write_json, write_whole, writing
from train.system.machine import available_cores, describe_machine

ROOT = Path(__file__).parents[2]
"""The checkout."""

RESULTS = "results.json"
COMPARISON = "comparison"
"""The study that `compare` makes."""


@contextlib.contextmanager
def results_folder(out: Path, study: str) -> Iterator[None]:
    """Makes a folder and keeps other processes out; an error takes it away again if it is empty.

    `study` is what it is for: the sentence of a claim, or `COMPARISON`. A UserError if the folder
    cannot be made, another process is at work there, or it has the results of another study.
    """
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    with locked(out):
        try:
            _require_own(out / RESULTS, study)
            yield
        except CommandError:
            with contextlib.suppress(OSError):
                out.rmdir()  # while no other process is let in
            raise


def _require_own(path: Path, study: str) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before = found.get("claim", COMPARISON)
    except (OSError, ValueError, AttributeError):
        return
    if before != study:
        raise UserError(f"{path} is of another study ({before}): choose another --out.")


def write_results(
    out: Path, command: str, page: str, figures: Mapping[str, Figure], values: Mapping[str, Any]
) -> list[str]:
    """Writes `table.md`, figures by the names of their files, and `results.json`.

    The latter has the plain `values` beside their `origin`. Returns the names. A UserError if a
    file cannot be written.
    """
    with writing(out):
        write_whole(out / "table.md", page.encode())
        write_json(out / RESULTS, {**origin(command), **values})
        for name, figure in figures.items():
            write_figure(out / name, figure)
    return ["table.md", RESULTS, *figures]


def kept(path: Path, differing: Callable[[Any], str], overwrite: bool) -> dict[str, Any] | None:
    """The plain values of a file that was written before, unless there is none or it is damaged.

    Those of other options, which `differing` says in words, are a UserError, or None if they are
    to be overwritten.
    """
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        options = differing(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    if options and not overwrite:
        raise UserError(
            f"{path} was measured with {options}: choose another --out, or --overwrite to measure "
            "it anew."
        )
    return None if options else values


def origin(command: str) -> dict[str, Any]:
    """What is known of where a result comes from: command, commit, date, machine and versions."""
    return {
        "command": command,
        "commit": _git("rev-parse", "HEAD"),
        "changed_since": bool(_git("status", "--porcelain", "--untracked-files=no")),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "device_kind": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cores": available_cores(),
        **describe_machine(("jax", "jaxlib", "flax", "optax", "numpy")),
    }


def brief(values: Mapping[str, Any]) -> dict[str, Any]:
    """Of an `origin` what tells where a part of a result comes from."""
    names = ("commit", "changed_since", "date", "device_kind", "cores", "jax")
    return {name: values.get(name) for name in names}


def _git(*arguments: str) -> str | None:
    """What git says of this checkout; None where there is no git."""
    try:
        said = subprocess.run(
            ["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return said.stdout.strip()
