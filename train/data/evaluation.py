"""Batches for evaluation: in order, each example once, every batch of one shape."""

from collections.abc import Iterator

import numpy as np

from train.data.dataset import Split
from train.errors import UserError


def padded_batches(
    split: Split, batch_size: int
) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Yields a split in order, the last batch filled up with zeros.

    Args:
        split: the split.
        batch_size: the global batch, B; it may be larger than the split.

    Yields:
        Images uint8 [B, height, width, channels], labels int32 [B], and a mask float32 [B] that is
        1 for an example and 0 for padding, so that sums over it count each example exactly once.

    Raises:
        UserError: if the batch size is less than 1 (on the first item asked for).
    """
    if batch_size < 1:
        raise UserError(f"the batch size is {batch_size}, but must be at least 1.")
    for start in range(0, len(split), batch_size):
        images = split.images[start : start + batch_size]
        labels = split.labels[start : start + batch_size]
        mask = np.ones(len(labels), np.float32)
        padding = batch_size - len(labels)
        yield _pad(images, padding), _pad(labels, padding), _pad(mask, padding)


def _pad(array: np.ndarray, rows: int) -> np.ndarray:
    return np.pad(array, [(0, rows)] + [(0, 0)] * (array.ndim - 1)) if rows else array
