"""Checkpoints of a run, with Orbax: the last two and the best one are kept."""

import gc
import inspect
import logging
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
from orbax.checkpoint import v1 as ocp

from train import hosts
from train.errors import UserError

KEPT_LAST = 2
METRIC = "test_accuracy"

Which = Literal["last", "best"]

_policies = ocp.training.preservation_policies
# Orbax logs each step of each save, which is no message for the user of a training program.
logging.getLogger("absl").setLevel(logging.ERROR)


class Checkpoints:
    """The checkpoints in one folder, each named by its step.

    A checkpoint appears under its name only when it is complete, whenever the program ends.

    Args:
        folder: where they are; made where it does not exist.
        read_only: change nothing in the folder, where a `fit` may be at work.

    Raises:
        UserError: if the folder cannot be read or written.
    """

    def __init__(self, folder: Path, *, read_only: bool = False) -> None:
        self._folder = folder.absolute()
        self._read_only = read_only
        if read_only and not self._folder.is_dir():
            raise UserError(f"{self._folder} holds no complete checkpoint: train the run first.")
        self._checkpointer = self._open()
        self._pending: Any = None

    def _open(self) -> ocp.training.Checkpointer:
        best = _policies.BestN(
            get_metric_fn=lambda metrics: metrics[METRIC],
            n=1,
            keep_checkpoints_without_metrics=False,
        )
        with _reporting(self._folder):
            return ocp.training.Checkpointer(
                self._folder,
                preservation_policy=_policies.AnyPreservationPolicy(
                    [_policies.LatestN(KEPT_LAST), best]
                ),
                cleanup_tmp_directories=not self._read_only,
            )

    def steps(self) -> list[int]:
        """The steps of all complete checkpoints, ascending."""
        return [checkpoint.step for checkpoint in self._checkpointer.checkpoints]

    def best_step(self) -> int | None:
        """The step with the highest test accuracy, the later one of equals; None without any."""
        rated = [c for c in self._checkpointer.checkpoints if c.metrics]
        if not rated:
            return None
        return max(rated, key=lambda c: (c.metrics[METRIC], c.step)).step

    def save(self, state: Any, test_accuracy: float | None = None) -> None:
        """Begins to save a state under its step and returns; a step that is there is left alone.

        Args:
            state: the training state, which must stay as it is: where a step is about to take
                over its memory, a `snapshot` of it.
            test_accuracy: what the best checkpoint is chosen by.

        Raises:
            UserError: if this save or the one before cannot be written.
        """
        step = int(state.step)
        if step in self.steps():
            return
        metrics = None if test_accuracy is None else {METRIC: test_accuracy}
        with _reporting(self._folder):
            self._wait()
            self._pending = self._checkpointer.save_async(
                step, hosts.in_common(state._asdict()), metrics=metrics, force=True
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
        if not steps:
            raise UserError(f"{self._folder} holds no complete checkpoint: train the run first.")
        values = like._asdict()
        abstract = jax.tree.map(_abstract, hosts.in_common(values))
        for step in reversed(steps):
            found, reason = self._read(step, abstract)
            if found is not None:
                return type(like)(**hosts.from_common(found, values))
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

    def _read(self, step: int, abstract: Any) -> tuple[Any, str]:
        """A checkpoint's values, or None and why they cannot be read in one of the processes."""
        found, reason = None, "another process cannot read it"
        try:
            with _no_debris():
                found = self._checkpointer.load(step, abstract)
        # Whatever Orbax, TensorStore and the file system raise for a damaged file.
        except Exception as error:
            reason = _reason(error)
        return (None, reason) if hosts.any_says(found is None) else (found, "")

    def _set_aside(self, step: int, reason: str) -> None:
        aside = self._folder.parent / f"damaged-checkpoint-{step}"
        self._tell(
            f"Checkpoint {step} in {self._folder} is damaged ({reason}): "
            "falling back to the one before."
        )
        if self._read_only:
            return
        self._checkpointer.close()
        with hosts.together(), _reporting(self._folder):
            if hosts.is_first():
                (self._folder / str(step)).rename(aside)
        self._checkpointer = self._open()
        self._tell(f"It is set aside as {aside}.")

    def _tell(self, text: str) -> None:
        if hosts.is_first():
            print(text, file=sys.stderr)

    def _wait(self) -> None:
        if self._pending is not None:
            pending, self._pending = self._pending, None
            pending.result()

    def close(self) -> None:
        """Waits until everything is written.

        Raises:
            UserError: if the last save could not be written.
        """
        with _reporting(self._folder):
            self._wait()
            self._checkpointer.close()

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


def _abstract(x: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding)


def _reason(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return (str(error) or type(error).__name__).strip().splitlines()[0][:160]


@contextmanager
def _no_debris() -> Iterator[None]:
    """Keeps quiet what Orbax leaves behind when it gives up on a damaged checkpoint.

    Reads that are still under way complain, with tracebacks on the terminal, that nobody waits for
    them any more: some at once, some when they are collected, some when they end. After a failure
    those complaints stay unheard.
    """
    hook, logger = sys.unraisablehook, logging.getLogger("asyncio")
    level = logger.level

    def ignore_abandoned_reads(unraisable: Any) -> None:
        closed = str(unraisable.exc_value) == "Event loop is closed"
        if not closed and not inspect.iscoroutine(unraisable.object):
            hook(unraisable)

    sys.unraisablehook = ignore_abandoned_reads
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            gc.collect()
        raise
    sys.unraisablehook = hook
    logger.setLevel(level)


@contextmanager
def _reporting(folder: Path) -> Iterator[None]:
    try:
        yield
    # Orbax and TensorStore tell a full disk as OSError, ValueError or their own classes.
    except Exception as error:
        if isinstance(error, UserError | jax.errors.JaxRuntimeError):
            raise
        raise UserError(
            f"checkpoints cannot be written to {folder} ({_reason(error)}): make room or give "
            "permission there; what was complete is kept, and --resume goes on from it."
        ) from error
