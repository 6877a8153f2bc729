"""A run is a folder: what is in it, and who may write there."""

import contextlib
import dataclasses
import fcntl
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from train.config.config_file import differences, from_values
from train.config.fit_config import FitConfig
from train.distributed import processes
from train.system.errors import UserError
from train.system.files import write_json, writing

CONFIG = "config.json"
SUMMARY = "summary.json"

LARGEST_SIDE = 2**15
"""Pixels, or channels; a damaged file may ask for more than any memory holds."""


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
    """Of each split of the data; none are known of a run from before there were any."""

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
        return [name for name in {**known, **present} if known.get(name) != present.get(name)]

    def save(self) -> None:
        """Writes `config.json`."""
        values = {
            "config": dataclasses.asdict(self.config),
            "image_shape": list(self.image_shape),
            "class_names": list(self.class_names),
            "data_fingerprints": dict(self.fingerprints),
        }
        write_json(self.folder / CONFIG, values)


_PARTS = tuple(part.name for part in vars(Run).values() if isinstance(part, _Part))


def load_run(folder: Path) -> Run:
    """Reads a run's `config.json`.

    Raises:
        UserError: if the folder holds no run, or its `config.json` is damaged.
    """
    path = folder / CONFIG
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(
            f"{folder} holds no run ({path.name} cannot be read): name the --out of a `fit`."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON ({error}): restore it or train anew.") from error
    match values:
        case {"config": config, "image_shape": [*shape], "class_names": [*names]} if (
            len(shape) == 3
            and all(type(side) is int and 0 < side <= LARGEST_SIDE for side in shape)
            and all(isinstance(name, str) for name in names)
        ):
            height, width, channels = shape
            known = from_values(config, path), (height, width, channels), tuple(names)
            return Run(folder, *known, dict(values.get("data_fingerprints", {})))
    raise UserError(
        f"{path} lacks the configuration, image shape or class names of a run: restore it or train "
        "anew."
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
    whether there is a run to go on with.

    Raises:
        UserError: if the folder holds another run and neither was asked for, holds something that
            is no run, cannot be written, or the run in it is another one.
    """
    folder = run.folder
    with writing(folder):
        contents = sorted(path.name for path in folder.iterdir()) if folder.exists() else []
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
    if is_run and resume:
        _require_same(load_run(folder), run)
    elif is_run:
        _delete_run(folder)
    with writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
        run.save()
    return is_run and resume


def _require_same(saved: Run, wanted: Run) -> None:
    different = differences(saved.config, wanted.config)
    for name in ("image_shape", "class_names"):
        if getattr(saved, name) != getattr(wanted, name):
            different.append(f"{name} of the data")
    different += [f"the {split} images" for split in saved.changed_splits(wanted.fingerprints)]
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
