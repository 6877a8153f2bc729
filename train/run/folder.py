"""A run is a folder: what is in it, and who may write there."""

import contextlib
import dataclasses
import fcntl
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from train.config.config_file import differences, from_values
from train.config.fit_config import FitConfig
from train.data import labels_per_image
from train.distributed import processes
from train.system.errors import UserError
from train.system.files import read_json, write_json, writing

CONFIG = "config.json"
SUMMARY = "summary.json"

LARGEST_SIDE, LARGEST_IMAGE = 2**15, 2**26
"""Pixels, or channels, and numbers of an image; a damaged file may ask for more than memory has."""

ROUTING = "routing"
"""What the fingerprint of the code of an own routing is called among those of the data."""


class _Part:
    """A file or folder of a run, by its name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, run: "Run", _owner: type) -> Path:
        return run.folder / self.name


@dataclass(frozen=True)
class Run:
    """A run's folder, what is known of it before its weights are read, and the paths inside."""

    folder: Path
    config: FitConfig
    image_shape: tuple[int, int, int]  # height, width, channels
    class_names: tuple[str, ...]
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """Of each split of the data, and of the code of an own routing; older runs have none."""

    labels_per_image: int | None = 1
    """Classes that an image shows, as of `Examples`."""

    metrics = _Part("metrics.jsonl")  # a line for each log step and each evaluation
    summary = _Part(SUMMARY)  # the result
    checkpoints = _Part("checkpoints")
    figures = _Part("figures")
    events = _Part("tensorboard")
    profile = _Part("profile")  # what `fit --profile` records
    evaluations = _Part("evaluations")  # what `evaluate` printed
    bad_numbers = _Part("bad-numbers.json")  # why the run was given up

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    def changed_splits(self, present: Mapping[str, str]) -> list[str]:
        """The splits whose fingerprints were others for this run, as far as that is known."""
        known = self.fingerprints or present
        names = [name for name in {**known, **present} if name != ROUTING]
        return [name for name in names if known.get(name) != present.get(name)]

    def result(self) -> dict[str, Any] | None:
        """What `summary.json` holds; None before there is one, or where it is damaged."""
        try:
            values = read_json(self.summary)
        except (OSError, ValueError):
            return None
        numbers = [values.get(name) for name in _RESULT] if isinstance(values, dict) else [None]
        return values if all(type(number) in (int, float) for number in numbers) else None

    def save(self) -> None:
        """Writes `config.json`."""
        values = {
            "config": dataclasses.asdict(self.config),
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            "labels_per_image": self.labels_per_image,
            "data_fingerprints": dict(self.fingerprints),
        }
        write_json(self.folder / CONFIG, values)


_RESULT = (
    *("steps", "parameters", "images_per_second", "wall_seconds"),
    *("test.accuracy", "test.error_percent"),
)
"""Numbers that every result has."""

_PARTS = tuple(part.name for part in vars(Run).values() if isinstance(part, _Part))


def load_run(folder: Path) -> Run:
    """Reads a run's `config.json`.

    Raises:
        UserError: if the folder holds no run, its `config.json` is damaged, or a part of it is a
            link, through which something else would be read or written.
    """
    path = folder / CONFIG
    try:
        values = read_json(path)
    except OSError as error:
        raise UserError(
            f"{folder} holds no run ({path.name} cannot be read): name the --out of a `fit`."
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or train anew.") from error
    _require_no_links(folder)
    match values:
        case {"config": config, "image_shape": [*shape], "class_names": [*names]} if (
            len(shape) == 3
            and all(type(side) is int and 0 < side <= LARGEST_SIDE for side in shape)
            and math.prod(shape) <= LARGEST_IMAGE
            and names
            and all(isinstance(name, str) for name in names)
        ):
            height, width, channels = shape
            known = from_values(config, path), (height, width, channels), tuple(names)
            many = values.get("labels_per_image", labels_per_image(known[0].data.dataset))
            prints = values.get("data_fingerprints", {})
            if (
                (many is None or (type(many) is int and 0 < many <= len(names)))
                and isinstance(prints, dict)
                and all(isinstance(value, str) for value in prints.values())
            ):
                return Run(folder, *known, prints, many)
    raise UserError(
        f"{path} lacks the configuration, image shape or class names of a run, or has what none "
        "has there: restore it or train anew."
    )


def _require_no_links(folder: Path) -> None:
    """A run lies in its folder alone: what is written stays in there."""
    for name in _PARTS:
        inside = (  # of which some may be gone again, where the run is in training
            Path(parent, inner)
            for parent, folders, files in os.walk(folder / name)
            for inner in (*folders, *files)
        )
        for path in (folder / name, *inside):
            if path.is_symlink():
                raise UserError(
                    f"{path} is a link, but a run reads and writes in its own folder alone: put "
                    "what it names in its place, or remove it."
                )


@contextlib.contextmanager
def entered(run: Run, *, resume: bool, overwrite: bool) -> Iterator[bool]:
    """Locks and prepares the folder of a run that is about to begin, once for all processes.

    Yields what `prepare_folder` returns, whose arguments it has.

    Raises:
        UserError: as `prepare_folder` and `locked`, or if a process does not see the folder that
            the first one has prepared.
    """
    with contextlib.ExitStack() as lock:
        resuming = False
        with processes.all_or_none():
            if processes.is_first():
                with writing(run.folder):
                    run.folder.mkdir(parents=True, exist_ok=True)
                lock.enter_context(locked(run.folder))
                resuming = prepare_folder(run, resume=resume, overwrite=overwrite)
        with processes.all_or_none():
            if not (run.folder / CONFIG).is_file():
                raise UserError(
                    f"{run.folder} is not the same folder for all processes: choose an --out on a "
                    "file system that they share."
                )
        yield processes.any_process(resuming)  # the first alone may know of one


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps other processes from training in a folder that exists.

    The system keeps the lock on the folder itself: it leaves no file, and ends with the process,
    however that ends. A file system without such locks is taken as it is.

    Raises:
        UserError: if another process is training there.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"another process is training in {folder}: wait for it, end it, or choose another "
                "--out."
            ) from error
        except OSError:
            pass
        yield
    finally:
        os.close(descriptor)


def prepare_folder(run: Run, *, resume: bool, overwrite: bool) -> bool:
    """Makes the folder of a run that is about to begin, or checks that it may go on in there.

    `resume` goes on with the run that is there, `overwrite` deletes it, if there is one. Returns
    whether there is a run to go on with, which is left as it is.

    Raises:
        UserError: if the folder holds another run and neither was asked for, holds something that
            is no run, cannot be written, or the run in it is another one.
    """
    folder = run.folder
    is_run = require_free(folder, resume=resume, overwrite=overwrite)
    if is_run and resume:
        _require_same(load_run(folder), run)
    elif is_run:
        _delete_run(folder)
    if not (is_run and resume):
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
            run.save()
    return is_run and resume


def require_free(folder: Path, *, resume: bool, overwrite: bool) -> bool:
    """Refuses a folder with another run, or with what is none; returns whether it has a run.

    Raises:
        UserError: as `prepare_folder`.
    """
    with writing(folder):
        contents = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
    # Of a run that died at its first file.
    contents = [name for name in contents if name != f".{CONFIG}.new"]
    is_run = CONFIG in contents
    if contents and not is_run:
        raise UserError(
            f"{folder} is not empty and holds no run ({contents[0]} is in it): "
            "choose another --out."
        )
    if is_run and not (resume or overwrite):
        raise UserError(
            f"{folder} holds a run already: replace it (--overwrite), go on with it (fit "
            "--resume), or choose another --out."
        )
    return is_run


def _require_same(saved: Run, wanted: Run) -> None:
    different = differences(saved.config, wanted.config)
    for name in ("image_shape", "class_names"):
        if getattr(saved, name) != getattr(wanted, name):
            different.append(f"{name} of the data")
    different += [f"the {split} images" for split in saved.changed_splits(wanted.fingerprints)]
    code = saved.fingerprints.get(ROUTING)
    if code is not None and code != wanted.fingerprints.get(ROUTING):
        different.append(f"the code of {wanted.config.model.routing}")
    if different:
        raise UserError(
            f"{saved.folder} was trained with another configuration and cannot be resumed with "
            f"this one, which differs in: {'; '.join(different)}."
        )


def _delete_run(folder: Path) -> None:
    """Deletes the parts of a run, `config.json` last, and leaves anything else."""
    with writing(folder):
        for name in (*_PARTS, CONFIG):
            path = folder / name
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
