"""Batches for evaluation: in order, each example once, every batch of one shape."""

from collections.abc import Iterator

import jax
import numpy as np

from train.data.dataset import Batch, Examples
from train.system.errors import UserError


def padded_batches(examples: Examples, batch_size: int) -> Iterator[tuple[Batch, np.ndarray]]:
    """Yields examples in order, the last batch filled up with zeros.

    Args:
        examples: the split.
        batch_size: the global batch, B; it may be larger than the split.

    Yields:
        A batch of B examples on the host, and a mask float32 [B] that is 1 for an example and 0 for
        padding, so that sums over it count each example exactly once.

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
