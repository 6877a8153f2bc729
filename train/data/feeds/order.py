"""The order of the examples: in training a function of seed and step, to be measured their own."""

import functools
from collections.abc import Iterator

import jax
import numpy as np

from train.data.dataset import Batch, Examples
from train.system.errors import UserError


class Order:
    """The order in which training sees its examples.

    The stream of examples is one full permutation of the training set after another, one per
    epoch, and step `s` takes the positions `s * batch_size` to `(s + 1) * batch_size` of that
    stream. A batch may straddle two epochs, so nothing is dropped and every epoch holds every
    example exactly once. There is no state: training resumes at step `s` by asking for step `s`.

    Where there are more examples than can be permuted, an epoch is their blocks one after the
    other, each in an order of its own.

    Args:
        size: number of examples, n.
        batch_size: the global batch, over all devices and processes.
        seed: chooses the permutations; nothing else does, not the number of devices.
        block: examples that are permuted together, the last block of an epoch being what is left;
            all by default.

    Raises:
        UserError: if the batch is larger than n.
    """

    def __init__(self, size: int, *, batch_size: int, seed: int, block: int | None = None) -> None:
        if batch_size > size:
            raise UserError(
                f"a batch of {batch_size} is larger than the training set of {size} examples: "
                f"choose --batch-size {size}, or less."
            )
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.block = size if block is None else min(block, size)
        self._blocks = -(-size // self.block)  # in an epoch

    @classmethod
    def of(cls, examples: Examples, *, batch_size: int, seed: int) -> "Order":
        """The order of the examples of a training split."""
        return cls(len(examples), batch_size=batch_size, seed=seed, block=examples.block)

    def indices(self, step: int) -> np.ndarray:
        """The examples of a step, 0 for the first: int32 [batch_size] in the training split."""
        position, end = step * self.batch_size, (step + 1) * self.batch_size
        pieces = []
        while position < end:
            piece = self._rest_of_block(position)[: end - position]
            pieces.append(piece)
            position += len(piece)
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    def _rest_of_block(self, position: int) -> np.ndarray:
        """Examples from a position of the stream to the end of its block."""
        epoch, in_epoch = divmod(position, self.size)
        block, start = divmod(in_epoch, self.block)
        first = block * self.block
        size = min(self.block, self.size - first)
        piece = _permutation(size, self.seed, epoch * self._blocks + block)[start:]
        return piece + np.int32(first) if first else piece


# A few, because a streaming feed reads ahead from several threads around the end of an epoch.
@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, block: int) -> np.ndarray:
    """A permutation of `size` examples for a block of the stream, int32, read-only."""
    # NumPy promises raw words to be the same in every version, `Generator.permutation` not.
    words = np.random.PCG64(np.random.SeedSequence((seed, block))).random_raw(size)
    permutation = np.argsort(words, kind="stable").astype(np.int32)
    permutation.setflags(write=False)
    return permutation


def padded_batches(examples: Examples, batch_size: int) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields examples in order in global batches of B on the host, the last filled up with zeros.

    With each comes a mask float32 [B] that is 1 for an example and 0 for padding, so that sums over
    it count each example exactly once.

    Raises:
        UserError: if the batch size is less than 1 (on the first item asked for).
    """
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}, but must be at least 1.")
    for start in range(0, len(examples), batch_size):
        stop = min(start + batch_size, len(examples))
        batch = examples.gather(np.arange(start, stop))
        rows = batch_size - (stop - start)
        mask = np.ones(stop - start, np.float32)
        yield jax.tree.map(lambda array, rows=rows: _pad(array, rows), (batch, mask))


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1)) if rows else array
