"""Which examples make up which batch: a pure function of the seed and the step."""

import functools

import numpy as np

from train.errors import UserError

WHOLE = slice(None)
"""The part of a batch that a process brings in which trains alone."""


class Order:
    """The order in which training sees its examples.

    The stream of examples is one full permutation of the training set after another, one per
    epoch, and step `s` takes the positions `s * batch_size` to `(s + 1) * batch_size` of that
    stream. A batch may straddle two epochs, so nothing is dropped and every epoch holds every
    example exactly once. There is no state: training resumes at step `s` by asking for step `s`.

    Args:
        size: number of examples, n.
        batch_size: the global batch, B, over all devices and processes.
        seed: chooses the permutations; nothing else does, not the number of devices.

    Raises:
        UserError: if the seed is negative or the batch is not between 1 and n.
    """

    def __init__(self, size: int, *, batch_size: int, seed: int) -> None:
        if batch_size < 1:
            raise UserError(f"the batch size is {batch_size}, but must be at least 1.")
        if batch_size > size:
            raise UserError(
                f"a batch of {batch_size} is larger than the training set of {size} examples: "
                f"use a batch size of at most {size}."
            )
        if seed < 0:
            raise UserError(f"the seed is {seed}, but must be 0 or larger.")
        self.size = size
        self.batch_size = batch_size
        self.seed = seed

    def indices(self, step: int) -> np.ndarray:
        """Examples of one batch.

        Args:
            step: 0 for the first batch of the run.

        Returns:
            int32 [batch_size], positions in the training split.
        """
        epoch, start = divmod(step * self.batch_size, self.size)
        batch = _permutation(self.size, self.seed, epoch)[start : start + self.batch_size]
        missing = self.batch_size - len(batch)
        if not missing:
            return batch
        return np.concatenate([batch, _permutation(self.size, self.seed, epoch + 1)[:missing]])


# A few, because a streaming feed reads ahead from several threads around the end of an epoch.
@functools.lru_cache(maxsize=4)
def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of `size` examples, int32, read-only.

    It sorts raw words of the bit generator: NumPy promises those to be the same in every version,
    and does not promise it of `Generator.permutation`.
    """
    words = np.random.PCG64(np.random.SeedSequence((seed, epoch))).random_raw(size)
    permutation = np.argsort(words, kind="stable").astype(np.int32)
    permutation.setflags(write=False)
    return permutation
