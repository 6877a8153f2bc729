"""Checkpoints of a run, with Orbax: the last two and the best one are kept.

What a checkpoint holds is `TrainState` in `train/learn/training_state.py`.
"""

import functools
import hashlib
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from train.distributed import processes
from train.system.errors import UserError
from train.system.quirks import abandoned_work_collected, quieten_orbax, reason

KEPT_LAST = 2
ACCURACY, OLD_ACCURACY = "validation_accuracy", "test_accuracy"
"""What the best is chosen by; before version 0.3 that was the other."""
DIGEST = "sha256"

_READ_BY_OTHERS = "another process cannot read it"

Which = Literal["last", "best"]


class Checkpoints(AbstractContextManager["Checkpoints"]):
    """The checkpoints in one folder, each named by its step.

    A checkpoint appears under its name only when it is complete, whenever the program ends. One
    that is damaged is named on stderr and set aside, in the folder above. Where they are to be read
    only, as where a `fit` may be at work, nothing is changed, and it is passed over; else the
    folder is made where it does not exist.

    Raises:
        UserError: if the folder cannot be read or written.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        quieten_orbax()
        self._folder = folder.absolute()
        self._read_only = read_only
        self._damaged: set[int] = set()
        self._accuracies: dict[int, float] = {}
        self._writer: Any = None
        self._pending: Any = None
        with processes.all_or_none():
            if read_only and not self._folder.is_dir():
                raise self._nothing()
            if not read_only and processes.is_first():
                with _reporting(self._folder):
                    self._folder.mkdir(parents=True, exist_ok=True)
        steps, unread = self.steps(), {}
        for step in steps:
            metadata, why = None, _READ_BY_OTHERS
            try:
                metadata = self._metadata(step)
            except Exception as error:  # whatever Orbax and the file system raise
                why = reason(error)
            if processes.any_process(metadata is None) or metadata is None:
                unread[step] = why
            elif (accuracy := _accuracy(metadata)) is not None:
                self._accuracies[step] = accuracy
        # Where none can be read, it may be the disk: `load` tells, and nothing is changed.
        for step, why in unread.items() if len(unread) < len(steps) else ():
            self._set_aside(step, why)

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending, as the first process sees them."""
        seen = self._folder.iterdir() if processes.is_first() else ()
        names = (path.name for path in seen if path.is_dir())
        found = {int(name) for name in names if name.isdecimal()} - self._damaged
        return processes.as_in_first(sorted(found))

    def best_step(self, steps: Sequence[int] | None = None) -> int | None:
        """Of all steps, or of some, the one with the highest validation accuracy, if there is one.

        Of equals it is the later.
        """
        some = self.steps() if steps is None else steps
        rated = [step for step in some if step in self._accuracies]
        return max(rated, key=lambda step: (self._accuracies[step], step), default=None)

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """Whether to keep each checkpoint, in the order of their steps; Orbax asks this."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-KEPT_LAST:], self.best_step(steps)}
        return [step in kept for step in steps]

    def save(self, state: Any, accuracy: float | None = None) -> None:
        """Begins to save a state under its step and returns; a step that is there is left alone.

        The state must stay as it is: where a step is about to take over its memory, it is a
        `snapshot`. The accuracy, on the validation examples, is what the best is chosen by.

        Raises:
            UserError: if this save or the one before cannot be written.
        """
        step, values = int(state.step), state._asdict()
        with _reporting(self._folder):
            self._wait()
            if step in self.steps():
                return
            metadata: dict[str, Any] = {DIGEST: checksum(values, accuracy)}
            if accuracy is not None:
                metadata[ACCURACY] = self._accuracies[step] = accuracy
            if self._writer is None:
                self._writer = _orbax().training.Checkpointer(
                    self._folder, preservation_policy=self
                )
            self._pending = self._writer.save_async(
                step, processes.as_global(values), custom_metadata=metadata, force=True
            )

    def load(self, like: Any, which: Which = "last") -> Any:
        """Loads a state; damaged last checkpoints are set aside for one before that can be read.

        `like` is a state of the wanted shapes, dtypes and placement on devices; "best" is the
        checkpoint with the highest validation accuracy.

        Raises:
            UserError: if there is no checkpoint, or none that can be read.
        """
        steps, best = self.steps(), self.best_step()
        if which == "best" and (steps or self._damaged):
            if best is None:
                raise UserError(
                    f"none of the checkpoints in {self._folder} is known to be the best: the run "
                    "set no validation images aside; take the last one."
                )
            steps = [best]
        if not steps and not self._damaged:
            raise self._nothing()
        values = like._asdict()
        abstract = jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
            processes.as_global(values),
        )
        unread: dict[int, str] = {}
        for step in reversed(steps):
            found, why = self._read(step, abstract)
            if found is not None:
                for later, damage in unread.items():
                    self._set_aside(later, damage)
                return type(like)(**processes.to_local(found, values))
            if which == "best":
                raise UserError(
                    f"checkpoint {step} in {self._folder} is damaged or of another network "
                    f"({why}): take the last one, or train anew."
                )
            unread[step] = why
        causes = "; ".join(f"{step}: {why}" for step, why in unread.items())
        raise UserError(
            f"none of the checkpoints in {self._folder} can be read ({causes}): if it is not for "
            "now alone, as on a full memory or a network disk, they are damaged or of another "
            "network, and there is nothing but to train anew. They stay as they are."
        )

    def __exit__(self, *_: object) -> None:
        """Waits until everything is written.

        Raises:
            UserError: if the last save could not be written.
        """
        with _reporting(self._folder):
            self._wait()
            self._close_writer()

    def _wait(self) -> None:
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def _close_writer(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.close()

    def _nothing(self) -> UserError:
        return UserError(f"{self._folder} holds no complete checkpoint: train the run first.")

    def _metadata(self, step: int) -> dict[str, Any]:
        return dict(_orbax().metadata(self._folder / str(step)).custom_metadata or {})

    def _read(self, step: int, abstract: Any) -> tuple[Any, str]:
        """A checkpoint's values, or None and why they cannot be read in one of the processes."""
        found, why = None, _READ_BY_OTHERS
        try:
            with abandoned_work_collected():
                values = _orbax().load(self._folder / str(step), abstract)
            metadata = self._metadata(step)
            if metadata.get(DIGEST) != checksum(values, _accuracy(metadata)):
                raise ValueError("its numbers are not those that were saved")
            found = values
        except Exception as error:  # whatever Orbax and the file system raise for a damaged file
            why = reason(error)
        return (None, why) if processes.any_process(found is None) else (found, "")

    def _set_aside(self, step: int, why: str) -> None:
        self._damaged.add(step)
        _print(f"Checkpoint {step} in {self._folder} is damaged ({why}): left out.")
        if self._read_only:
            return
        aside = self._folder.parent / f"damaged-checkpoint-{step}"
        with processes.all_or_none(), _reporting(self._folder):
            self._close_writer()
            if processes.is_first():
                if aside.exists():
                    shutil.rmtree(aside)
                (self._folder / str(step)).rename(aside)
        # Its step may be saved again.
        self._damaged.discard(step)
        _print(f"It is set aside as {aside}.")


@functools.cache
def _orbax() -> Any:
    """Orbax, whose import takes a quarter of a second that the first step would wait for."""
    from orbax.checkpoint import v1

    return v1


@jax.jit
def snapshot(state: Any) -> Any:
    """A copy of a state that a later step, to which the original is donated, cannot write over."""
    return jax.tree.map(jnp.copy, state)


def _accuracy(metadata: Mapping[str, Any]) -> float | None:
    """What a checkpoint is rated by, if it is."""
    return metadata.get(ACCURACY, metadata.get(OLD_ACCURACY))


def checksum(values: Any, accuracy: float | None = None) -> str:
    """Of all that a checkpoint holds, whose bits may flip on a disk unseen by Orbax."""
    found = hashlib.sha256(repr(accuracy).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        found.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _print(text: str) -> None:
    if processes.is_first():
        print(text, file=sys.stderr)


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    try:
        with abandoned_work_collected():
            yield
    except (UserError, jax.errors.JaxRuntimeError):
        raise
    except Exception as error:
        if processes.says_loss(error):
            raise
        raise UserError(
            f"checkpoints cannot be written to {folder} ({reason(error)}): make room or give "
            "permission there; what was complete is kept, and --resume goes on from it."
        ) from error
