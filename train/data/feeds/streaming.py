"""The feed for sets that do not fit on the device: Grain puts batches together on the host."""

import functools
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping

import jax
import numpy as np
from absl import flags
from jax.sharding import Mesh

from train.data.dataset import Batch, Examples
from train.data.feeds.order import Order
from train.data.made.generated import GeneratedSplit
from train.distributed import processes
from train.distributed.preemption import SIGNALS
from train.system.errors import UserError

_THREADS = 2
_BATCHES_AHEAD = 8


class StreamingFeed:
    """Sends every batch from the host, put together ahead of time by Grain.

    The arguments are those of `ResidentFeed` and `workers`: processes that put batches together; 0
    leaves it to threads of this one, which is right as long as it is only gathering from memory.
    Nothing stays on the devices.

    Raises:
        UserError: if Grain is not installed, or worker processes are asked for examples that are
            made with JAX.
    """

    def __init__(self, split: Examples, order: Order, mesh: Mesh, *, workers: int = 0) -> None:
        try:
            # It takes half a second to import, and a resident feed does without it.
            import grain
        except ImportError as error:
            raise UserError(
                "the streaming feed needs grain, which is not installed: install the project's "
                "`train` dependencies, or use the resident feed."
            ) from error
        self._grain = grain
        if workers and isinstance(split, GeneratedSplit):
            raise UserError(
                f"{workers} worker processes cannot make examples: leave it to this one, which "
                "has JAX at work."
            )
        part = processes.own_part(order.batch_size, mesh)
        self._gather = functools.partial(_gather, split, order, part)
        self._workers = workers
        self.constants: dict[str, jax.Array] = {}
        one = _fields(split.gather(np.zeros(1, np.int32)))
        self.example = {n: jax.ShapeDtypeStruct(x.shape[1:], x.dtype) for n, x in one.items()}
        self.batch_bytes = order.batch_size * sum(array.nbytes for array in one.values())

    def batches(self, start_step: int, stop_step: int) -> Iterator[dict[str, np.ndarray]]:
        """Yields the fields of a `Batch` by name, without those that are None, for each step."""
        if start_step >= stop_step:
            return
        stream = (
            self._grain.MapDataset.range(start_step, stop_step)
            .map(self._gather)
            .to_iter_dataset(
                self._grain.ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_BATCHES_AHEAD)
            )
        )
        if self._workers:
            # Grain's worker processes read absl's flags, which only absl's own programs parse.
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()
            # Batches come through pipes. By default they come in shared memory, of which containers
            # have little, and of which Grain leaves some behind, which Python tells on the terminal
            # when it ends (seen in 0.2.18; google/grain#398, open).
            options = self._grain.experimental.DatasetOptions(min_shm_size=sys.maxsize)
            stream = self._grain.experimental.WithOptionsIterDataset(stream, options)
            stream = stream.mp_prefetch(
                self._grain.MultiprocessingOptions(num_workers=self._workers),
                worker_init_fn=_belong_to_parent,
            )
        yield from stream

    @staticmethod
    def select(constants: Mapping[str, jax.Array], batch: Mapping[str, jax.Array]) -> Batch:
        """Passes on what came."""
        del constants
        return Batch(**batch)


def _belong_to_parent(*_: int) -> None:
    """Leaves to its parent what a terminal or a scheduler sends to a worker, too, and ends with it.

    Grain (seen in 0.2.18) does neither: the one would end the parent before its checkpoint, and
    without the other a worker outlives a parent that is killed. Grain itself ends it by SIGKILL.
    """
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _gather(split: Examples, order: Order, part: slice, step: int) -> dict[str, np.ndarray]:
    return _fields(split.gather(order.indices(int(step))[part]))


def _fields(batch: Batch) -> dict[str, np.ndarray]:
    return {name: array for name, array in batch._asdict().items() if array is not None}
