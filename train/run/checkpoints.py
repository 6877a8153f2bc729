"""Checkpoints of a run, with Orbax: the last two and the best one are kept."""

import errno
import functools
import gc
import hashlib
import inspect
import logging
import os
import re
import shutil
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from orbax.checkpoint import v1 as ocp

from train.distributed import processes
from train.system.errors import UserError

KEPT_LAST = 2
ACCURACY = "test_accuracy"
DIGEST = "sha256"

Which = Literal["last", "best"]


class _LastAndBest:
    """What is kept of a folder's checkpoints, for Orbax to ask.

    Args:
        ratings: test accuracy by step, of those where it is known; it may change.
    """

    def __init__(self, ratings: Mapping[int, float]) -> None:
        self._ratings = ratings

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        """A yes or no for each, which come in the order of their steps."""
        del context
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = {*steps[-KEPT_LAST:], _best(self._ratings, steps)}
        return [step in kept for step in steps]


def _best(ratings: Mapping[int, float], steps: Sequence[int]) -> int | None:
    """The step with the highest rating, the later one of equals; None without any."""
    rated = [step for step in steps if step in ratings]
    return max(rated, key=lambda step: (ratings[step], step), default=None)


class Checkpoints:
    """The checkpoints in one folder, each named by its step.

    A checkpoint appears under its name only when it is complete, whenever the program ends. One
    that is damaged is set aside, in the folder above, and told; where nothing may be changed it is
    passed over.

    Args:
        folder: where they are; made where it does not exist.
        read_only: change nothing in the folder, where a `fit` may be at work.

    Raises:
        UserError: if the folder cannot be read or written.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        _quieten_orbax()
        self._folder = folder.absolute()
        self._read_only = read_only
        if read_only and not self._folder.is_dir():
            raise self._nothing()
        self._damaged: set[int] = set()
        self._ratings: dict[int, float] = {}
        self._writer: ocp.training.Checkpointer | None = None
        self._pending: Any = None
        if not read_only:
            with _reporting(self._folder), processes.all_or_none():
                if processes.is_first():
                    self._folder.mkdir(parents=True, exist_ok=True)
        for step in self.steps():
            try:
                metadata = self._metadata(step)
            # Whatever Orbax and the file system raise for a damaged file.
            except Exception as error:
                self._set_aside(step, _reason(error))
                continue
            if ACCURACY in metadata:
                self._ratings[step] = metadata[ACCURACY]

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        names = (path.name for path in self._folder.iterdir() if path.is_dir())
        return sorted({int(name) for name in names if name.isdecimal()} - self._damaged)

    def best_step(self) -> int | None:
        """The step with the highest test accuracy, the later one of equals; None without any."""
        return _best(self._ratings, self.steps())

    def save(self, state: Any, test_accuracy: float | None = None) -> None:
        """Begins to save a state under its step and returns; a step that is there is left alone.

        Args:
            state: the training state, which must stay as it is: where a step is about to take
                over its memory, a `snapshot` of it.
            test_accuracy: what the best checkpoint is chosen by.

        Raises:
            UserError: if this save or the one before cannot be written.
        """
        step, values = int(state.step), state._asdict()
        with _reporting(self._folder):
            self._wait()
            if step in self.steps():
                return
            metadata: dict[str, Any] = {DIGEST: _digest(values, test_accuracy)}
            if test_accuracy is not None:
                metadata[ACCURACY] = self._ratings[step] = test_accuracy
            if self._writer is None:
                self._writer = ocp.training.Checkpointer(
                    self._folder, preservation_policy=_LastAndBest(self._ratings)
                )
            self._pending = self._writer.save_async(
                step, processes.as_global(values), custom_metadata=metadata, force=True
            )

    def load(self, like: Any, which: Which = "last") -> Any:
        """Loads a checkpoint; a damaged last one is set aside for the one before.

        Args:
            like: a state of the wanted shapes, dtypes and placement on devices.
            which: the newest checkpoint, or the one with the highest test accuracy.

        Returns:
            The state.

        Raises:
            UserError: if there is no checkpoint, or none that can be read.
        """
        steps = self.steps()
        if which == "best":
            best = self.best_step()
            steps = steps if best is None else [best]
        if not steps and not self._damaged:
            raise self._nothing()
        values = like._asdict()
        abstract = jax.tree.map(_abstract, processes.as_global(values))
        for step in reversed(steps):
            found, reason = self._read(step, abstract)
            if found is not None:
                return type(like)(**processes.to_local(found, values))
            if which == "best":
                raise UserError(
                    f"checkpoint {step} in {self._folder} is damaged or of another network "
                    f"({reason}): take the last one, or train anew."
                )
            self._set_aside(step, reason)
        raise UserError(
            f"none of the checkpoints in {self._folder} can be read, they are damaged or of "
            "another network: train anew."
        )

    def _nothing(self) -> UserError:
        return UserError(f"{self._folder} holds no complete checkpoint: train the run first.")

    def _metadata(self, step: int) -> dict[str, Any]:
        """What was saved beside the state."""
        return dict(ocp.metadata(self._folder / str(step)).custom_metadata or {})

    def _read(self, step: int, abstract: Any) -> tuple[Any, str]:
        """A checkpoint's values, or None and why they cannot be read in one of the processes."""
        found, reason = None, "another process cannot read it"
        try:
            with _no_debris():
                values = ocp.load(self._folder / str(step), abstract)
            metadata = self._metadata(step)
            if metadata.get(DIGEST) != _digest(values, metadata.get(ACCURACY)):
                raise ValueError("its numbers are not those that were saved")
            found = values
        # Whatever Orbax, TensorStore and the file system raise for a damaged file.
        except Exception as error:
            reason = _reason(error)
        return (None, reason) if processes.any_process(found is None) else (found, "")

    def _set_aside(self, step: int, reason: str) -> None:
        self._damaged.add(step)
        self._tell(f"Checkpoint {step} in {self._folder} is damaged ({reason}): left out.")
        if self._read_only:
            return
        aside = self._folder.parent / f"damaged-checkpoint-{step}"
        with _reporting(self._folder), processes.all_or_none():
            self._close_writer()
            if processes.is_first():
                if aside.exists():
                    shutil.rmtree(aside)
                (self._folder / str(step)).rename(aside)
        # Its step may be saved again.
        self._damaged.discard(step)
        self._tell(f"It is set aside as {aside}.")

    def _tell(self, text: str) -> None:
        if processes.is_first():
            print(text, file=sys.stderr)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def _close_writer(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
            UserError: if the last save could not be written.
        """
        with _reporting(self._folder):
            self._wait()
            self._close_writer()

    def __enter__(self) -> "Checkpoints":
        """Nothing to do."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes."""
        self.close()


@jax.jit
def snapshot(state: Any) -> Any:
    """A copy of a state that a later step, to which the original is donated, cannot write over."""
    return jax.tree.map(jnp.copy, state)


def _digest(values: Any, test_accuracy: float | None) -> str:
    """A checksum of all that a checkpoint holds.

    What Orbax writes is not protected as a whole: a bit that is flipped on a disk may come back as
    a number like any other.
    """
    found = hashlib.sha256(repr(test_accuracy).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(values):
        found.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            leaf = jax.random.key_data(leaf)
        found.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # TensorStore says it somewhere after the name of the file, or of two of them.
    if found := re.search(r"OS error (\d+)|No space left on device", str(error)):
        return os.strerror(int(found[1] or errno.ENOSPC))
    return (str(error) or type(error).__name__).strip().splitlines()[0][:160]


@functools.cache
def _quieten_orbax() -> None:
    """Keeps quiet, from now on, what Orbax leaves behind.

    Reads and writes that are still under way when it gives up on a checkpoint, or has seen enough
    of one, complain with tracebacks on the terminal that nobody waits for them any more: some at
    once, some when they are collected, some when they end. What is wrong is told in a sentence.
    """
    hook = sys.unraisablehook

    def ignore_abandoned_work(unraisable: Any) -> None:
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not closed and not inspect.iscoroutine(unraisable.object):
            hook(unraisable)

    sys.unraisablehook = ignore_abandoned_work
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)
    # It logs each step of each save, and what it cannot read.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    logging.getLogger().addFilter(lambda record: "orbax" not in record.pathname)


@contextmanager
def _no_debris() -> Iterator[None]:
    """Collects at once, unheard, the work that an error in the body abandons."""
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
        raise


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    try:
        with _no_debris():
            yield
    # Orbax and TensorStore tell a full disk as OSError, ValueError or their own classes.
    except Exception as error:
        if isinstance(error, UserError | jax.errors.JaxRuntimeError):
            raise
        raise UserError(
            f"checkpoints cannot be written to {folder} ({_reason(error)}): make room or give "
            "permission there; what was complete is kept, and --resume goes on from it."
        ) from error
